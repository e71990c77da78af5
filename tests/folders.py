"""Where the tree is, and folders for the data of databases, where they are made, copied and flushed in no time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The tree that these tests are of."""


@contextmanager
def new_folder(prefix: str = "flowkeep-test-", *, on_disk: bool = False) -> Iterator[Path]:
    """Give an empty folder; its path is short, for sockets, and every account may pass it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp" if on_disk else _fastest()))
    folder.chmod(0o711)  # started by root, Postgres runs as another account
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def may_pass(path: Path) -> bool:
    """Whether every account may pass the folders that lead there: not those that lie at home with root."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def _fastest() -> str:
    """Memory, if there is plenty: a database is hundreds of files, which a slow disk takes seconds to copy or flush."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30:
        # The supervisor may have to keep a copy of the programs beside the data.
        return "/tmp" if os.statvfs(memory).f_flag & os.ST_NOEXEC else str(memory)
    return "/tmp"
