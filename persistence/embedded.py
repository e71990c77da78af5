"""Supervises a private Postgres in a data folder, so that Flowkeep runs without a database of its own."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psutil

from persistence.errors import EmbeddedPostgresError, EmbeddedPostgresInUseError
from persistence.installation import copied, nameless, wheel_binaries

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_root"]

_DEFAULTS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "wal_compression": "on",
}
_SOCKET_PATH_LIMIT = 103  # bytes, on macOS; 107 on Linux (LIBRARIES D2)
_NO_NAME = "could not look up effective user ID"  # says initdb before it does anything
_LIBC, _PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
_CREATE_DATABASE = rb"""SELECT 'CREATE DATABASE flowkeep'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'flowkeep') \gexec"""


def default_root() -> Path:
    """Returns the data folder to use when none is configured; creates nothing.

    Raises EmbeddedPostgresError for an account without a home folder.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/flowkeep")
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))  # to be ignored when relative, says XDG
    return (data_home if data_home.is_absolute() else _home() / ".local/share") / "flowkeep"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and no line in /etc/passwd
        raise EmbeddedPostgresError(
            f"uid {os.geteuid()} has no home folder to keep data in: name a data folder by FLOWKEEP_DATA_DIR"
        ) from None


class EmbeddedPostgres:
    """One Postgres over one data folder, owned by this process and ended with it.

    `root` and its missing parents are created; nothing that existed gets other permissions. `settings` are
    Postgres settings and win over the defaults, but not over name, port and sockets. `binaries` is the folder
    with `postgres`, `initdb` and `psql`, by default that of the wheel. Started by root, whom Postgres refuses,
    it runs as the owner of the data, else as `postgres` or `nobody`.

    Raises EmbeddedPostgresError when the binaries are missing.
    """

    def __init__(self, root: Path, *, settings: Mapping[str, str] = {}, binaries: Path | None = None) -> None:
        self._root = root.resolve()
        self._data, self._sockets = self._root / "data", _socket_folder(self._root)
        own = {"cluster_name": _tag(self._root), "port": "5432", "unix_socket_permissions": "0700"}
        self._settings = {**_DEFAULTS, **settings, **own, "unix_socket_directories": str(self._sockets)}
        self._binaries = (binaries or wheel_binaries()).resolve()
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
        """Returns a URI for asyncpg and SQLAlchemy that leaves nothing open: no PG… of the environment disturbs it."""
        # Nobody asks for the password; with one, no file of passwords is looked for.
        own = self._uri(database).replace("postgres@", "postgres:none@", 1)
        return f"{own}&target_session_attrs=any&sslnegotiation=postgres&gsslib=gssapi&krbsrvname=postgres"

    def psql_command(self, database: str = "flowkeep") -> list[str]:
        """Returns the command line that opens psql on the running database."""
        return [str(self._binaries / "psql"), self._uri(database)]

    def _uri(self, database: str) -> str:
        where = f"host={quote(str(self._sockets))}&port=5432&sslmode=disable"
        return f"postgresql://postgres@/{quote(database, safe='')}?{where}"

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
        except (OSError, subprocess.SubprocessError, psutil.Error) as error:
            self.stop()
            hint = "; FLOWKEEP_DATA_DIR names another folder" if isinstance(error, PermissionError) else ""
            raise EmbeddedPostgresError(f"cannot run Postgres in {self._root}: {error}{hint}") from error
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends Postgres in order and frees the folder; does nothing if not started or in a forked child."""
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
                f"Postgres runs as {account.name}, who may not enter {blocked}: allow it by "
                f"chmod o+x {blocked}, or choose another data folder than {self._root}, such as {default_root()}"
            )
        _end_orphans(self._root, deadline)
        for unfinished in (*self._root.glob("data.init-*"), *self._root.glob("postgres.copy-*")):
            shutil.rmtree(unfinished, ignore_errors=True)  # of a start that was killed
        said = subprocess.check_output([self._binaries / "postgres", "--version"], text=True)
        version, binaries = said.split()[2], self._binaries  # of "postgres (PostgreSQL) 18.4"
        if account.blocked_at(binaries):
            binaries = copied(binaries, self._root / f"postgres-{version}")
        if not (self._data / "PG_VERSION").exists():
            self._create_data(account, binaries, int(version.split(".")[0]), deadline)
        _make_private(self._sockets, account)
        self._launch(account, binaries / "postgres", deadline)
        psql = [str(binaries / "psql"), "-Xqw", "--set=ON_ERROR_STOP=1", self._uri("postgres")]
        account.run(psql, deadline, stdin=_CREATE_DATABASE)

    def _create_data(self, account: _Account, binaries: Path, major: int, deadline: float) -> None:
        # Made aside and renamed: an interrupted initdb leaves what looks like a database and is none.
        unfinished = Path(tempfile.mkdtemp(prefix="data.init-", dir=self._root))
        try:
            os.chown(unfinished, account.uid, account.gid)
            self._fill(unfinished, account, binaries, major, deadline)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        unfinished.rename(self._data)
        root = os.open(self._root, os.O_RDONLY)
        os.fsync(root)  # else a power cut may undo the renaming, and with it the database
        os.close(root)

    def _fill(self, data: Path, account: _Account, binaries: Path, major: int, deadline: float) -> None:
        options = ["-D", str(data), "--username=postgres", "--encoding=UTF8"]
        options += ["--auth-local=trust", "--auth-host=reject"]
        # Not the locale of the machine, by which the sort order would differ from host to host.
        options += ["--locale=C"]
        if major >= 17:
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        try:
            account.run([str(binaries / "initdb"), *options], deadline)
        except EmbeddedPostgresError as error:
            if _NO_NAME not in str(error):
                raise
            with nameless(binaries, self._root) as programs:
                account.run([str(programs / "initdb"), *options], deadline)

    def _launch(self, account: _Account, postgres: Path, deadline: float) -> None:
        # Nobody is attached to the data any more, and the process id in the file may be anyone's by now (LIBRARIES D3).
        for stale in (self._data / "postmaster.pid", *self._sockets.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)
        command = [str(postgres), "-D", str(self._data)]
        command += [f"--{name}={value}" for name, value in self._settings.items()]
        with open(self.log_path, "ab", opener=functools.partial(os.open, mode=0o600)) as log:
            earlier = log.tell()
            self._process = account.spawn(command, stdin=subprocess.DEVNULL, output=log.fileno())
        while _postmaster(self._data) != [str(self._process.pid), "ready"]:
            if self._process.poll() is not None:
                said = self.log_path.read_bytes()[earlier:].decode(errors="replace").strip()
                raise EmbeddedPostgresError(f"Postgres did not start, see {self.log_path}:\n{said[-2000:]}")
            _pause(deadline, f"Postgres is not ready in time, see {self.log_path}")


@dataclass(frozen=True)
class _Account:
    """The account that Postgres runs as: our own, unless we are root."""

    uid: int
    gid: int
    name: str

    @classmethod
    def over(cls, data: Path) -> Self:
        if (uid := os.geteuid()) != 0:
            return cls(uid, os.getegid(), f"uid {uid}")
        if data.exists() and (found := data.stat()).st_uid != 0:
            return cls(found.st_uid, found.st_gid, f"uid {found.st_uid}")
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid, f"user {name}")
        raise EmbeddedPostgresError("Postgres refuses root, and there is neither a user postgres nor nobody")

    def blocked_at(self, folder: Path) -> Path | None:
        """Returns the first folder on the way, the last included, that this account may not enter."""
        for step in (*reversed(folder.parents), folder):
            found = step.stat()
            shift = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
            if os.geteuid() == 0 and not found.st_mode >> shift & 0o1:
                return step
        return None

    def spawn(self, command: list[str], *, stdin: int, output: int) -> subprocess.Popen[bytes]:
        """Starts a program that ends with us, apart from our folder, environment and terminal."""
        switch = os.geteuid() == 0
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,
            preexec_fn=functools.partial(_follow, os.getpid()),  # noqa: PLW1509 - the child has to ask for it
            user=self.uid if switch else None,
            group=self.gid if switch else None,
            extra_groups=[] if switch else None,
        )

    def run(self, command: list[str], deadline: float, stdin: bytes = b"") -> None:
        with self.spawn(command, stdin=subprocess.PIPE, output=subprocess.PIPE) as process:
            try:
                said, _ = process.communicate(stdin, deadline - time.monotonic())
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            reason = said.decode(errors="replace").strip()
            raise EmbeddedPostgresError(f"{command[0]} failed:\n{reason}")


def _follow(parent: int) -> None:
    """Has Linux end this process in order when its parent dies; elsewhere the next start ends it."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before it could be followed
            os._exit(1)


def _end(process: subprocess.Popen[bytes]) -> None:
    for order in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(order)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
            return


def _end_orphans(root: Path, deadline: float) -> None:
    """Ends what a dead owner left running; as we hold the lock, no living owner's can be there."""
    began = time.monotonic()
    while orphans := _attached(root):
        age, recorded = time.monotonic() - began, _postmaster(root / "data")[:1]
        postmaster = [orphan for orphan in orphans if [str(orphan.pid)] == recorded]
        # Only the postmaster takes SIGINT as the order to shut down; its children have other uses for it.
        order = signal.SIGKILL if age > 60 else signal.SIGQUIT if age > 30 or not postmaster else signal.SIGINT
        for orphan in postmaster if order == signal.SIGINT else orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.send_signal(order)
        _pause(deadline, f"an earlier Postgres in {root} does not end: {orphans}")


def _attached(root: Path) -> list[psutil.Process]:
    """Returns the Postgres processes of this folder; the id in postmaster.pid may be another's by now."""
    every = psutil.process_iter(["name", "cmdline"])
    return [process for process in every if process.info["name"] == "postgres" and _works_in(process, root)]


def _works_in(process: psutil.Process, root: Path) -> bool:
    try:
        # Not by name: on a host one sees the processes of containers, whose folders may have the same names.
        link = Path("/proc", str(process.pid), "cwd")
        return (link if link.is_symlink() else Path(process.cwd())).samefile(root / "data")
    except PermissionError:
        # Root in a container may not look at the folder of another account's process, but at its title.
        return os.geteuid() == 0 and _tag(root) in " ".join(process.info["cmdline"] or [])
    except (OSError, psutil.Error):
        return False


def _postmaster(data: Path) -> list[str]:
    """Returns the process id and the state that Postgres wrote down, as far as it has."""
    with contextlib.suppress(FileNotFoundError):
        return [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()[0:8:7]]
    return []


def _pause(deadline: float, complaint: str) -> None:
    if time.monotonic() > deadline:
        raise EmbeddedPostgresError(complaint)
    time.sleep(0.005)


def _owner_lock(root: Path) -> int:
    lock = os.open(root / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = f"process {os.read(lock, 20).decode().strip() or '(just starting)'}"
        os.close(lock)
        raise EmbeddedPostgresInUseError(f"{root} is in use by {holder}: stop it or choose another folder") from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def _make_folders(root: Path) -> None:
    for folder in [folder for folder in (*reversed(root.parents), root) if not folder.exists()]:
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:  # whatever the umask, the account of Postgres has to pass
            folder.chmod(0o755)


def _make_private(folder: Path, account: _Account) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_mode & 0o077 or found.st_uid not in (account.uid, os.geteuid()):
        raise EmbeddedPostgresError(f"{folder} is not a private folder of {account.name}: remove it")
    os.chown(folder, account.uid, account.gid)


def _tag(root: Path) -> str:
    return f"flowkeep-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"


def _socket_folder(root: Path) -> Path:
    path = os.fsencode(root / "sock" / ".s.PGSQL.5432")
    if len(path) <= _SOCKET_PATH_LIMIT and not {*path} & {*b',"'}:  # both mean something in lists of folders
        return root / "sock"
    # Not TMPDIR, which may be long itself, and another in the process that comes to look at the data.
    return Path("/tmp", _tag(root))  # noqa: S108 - private, and checked for its owner before use
