"""Plants one bug in a server, named by CHAOS_MUTANT: a replica of a chaos run loads this file beside its handlers.

What patches the product from outside needs no hook inside. A text of the product that a plant no longer finds stops
the start of the server, so that no mutant is ever taken for planted when it is not.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
from msgspec import structs

from flowkeep.handlers import handler
from persistence.errors import PersistenceError
from persistence.model import ExecutionDetail
from persistence.postgres import claims
from persistence.postgres.claims import PostgresClaims
from persistence.postgres.commit import session, statements, stepwise
from persistence.postgres.commit.flush import flush
from persistence.postgres.commit.session import CommitSession
from persistence.postgres.commit.single import created
from persistence.postgres.commit.statements import Statement, single
from persistence.postgres.commit.units import Creation, Outcome, Unit
from persistence.postgres.notifications import Notifications
from persistence.transition import CommitResult, Transition
from service.engine.clock import StoreClock
from service.engine.ids import uuid7
from service.engine.running.ownership import Ownership
from service.engine.running.run import Run
from service.engine.running.tenure import Tenure
from service.engine.watch import Subscription, WatchHub

MUTANT = os.environ["CHAOS_MUTANT"]
STALE = 0.05
"""Seconds between a look and what is done by it."""
COMMIT_TAKES = 0.1
"""Seconds of a slow disk."""
DEAF = 4.0
"""Seconds that a listener is away when its connection broke."""

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@handler("chaos_planted", description="Tells which bug was planted.")
async def planted() -> str:
    return MUTANT


def _replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        raise AssertionError(f"{MUTANT} cannot be planted, there is no {old!r} any more")
    return text.replace(old, new)


def _patch(target: Any, name: str, value: Any) -> Any:
    """Put another value in the place of an attribute, and return the one before.

    What is called as the one before cannot be would fail instead of planting its bug, and look as if it had been seen.
    """
    before = getattr(target, name)
    if inspect.isfunction(before) and inspect.isfunction(value):
        takes, may_take = (inspect.signature(each).parameters for each in (before, value))
        takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in may_take.values())
        lacking = () if takes_any else takes.keys() - may_take.keys()
        assert not lacking, f"{MUTANT} cannot be planted, {name} takes {', '.join(lacking)} by now"
    setattr(target, name, value)
    return before


def _restate(name: str, old: str, new: str) -> None:
    """Change a part of a statement of the write path, and of those for whole batches."""
    part: Statement = getattr(statements, name)
    changed = Statement(_replaced(part.template, old, new))
    _patch(statements, name, changed)
    single.cache_clear()
    if changed.template not in single(creates=True, shares=True).template:
        raise AssertionError(f"{MUTANT} cannot be planted, batches are not written with {name} any more")


def _no_epoch() -> None:
    """M1: a write does not ask whose the execution is, nor how far it has come, and overwrites what stands there.

    Nor does a lost lease stop who drives it: most writes of a zombie would end at its own fence, before the database.
    """
    owned = "AND e.incarnation IS NOT DISTINCT FROM u.incarnation AND e.epoch = u.epoch AND e.last_seq = u.base_seq"
    kept, given = "WHEN NOT u.released THEN e.incarnation END", "WHEN NOT u.released THEN u.incarnation END"
    ended = "WHERE s.end_time IS NULL OR (s.state = 'COMPLETED' AND excluded.state = 'COMPENSATED')"
    over = ", ".join(f"{name} = excluded.{name}" for name in ("time", "layout", "body"))
    told = statements.INSERT_HISTORY.template
    _restate("UPDATE_EXECUTIONS", owned, "")
    _restate("UPDATE_EXECUTIONS", kept, given)
    _restate("UPSERT_STEPS", ended, "")
    _restate("INSERT_HISTORY", told, f"{told} ON CONFLICT (execution_id, seq) DO UPDATE SET {over}")
    _no_fence()


def _no_fence() -> None:
    _patch(Tenure, "fence", lambda self: None)
    _patch(Ownership, "may_begin", True)


def _rescue_by_id() -> None:
    """M2: a rescue takes by id what an earlier look found, with the epoch of that look."""
    head = _replaced(claims._CLAIM, "UPDATE executions e SET", "\0").split("\0")[0]
    unlocked, count = re.subn(r"FOR UPDATE( OF e)? SKIP LOCKED", "", head)
    assert count, "M2 cannot be planted, nothing is locked any more"
    look = f"""{unlocked}
SELECT e.org_id, e.id, e.epoch FROM due d JOIN executions e ON e.org_id = d.org_id AND e.id = d.id
WHERE $1::uuid IS NOT NULL"""  # noqa: S608 - our own statement
    take = f"""
UPDATE executions e SET incarnation = $1, epoch = u.epoch + 1, wake_time = NULL
FROM unnest($2::text[], $3::uuid[], $4::int8[]) AS u(org_id, id, epoch)
WHERE e.org_id = u.org_id AND e.id = u.id
RETURNING {claims._TAKEN}"""  # noqa: S608 - our own columns

    async def claim(
        self: PostgresClaims,
        incarnation: UUID,
        limit: int,
        suspects: int = 0,
        without: Collection[str] = (),
        handlers: Collection[str] = (),
    ) -> Sequence[ExecutionDetail]:
        async with self._database.session() as session:
            found = await session.fetch(look, incarnation, limit, suspects, list(without), list(handlers), [])
        if not found:
            return []
        await asyncio.sleep(STALE)
        columns: list[Any] = [[row[name] for row in found] for name in ("org_id", "id", "epoch")]
        return await self._take(take, incarnation, *columns, most=len(found))

    _patch(PostgresClaims, "claim", claim)


def _early_acknowledgement() -> None:
    """M4: Execute is answered before the COMMIT, and what has been answered is not written again when that fails."""

    async def early(connection: _Connection, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        await connection.execute("BEGIN")
        try:
            outcomes = await stepwise.write_stepwise(connection, units)
        except (PersistenceError, asyncpg.PostgresError, UnicodeError):
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
            raise
        creations = [unit for unit in units if isinstance(unit, Creation)]
        for creation in creations:
            creation.resolve(outcomes[creation])
        await asyncio.sleep(COMMIT_TAKES if creations else 0.0)
        await connection.execute("COMMIT")
        return outcomes

    async def read_back(self: CommitSession, units: Sequence[Unit]) -> dict[Unit, Outcome]:
        answered: dict[Unit, Outcome] = {
            unit: created(unit) for unit in units if isinstance(unit, Creation) and unit.future.done()
        }
        return {**answered, **await before(self, units)}

    before = _patch(CommitSession, "read_back", read_back)
    _patch(session, "flush", early)


def _unknown_is_failed() -> None:
    """M5: a creation whose commit is unknown counts as failed and is made again, under its request id, as a new one."""

    async def made(self: CommitSession, creations: Sequence[Creation]) -> dict[Unit, Outcome]:
        again: dict[Unit, Creation] = {}
        for creation in creations:
            execution = structs.replace(creation.execution, id=uuid7())
            again[creation] = Creation(structs.replace(creation.new, execution=execution), creation.future)
            again[creation].in_doubt = True
        outcomes = await flush(self._opened, list(again.values())) if again else {}
        return {creation: outcomes[other] for creation, other in again.items()}

    async def reserve(connection: _Connection, creations: list[Creation]) -> dict[Creation, None]:
        return {**await before(connection, creations), **{each: None for each in creations if each.in_doubt}}

    before = _patch(stepwise, "_reserve", reserve)
    _patch(CommitSession, "_created", made)


def _no_poll() -> None:
    """M6: a watcher neither polls nor reads again after the listener was away, which is so for seconds."""

    async def wait(self: Subscription, seq: int, timeout: float) -> bool:
        must_read: bool = await wait_before(self, seq, 1e6)
        return must_read

    def wake_all(self: WatchHub) -> None:
        if self.is_closed:
            wake_before(self)

    async def listen(self: Notifications, heard: Any) -> None:
        await asyncio.sleep(DEAF)
        await listen_before(self, heard)

    wait_before = _patch(Subscription, "wait", wait)
    wake_before = _patch(WatchHub, "wake_all", wake_all)
    listen_before = _patch(Notifications, "listen", listen)


def _early_events() -> None:
    """M8: events are given to watchers before the commit."""

    def transition(self: Run, *args: Any, **named: Any) -> Transition:
        made: Transition = before(self, *args, **named)
        self.context.hub.publish(self.id, made.events)
        return made

    before = _patch(Run, "_transition", transition)


def _loser_goes_on() -> None:
    """M9: neither a refused write nor a lost lease stops who drives an execution."""

    def committed(
        self: Run, plan: Any, transition: Transition, again: Any, future: asyncio.Future[CommitResult]
    ) -> None:
        if not future.cancelled() and future.exception() is None and future.result() is CommitResult.FENCED:
            future = asyncio.get_running_loop().create_future()
            future.set_result(CommitResult.COMMITTED)
        before(self, plan, transition, again, future)

    before = _patch(Run, "_committed", committed)
    _no_fence()


def _own_clock() -> None:
    """M15: timers go by the clock of the replica."""
    _patch(StoreClock, "now", lambda self: datetime.now(UTC))


PLANTS: Mapping[str, Callable[[], None]] = {
    "M1": _no_epoch,
    "M2": _rescue_by_id,
    "M4": _early_acknowledgement,
    "M5": _unknown_is_failed,
    "M6": _no_poll,
    "M8": _early_events,
    "M9": _loser_goes_on,
    "M15": _own_clock,
}

PLANTS[MUTANT]()
print(f"planted {MUTANT}", file=sys.stderr, flush=True)
