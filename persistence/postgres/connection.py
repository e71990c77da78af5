"""Connections to Postgres, and its errors as ours."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.sql import ClauseElement

from persistence.errors import DamagedError, PersistenceError, SchemaError, StorageFullError, UnavailableError
from persistence.gate import Gate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Session: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy types no dialect

LOCK_NOT_AVAILABLE = "55P03"

_SILENCE = "the database does not answer those who came before"

_LARGE = 0.4
"""Share of the connections that lists and whole executions may have at a time."""

# What may pass when it is tried again: lost connections, shutdowns, exhausted resources, deadlocks, timeouts.
_PASSING_CLASSES = frozenset({"08", "40", "53", "57", "58", "XX"})
_PASSING_STATES = frozenset({"25001", "25006", "25P03", LOCK_NOT_AVAILABLE, "3D000"})
# What callers are told where the database answers, and cannot do it.
_TROUBLES = {
    "25006": "the database takes no writes: it is read-only",
    "53200": "the database has no memory left",
    "53300": "the database has no connections left",
    "53400": "the database was given a limit, and this goes beyond it",
    "58030": "the database cannot read or write its files",
}
_FULL = "53100"
_DAMAGED = frozenset({"XX001", "XX002"})
_UNREPLICATED = frozenset({"01000", "57P01"})
_SCHEMA_STATES = frozenset({"42P01", "42703", "42704", "42883"})


# All that asyncpg lets out; a TimeoutError is an OSError.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that broke at the wrong moment
    OSError,
    EOFError,
    UnicodeError,
    RuntimeError,  # of uvloop, for a transport that is closed
)
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)


def translated(error: BaseException) -> PersistenceError:
    """Return our error for one of the driver. Texts of SQL stay in its cause."""
    if isinstance(error, PersistenceError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state == _FULL:
            return StorageFullError("the disk of the database is full")
        if state in _DAMAGED:
            return DamagedError(f"the database found its files damaged: {error}")
        if is_passing(error):
            told = _TROUBLES.get(state)
            text = f"{told or 'the database cannot do it now'}: {type(error).__name__}"
            return UnavailableError(text, told) if told else UnavailableError(text)
        if state in _SCHEMA_STATES:
            return SchemaError(f"the database has another schema: {error}")
        if state.startswith("28"):
            return UnavailableError("the database refuses the user")
        return PersistenceError(f"the database refused: {error}")
    if isinstance(error, asyncpg.ClientConfigurationError):
        return PersistenceError(f"the address of the database, or a PG… variable beside it, is not valid: {error}")
    if _is_lost(error):
        return UnavailableError(f"the database cannot be reached: {type(error).__name__}")
    return PersistenceError(f"the database refused: {error}")


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may succeed later."""
    if not isinstance(error, asyncpg.PostgresError):
        return _is_lost(error)
    state = error.sqlstate or ""
    return state[:2] in _PASSING_CLASSES or state in _PASSING_STATES


def _is_lost(error: BaseException) -> bool:
    # Not what derives from RuntimeError: that is said of a program, such as a recursion without end.
    return isinstance(error, _LOST) or type(error) is RuntimeError


def is_of_a_row(error: PersistenceError) -> bool:
    """Whether what a row holds may have made a statement fail: the driver or the server can make nothing of it."""
    cause = error.__cause__
    is_corrupt = isinstance(cause, asyncpg.PostgresError) and (cause.sqlstate or "").startswith("XX")
    return is_corrupt or (type(error) is PersistenceError and cause is not None)


def is_contended(error: BaseException) -> bool:
    """Whether others are in the way of some rows: deadlocks, locks that were waited for too long, cancelled waits."""
    state = (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""
    return state[:2] == "40" or state in (LOCK_NOT_AVAILABLE, "57014")


def is_about_files(error: PersistenceError | None) -> bool:
    """Whether the database answers and cannot write: its disk is full, its files are damaged, or it is read-only."""
    cause = error.__cause__ if error is not None else None
    state = (cause.sqlstate or "") if isinstance(cause, asyncpg.PostgresError) else ""
    return state[:2] in ("53", "58", "XX") or state == "25006"


def is_unreplicated(message: asyncpg.PostgresLogMessage) -> bool:
    """Whether it says that a commit did not wait for its standby: cancelled then, Postgres commits all the same.

    Not by its text, which comes in the language of the server.
    """
    return message.sqlstate in _UNREPLICATED and message.server_source_function == "SyncRepWaitForLSN"


@asynccontextmanager
async def translating() -> AsyncIterator[None]:
    """Raise our errors where the driver raises its own."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translated(error) from error


class Database:
    """A pool of connections, and how to make one beside it."""

    def __init__(self, dsn: str, *, command_timeout: float = 3.5, acquire_timeout: float = 1.0) -> None:
        self._dsn = dsn
        self._command_timeout = command_timeout
        self._acquire_timeout = acquire_timeout
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._reserved: asyncpg.Connection[asyncpg.Record] | None = None
        self._reserved_timeout = 0.0
        self._reserved_lock = asyncio.Lock()
        self._large = Gate(1, acquire_timeout, _SILENCE)

    @property
    def dsn(self) -> str:
        """Where the database is."""
        return self._dsn

    async def open(self, pool_size: int) -> None:
        """Make the pool. Raises UnavailableError when the database does not answer."""
        # What is large takes a part of the connections: claims, starts and small reads find the others.
        self._large = Gate(max(1, int(pool_size * _LARGE)), self._acquire_timeout, _SILENCE)
        async with translating():
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=min(2, pool_size),
                max_size=pool_size,
                command_timeout=self._command_timeout,
                timeout=5.0,
                max_inactive_connection_lifetime=300.0,
                target_session_attrs=SessionAttribute.read_write,
                reset=_leave_as_it_is,
                # Reads by key: a plan for each call, over all partitions, would cost many times what it runs; and so
                # would processes that are started to help with it.
                server_settings=self._settings(
                    {"plan_cache_mode": "force_generic_plan", "max_parallel_workers_per_gather": "0"}
                ),
            )

    async def connect(
        self, *, settings: Mapping[str, str] = {}, timeout: float = 5.0, command_timeout: float | None = None
    ) -> asyncpg.Connection[asyncpg.Record]:
        """Make a connection outside of the pool. Raises what the driver raises."""
        return await asyncpg.connect(
            self._dsn,
            timeout=timeout,
            command_timeout=command_timeout or self._command_timeout,
            target_session_attrs=SessionAttribute.read_write,
            server_settings=self._settings(settings),
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Lend a connection of the pool; the driver's errors leave it as ours.

        Raises UnavailableError too, at the end, when a commit did not reach the standby that it has to reach.
        """
        if self._pool is None:
            raise UnavailableError("the store is closed")
        async with translating(), self._pool.acquire(timeout=self._acquire_timeout) as connection:
            unreplicated: list[asyncpg.PostgresLogMessage] = []

            def hear(_: object, message: asyncpg.PostgresLogMessage) -> None:
                if is_unreplicated(message):
                    unreplicated.append(message)

            connection.add_log_listener(hear)
            try:
                yield connection
            except (TimeoutError, asyncio.CancelledError):
                # Cut off in the middle: what the server still does on it is not known, so nobody else may have it.
                connection.terminate()
                raise
            finally:
                with suppress(asyncpg.InterfaceError):  # of one that was cut off
                    connection.remove_log_listener(hear)
            if unreplicated:
                raise UnavailableError("what was written may be lost: no standby has confirmed it")

    @asynccontextmanager
    async def searching(self, org: str) -> AsyncIterator[Session]:
        """Lend a connection whose plans fit the values asked for: for lists, whose filters differ from call to call.

        Raises QueueFullError when too much is read already.
        """
        async with self._large.place(org), self.session() as session, session.transaction(readonly=True):
            await session.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            yield session

    @asynccontextmanager
    async def reading(self, org: str) -> AsyncIterator[Session]:
        """Lend a connection for much that an org reads, of one moment. Raises QueueFullError as `searching` does."""
        async with self._large.place(org), self.snapshot() as session:
            yield session

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Session]:
        """Lend a connection all of whose reads see the same moment."""
        async with self.session() as session, session.transaction(isolation="repeatable_read", readonly=True):
            yield session

    async def reserved(self, statement: str, *arguments: Any, timeout: float = 2.0) -> asyncpg.Record | None:
        """Execute a statement on a connection that serves nothing else, and return its first row.

        For what must not wait for the pool. `timeout` is what the server gives the statement. Raises UnavailableError
        within about two seconds.
        """
        async with translating():
            try:
                async with self._reserved_lock, asyncio.timeout(2.0):
                    if self._reserved_timeout != timeout:
                        self._drop_reserved()
                    if self._reserved is None or self._reserved.is_closed():
                        limit = str(math.ceil(timeout * 1000))
                        limits = {"statement_timeout": limit, "lock_timeout": limit}
                        self._reserved = await self.connect(settings=limits, timeout=2.0, command_timeout=2.0)
                        self._reserved_timeout = timeout
                    return await self._reserved.fetchrow(statement, *arguments)
            except DRIVER_ERRORS:
                self._drop_reserved()
                raise

    def _drop_reserved(self) -> None:
        connection, self._reserved = self._reserved, None
        if connection is not None:
            connection.terminate()

    async def close(self, timeout: float = 2.0) -> None:
        """Let go of all connections; calls that still run have `timeout` seconds."""
        self._drop_reserved()
        pool, self._pool = self._pool, None
        if pool is not None:
            await _close(pool, timeout)

    def _settings(self, own: Mapping[str, str]) -> dict[str, str]:
        milliseconds = int(self._command_timeout * 1000)
        return {
            "application_name": "flowkeep",
            "timezone": "UTC",
            "synchronous_commit": "on",
            "statement_timeout": str(milliseconds),
            "idle_in_transaction_session_timeout": "5000",
            "lock_timeout": str(milliseconds // 2),
            "jit": "off",
            # Ignored on a unix socket. A client that vanished must not keep its row locks for hours.
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": "10000",
            **own,
        }


async def _leave_as_it_is(_: object) -> None:
    """Do nothing when a connection comes back: nobody here sets anything that outlasts a transaction."""


async def _close(pool: asyncpg.Pool[asyncpg.Record], timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await pool.close()
    except TimeoutError:
        pool.terminate()


def rendered(statement: ClauseElement) -> tuple[str, Sequence[Any]]:
    """Return the SQL of a SQLAlchemy statement and its arguments, for asyncpg."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = compiled.params
    names = compiled.positiontup or ()  # type: ignore[attr-defined]  # of SQLCompiler
    return str(compiled), [values[name] for name in names]


LONG = 120.0
"""Seconds that a statement may take which changes all executions of a workflow at once."""


async def execute_long(session: Session, statement: str, *arguments: Any) -> None:
    """Execute a statement in a transaction that may take LONG: whoever asked is told sooner that it goes on.

    For each row it looks others up by their index, whatever is known of their tables, which may have filled just now.
    """
    await session.execute(f"SET LOCAL statement_timeout = {round(LONG * 1000)}; SET LOCAL enable_seqscan = off")
    await session.execute(statement, *arguments, timeout=LONG)


def escaped_like(prefix: str) -> str:
    """Return a LIKE pattern for all that begins with `prefix`."""
    return re.sub(r"([\\%_])", r"\\\1", prefix) + "%"
