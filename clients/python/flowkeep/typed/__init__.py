"""Reads the types of declared functions, for the server and for workers alike: what JSON their params are.

It needs pydantic, which the server has and `flowkeep-client[worker]` brings.
"""
