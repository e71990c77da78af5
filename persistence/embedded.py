"""Supervises a private Postgres in a data folder, so that Flowkeep runs without a database of its own."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psutil

_DEFAULTS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "wal_compression": "on",
}
_SOCKET_PATH_LIMIT = 103  # bytes, on macOS; 107 on Linux
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_CREATE_DATABASE = rb"""SELECT 'CREATE DATABASE flowkeep'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'flowkeep') \gexec"""


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot run; the message says why and what to do."""


def default_root() -> Path:
    """Returns the data folder to use when none is configured; creates nothing."""
    if os.geteuid() == 0:
        return Path("/var/lib/flowkeep")
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (data_home if data_home.is_absolute() else Path.home() / ".local/share") / "flowkeep"


class EmbeddedPostgres:
    """One Postgres over one data folder, owned by this process and ended with it.

    `root` and its missing parents are created; nothing that existed gets other permissions. `settings` are
    Postgres settings and win over the defaults, but not over port and sockets. `binaries` is the folder with
    `postgres`, `initdb` and `psql`, by default that of the wheel. Started by root, whom Postgres refuses, it
    runs as the owner of the data, else as `postgres` or `nobody`.

    Raises EmbeddedPostgresError when the binaries are missing.
    """

    def __init__(self, root: Path, *, settings: Mapping[str, str] = {}, binaries: Path | None = None) -> None:
        self._root = root.resolve()
        self._data, self._sockets = self._root / "data", _socket_folder(self._root)
        sockets = {"unix_socket_directories": str(self._sockets), "unix_socket_permissions": "0700"}
        self._settings = {**_DEFAULTS, **settings, "port": "5432", **sockets}
        self._binaries = (binaries or _wheel_binaries()).resolve()
        if not (self._binaries / "postgres").is_file():
            raise EmbeddedPostgresError(f"there is no postgres program in {self._binaries}")
        self._lock: int | None = None
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        """The file with what Postgres says."""
        return self._root / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster, None unless it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def dsn(self, database: str = "flowkeep") -> str:
        """Returns a libpq URI for psql, asyncpg and SQLAlchemy; PGPORT and PGUSER do not disturb it."""
        return f"postgresql://postgres@/{quote(database, safe='')}?host={quote(str(self._sockets))}&port=5432"

    def psql_command(self, database: str = "flowkeep") -> list[str]:
        """Returns the command line that opens psql on the running database."""
        return [str(self._binaries / "psql"), self.dsn(database)]

    def start(self, timeout: float = 300.0) -> Self:
        """Returns once the database `flowkeep` takes connections; creates data and database where missing.

        Ends whatever a killed owner left running on the folder. Must be called from the main thread. Raises
        EmbeddedPostgresError, with nothing left running, when another process owns the folder, when the folder
        or the binaries cannot be used, or when Postgres fails or is not ready within `timeout` seconds.
        """
        if threading.current_thread() is not threading.main_thread():
            # Linux ends a child with the thread that started it, not with the process.
            raise EmbeddedPostgresError("start Postgres from the main thread: it ends with its thread")
        if self._lock is not None:
            raise EmbeddedPostgresError(f"this Postgres is already started, in {self._root}")
        try:
            self._start(time.monotonic() + timeout)
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError | subprocess.SubprocessError):
                said = (getattr(error, "output", None) or b"").decode(errors="replace")
                raise EmbeddedPostgresError(f"cannot run Postgres in {self._root}: {error} {said}") from error
            raise
        return self

    def stop(self) -> None:
        """Ends Postgres in good order and frees the folder; does nothing if not started or in a forked child."""
        if self._lock is None or os.getpid() != self._owner:
            return
        if self._process is not None:
            _end(self._process)
            self._process = None
        if self._sockets.parent != self._root:
            with contextlib.suppress(OSError):
                self._sockets.rmdir()
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # closing does not free it while a forked child has it open
        os.close(self._lock)
        self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, deadline: float) -> None:
        _make_folders(self._root)
        self._lock, self._owner = _owner_lock(self._root), os.getpid()
        account = _Account.over(self._data)
        if blocked := account.blocked_at(self._root):
            raise EmbeddedPostgresError(
                f"Postgres runs as {account.name}, who may not enter {blocked}: allow it (chmod o+x {blocked}) "
                f"or choose another data folder than {self._root}, such as /var/lib/flowkeep"
            )
        _end_orphans(self._data, deadline)
        said = subprocess.check_output([self._binaries / "postgres", "--version"], text=True)
        version = said.split()[2]
        binaries = self._binaries
        if account.blocked_at(binaries):
            binaries = _copied(binaries, self._root / f"postgres-{version}")
        if not (self._data / "PG_VERSION").exists():
            self._create_data(account, binaries, new_locales=int(version.split(".")[0]) >= 17)
        _make_private(self._sockets, account)
        self._launch(account, binaries / "postgres", deadline)
        psql = [binaries / "psql", "-Xqw", "--set=ON_ERROR_STOP=1", self.dsn("postgres")]
        account.run(psql, stdin=_CREATE_DATABASE, deadline=deadline)

    def _create_data(self, account: _Account, binaries: Path, *, new_locales: bool) -> None:
        for interrupted in self._root.glob("data.init-*"):
            shutil.rmtree(interrupted, ignore_errors=True)
        # Made aside and renamed: an interrupted initdb leaves what looks like a database and is none.
        unfinished = Path(tempfile.mkdtemp(prefix="data.init-", dir=self._root))
        os.chown(unfinished, account.uid, account.gid)
        # Not the locale of the machine, by which the sort order would differ from host to host.
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        account.run([binaries / "initdb", ...])
        unfinished.rename(self._data)
        os.sync()  # else a power cut may undo the renaming, and with it the database
