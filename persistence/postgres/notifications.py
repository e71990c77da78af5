"""What processes tell each other through Postgres: hints, sent together, and never the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import UUID

import asyncpg

from persistence.postgres.connection import DRIVER_ERRORS, Database, Session, translating
from persistence.processes import News

_CHANNEL = "flowkeep"
_NOTIFY = "SELECT pg_notify($1, $2)"
_MOST_IDS = 230
"""So many ids of 33 bytes fit a payload, which Postgres limits to 8,000 bytes."""

_GAP = 0.01
"""Seconds between two messages; what happens meanwhile shares the next."""

_PULSE = 5.0
"""Seconds after which a silent connection is asked whether it lives (FAULTS P11)."""

_PATIENCE = 2.0
"""Seconds that an answer may take."""

Heard = Callable[[News], None]


class Notifications:
    """One connection that listens for what other processes did, and tells them what this one does.

    `heard` counts what others have sent.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending = News(frozenset())
        self._wake = asyncio.Event()
        self.heard = 0
        self._learnt = (False, 0)

    @property
    def is_needed(self) -> bool:
        """Whether there are others; else nothing is sent."""
        has_others, heard = self._learnt
        return has_others or self.heard > heard

    def learn(self, has_others: bool, heard: int) -> None:
        """Note what the database says of others, asked when `heard` messages had come: what came since is newer.

        May be called in another thread than the messages come in.
        """
        self._learnt = (has_others, heard)

    def announce(self, executions: Iterable[UUID], *, has_work: bool = False, has_mail: bool = False) -> None:
        """Tell the others soon; several calls share a message."""
        if self.is_needed:
            self._pending = _joined(self._pending, News(frozenset(executions), has_work, has_mail))
            self._wake.set()

    async def listen(self, heard: Heard) -> None:
        """See Signals."""
        async with translating():
            # The commit of a message changes nothing that a crash could lose.
            settings = {"application_name": "flowkeep listener", "synchronous_commit": "off"}
            connection = await self._database.connect(settings=settings, command_timeout=_PATIENCE)
            try:
                connection.add_termination_listener(lambda _: self._wake.set())
                await connection.add_listener(_CHANNEL, self._receiver(heard, connection.get_server_pid()))
                heard(News(None, has_work=True, has_mail=True))
                # Those that were alone tell nothing until they know of this one, by their next renewal at the latest.
                await connection.execute(_NOTIFY, _CHANNEL, _written(News(frozenset())))
                while True:
                    await self._tell(connection)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_PULSE):
                            await self._wake.wait()
            finally:
                connection.terminate()

    async def _tell(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._wake.clear()
        pending, self._pending = self._pending, News(frozenset())
        try:
            if pending.is_empty:
                await connection.execute("SELECT 1")
            else:
                await connection.execute(_NOTIFY, _CHANNEL, _written(pending))
                await asyncio.sleep(_GAP)
        except DRIVER_ERRORS:
            self._pending = _joined(pending, self._pending)
            raise

    def _receiver(self, heard: Heard, own_pid: int) -> Callable[..., None]:
        def receive(_connection: object, pid: int, _channel: str, payload: object) -> None:
            if pid == own_pid:
                return
            was_needed = self.is_needed
            self.heard += 1
            if not was_needed:  # nobody was told anything until now
                self._pending = News(None, has_work=True, has_mail=True)
                self._wake.set()
            news = _read(str(payload))
            if news.is_empty:  # it only says that it is there, and may not know yet who is
                self.announce((), has_work=True)
            else:
                heard(news)

        return receive


async def notify(session: Session, news: News) -> None:
    """Tell the others at the end of the session's transaction."""
    await session.execute(_NOTIFY, _CHANNEL, _written(news))


def _joined(one: News, other: News) -> News:
    executions = None
    if one.executions is not None and other.executions is not None:
        executions = one.executions | other.executions
    if executions is not None and len(executions) > _MOST_IDS:
        executions = None
    return News(executions, one.has_work or other.has_work, one.has_mail or other.has_mail)


def _written(news: News) -> str:
    flags = "w" * news.has_work + "m" * news.has_mail
    if news.executions is None or len(news.executions) > _MOST_IDS:
        return f"{flags}*"
    return f"{flags}:{','.join(each.hex for each in news.executions)}"


def _read(payload: str) -> News:
    flags, _, ids = payload.partition(":")
    executions: frozenset[UUID] | None = None
    if "*" not in flags:
        with suppress(ValueError):  # of another version: then anything may have happened
            executions = frozenset(UUID(hex=each) for each in ids.split(",") if each)
    return News(executions, "w" in flags, "m" in flags)
