"""Gives tests of clients in other languages the servers that tests of ours have."""

from tests.integration.conftest import engines, mistakes, open_repository, serve, served, stage

__all__ = ["engines", "mistakes", "open_repository", "serve", "served", "stage"]
