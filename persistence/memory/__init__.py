"""A store that keeps nothing beyond the process: for `flowkeep run`, unit tests and simulation."""

from persistence.memory.repository import MemoryRepository

__all__ = ["MemoryRepository"]
