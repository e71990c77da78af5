"""Gives tests of clients in other languages the servers that tests of ours have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import new_folder
from tests.integration.conftest import engines, mistakes, open_repository, serve, served, stage

__all__ = ["engines", "mistakes", "open_repository", "serve", "served", "stage"]


@pytest.fixture
def gate() -> Iterator[Path]:
    """A file that is not there: attempts of `hold` go on when it is."""
    with new_folder() as folder:
        yield folder / "gate"
