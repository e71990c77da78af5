"""Handlers that call other services over gRPC, which the engine itself does not know."""
