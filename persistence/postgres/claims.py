"""Who drives an execution: taking it, loading it, giving it up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from persistence import failpoints
from persistence.errors import PersistenceError
from persistence.model import SUSPECT_DEATHS, Execution, ExecutionDetail, Wanted
from persistence.postgres import mending, messages
from persistence.postgres.connection import Database, Session, is_of_a_row
from persistence.postgres.details import without_details
from persistence.postgres.driving import details, filled
from persistence.postgres.notifications import notify
from persistence.postgres.records import EXECUTION_COLUMNS, IS_READABLE, LAST, selected
from persistence.postgres.slowness import Slow
from persistence.processes import News

# A lease that lasts for days was written by none of us, and would hold back for ever what a dead process owned.
RUNS = "r.lease_until > clock_timestamp() AND r.lease_until < clock_timestamp() + interval '1 day'"
LIVE = f"EXISTS (SELECT FROM replicas r WHERE r.incarnation = {{0}} AND {RUNS})"
_TAKEN = selected(EXECUTION_COLUMNS, "e.")
# Numbers at the end of their type must not make a claim fail, and all others with it.
NEXT_EPOCH = "e.epoch + (e.epoch < 9223372036854775807)::int"
_NEXT_DEATHS = "least(e.deaths + (e.incarnation IS NOT NULL)::int, 32767)"

# Walks the index from one priority and org, or one owner, to the next, however many executions have the same.
_FREE = "e.incarnation IS NULL AND e.end_time IS NULL"
_QUEUES = f"""
queues AS (
    (SELECT e.priority, e.org_id FROM executions e WHERE {_FREE} ORDER BY e.priority DESC, e.org_id LIMIT 1)
    UNION ALL
    SELECT n.priority, n.org_id FROM queues q, LATERAL (
        (SELECT e.priority, e.org_id FROM executions e
         WHERE {_FREE} AND e.priority = q.priority AND e.org_id > q.org_id ORDER BY e.org_id LIMIT 1)
        UNION ALL
        (SELECT e.priority, e.org_id FROM executions e
         WHERE {_FREE} AND e.priority < q.priority ORDER BY e.priority DESC, e.org_id LIMIT 1)
        LIMIT 1) n)"""  # noqa: S608 - our own conditions
_OWNERS = """
owners AS (
    (SELECT incarnation FROM executions WHERE incarnation IS NOT NULL ORDER BY incarnation LIMIT 1)
    UNION ALL
    SELECT (SELECT e.incarnation FROM executions e WHERE e.incarnation > o.incarnation ORDER BY e.incarnation LIMIT 1)
    FROM owners o WHERE o.incarnation IS NOT NULL)"""
# The lock makes Postgres judge the newest lease, not the one that was there when the claim began, and leaves alone
# whoever is renewing at this moment; several claims can hold it at once.
_DEAD = f"""
ended AS MATERIALIZED (
    SELECT r.incarnation FROM owners o JOIN replicas r ON r.incarnation = o.incarnation
    WHERE NOT ({RUNS}) FOR SHARE OF r SKIP LOCKED),
dead AS MATERIALIZED (
    SELECT incarnation FROM ended
    UNION ALL
    SELECT o.incarnation FROM owners o
    WHERE o.incarnation IS NOT NULL AND NOT EXISTS (SELECT FROM replicas r WHERE r.incarnation = o.incarnation))"""  # noqa: S608 - our own condition
_OF_DEAD = "e.incarnation = ANY (ARRAY(SELECT incarnation FROM dead))"
# Before each LIMIT: what cannot be read in time would come first again and again, and nothing after it.
_MAY_BE_READ = "e.id <> ALL ($6::uuid[])"

AWAITED = 1_000
"""Executions at which a claim looks, of those that await a handler: when more do, it orders any so many of them."""

# Claim and rescue in one: what is due of each queue, and what belongs to those without a live lease.
# `(SELECT clock_timestamp())` is read once, so that the index ends the scan; the UPDATE reads it again.
# More are looked at than taken, without a lock: others may be taking the first ones at this moment.
_CHOICE = f"""
WITH RECURSIVE {_QUEUES}, {_OWNERS}, {_DEAD},
turns AS MATERIALIZED (
    SELECT d.*, row_number() OVER (PARTITION BY d.priority, d.org_id ORDER BY d.since, d.id) AS turn
    FROM queues q, LATERAL (
        SELECT e.org_id, e.id, e.priority, e.wake_time AS since FROM executions e
        WHERE {_FREE} AND e.priority = q.priority AND e.org_id = q.org_id
          AND e.deaths < {SUSPECT_DEATHS} AND e.wake_time <= (SELECT clock_timestamp()) AND {_MAY_BE_READ}
        ORDER BY e.wake_time, e.id LIMIT 2 * $2) d
    WHERE q.org_id <> ALL ($4::text[])
    ORDER BY d.priority DESC, turn, d.since, d.id LIMIT 4 * $2),
parked AS MATERIALIZED (
    -- Only who is free has a wake_time; said otherwise, Postgres would read the whole index of the free ones.
    SELECT t.* FROM turns t JOIN executions e ON e.org_id = t.org_id AND e.id = t.id
    WHERE e.wake_time IS NOT NULL ORDER BY t.priority DESC, t.turn, t.since, t.id LIMIT $2 FOR UPDATE OF e SKIP LOCKED),
orphaned AS MATERIALIZED (
    SELECT e.org_id, e.id, e.priority, e.create_time AS since, 0 AS turn FROM executions e
    WHERE {_OF_DEAD} AND e.deaths < {SUSPECT_DEATHS - 1} AND {_MAY_BE_READ}
    ORDER BY e.priority DESC, e.create_time, e.id LIMIT $2 FOR UPDATE SKIP LOCKED),
awaited AS MATERIALIZED (
    SELECT * FROM (
        SELECT e.org_id, e.id, e.priority, e.create_time AS since, 0 AS turn FROM executions e
        WHERE e.awaits IS NOT NULL AND e.awaits ?| $5::text[] AND {_FREE} AND e.org_id <> ALL ($4::text[])
          AND e.deaths < {SUSPECT_DEATHS} AND e.wake_time > (SELECT clock_timestamp()) AND {_MAY_BE_READ}
        LIMIT greatest({AWAITED}, 4 * $2)) a
    ORDER BY priority DESC, since, id LIMIT 4 * $2),
awaiting AS MATERIALIZED (
    SELECT a.* FROM awaited a JOIN executions e ON e.org_id = a.org_id AND e.id = a.id
    WHERE e.wake_time IS NOT NULL ORDER BY a.priority DESC, a.since, a.id LIMIT $2 FOR UPDATE OF e SKIP LOCKED),
suspect AS MATERIALIZED (
    SELECT e.org_id, e.id, e.priority, e.create_time AS since, 0 AS turn FROM executions e
    WHERE e.deaths >= {SUSPECT_DEATHS - 1} AND e.end_time IS NULL AND {_MAY_BE_READ}
      AND ((e.incarnation IS NULL AND e.deaths >= {SUSPECT_DEATHS}
            AND (e.wake_time <= (SELECT clock_timestamp()) OR e.awaits ?| $5::text[]))
           OR {_OF_DEAD})
    ORDER BY e.deaths, e.id LIMIT $3 FOR UPDATE SKIP LOCKED),
due AS MATERIALIZED (
    (SELECT * FROM (SELECT * FROM parked UNION ALL SELECT * FROM orphaned UNION ALL SELECT * FROM awaiting) c
     ORDER BY priority DESC, turn, since, id LIMIT $2)
    UNION ALL SELECT * FROM suspect)"""  # noqa: S608 - our own conditions
_CLAIM = f"""{_CHOICE}
UPDATE executions e SET incarnation = $1, epoch = {NEXT_EPOCH}, wake_time = NULL,
    awaits = NULL, deaths = {_NEXT_DEATHS}
FROM due d
WHERE e.org_id = d.org_id AND e.id = d.id AND e.end_time IS NULL AND {LIVE.format("$1")}
  AND CASE WHEN e.incarnation IS NULL THEN e.wake_time <= clock_timestamp() OR e.awaits ?| $5::text[]
      ELSE {_OF_DEAD} END
RETURNING d.turn, date_part('epoch', d.since) AS waits_since, {_TAKEN}"""  # noqa: S608 - our own columns

_DUE = f"""{_CHOICE} SELECT id FROM due WHERE {LIVE.format("$1")}"""  # noqa: S608 - our own conditions
_CLAIM_DUE = f"""
UPDATE executions e SET incarnation = $1, epoch = {NEXT_EPOCH}, wake_time = NULL, awaits = NULL,
    deaths = {_NEXT_DEATHS}
WHERE e.id = $2 AND e.end_time IS NULL AND {LIVE.format("$1")}
  AND CASE WHEN e.incarnation IS NULL THEN e.wake_time <= clock_timestamp() OR e.awaits ?| $3::text[]
      ELSE NOT {LIVE.format("e.incarnation")} END
RETURNING {_TAKEN}"""  # noqa: S608 - our own columns

_CLAIM_ONE = f"""
UPDATE executions e SET incarnation = $1, epoch = {NEXT_EPOCH}, wake_time = NULL, awaits = NULL
WHERE e.org_id = $3 AND e.id = $2 AND e.incarnation IS NULL AND e.end_time IS NULL AND {LIVE.format("$1")}
RETURNING {_TAKEN}"""  # noqa: S608 - our own columns

_OWNED = f"SELECT {selected(EXECUTION_COLUMNS)} FROM executions WHERE id = $1 AND incarnation = $2"  # noqa: S608
# Not `<> ALL`, which looks at each of those that are driven for each of them.
_UNDRIVEN = """
SELECT id FROM executions e WHERE incarnation = $1
    AND NOT EXISTS (SELECT FROM unnest($2::uuid[]) AS driven(id) WHERE driven.id = e.id) ORDER BY id"""
_NEXT_WAKE_TIME = f"""
WITH RECURSIVE {_QUEUES}
SELECT min((SELECT e.wake_time FROM executions e
            WHERE {_FREE} AND e.priority = q.priority AND e.org_id = q.org_id AND e.wake_time {IS_READABLE}
            ORDER BY e.wake_time LIMIT 1))
FROM queues q"""  # noqa: S608 - our own columns

# Nobody parks an execution beyond the calendar, and no claim would ever come to it. What it really waits for is in its
# other rows: whoever takes it parks it again, or finds out what is wrong with it.
WAKE_LOST = f"""
WITH RECURSIVE {_QUEUES}, lost AS MATERIALIZED (
    SELECT l.* FROM queues q, LATERAL (
        SELECT e.org_id, e.id FROM executions e
        WHERE {_FREE} AND e.priority = q.priority AND e.org_id = q.org_id AND e.wake_time > {LAST} LIMIT 100) l)
UPDATE executions e SET wake_time = clock_timestamp()
FROM lost WHERE e.org_id = lost.org_id AND e.id = lost.id AND {_FREE}"""  # noqa: S608 - our own conditions

# What another transaction holds is left: waiting for it would keep all the others back.
_RELEASE = """
WITH owned AS MATERIALIZED (
    SELECT org_id, id FROM executions
    WHERE incarnation = $1 AND ($2::uuid[] IS NULL OR id = ANY ($2)) ORDER BY id FOR UPDATE SKIP LOCKED)
UPDATE executions e SET incarnation = NULL, wake_time = clock_timestamp()
FROM owned o WHERE e.org_id = o.org_id AND e.id = o.id AND e.incarnation = $1"""
_TAKEN_BEFORE = """
SELECT e.org_id, e.id, e.incarnation, e.epoch
FROM unnest($1::uuid[], $2::uuid[], $3::int8[]) AS u(id, incarnation, epoch)
JOIN executions e ON e.id = u.id AND e.incarnation = u.incarnation AND e.epoch = u.epoch"""
_RELEASE_TAKEN = f"""
WITH owned AS MATERIALIZED ({_TAKEN_BEFORE} ORDER BY e.id FOR UPDATE OF e SKIP LOCKED)
UPDATE executions e SET incarnation = NULL, wake_time = clock_timestamp()
FROM owned o
WHERE e.org_id = o.org_id AND e.id = o.id AND e.incarnation = o.incarnation AND e.epoch = o.epoch"""  # noqa: S608 - ours

_NESTED = "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"


class PostgresClaims:
    """Implements the claiming half of Journal."""

    _database: Database

    def __init__(self) -> None:
        # Taken by a call that has no end yet, with the epoch.
        self._coming: dict[UUID, int] = {}
        # Taken by a call that failed: whether the commit happened is unknown, so nobody here drives them.
        self._stranded: dict[UUID, tuple[UUID, int]] = {}
        self._stranding = asyncio.Lock()
        self._slow = Slow()

    async def claim(
        self,
        incarnation: UUID,
        limit: int,
        suspects: int = 0,
        without: Collection[str] = (),
        handlers: Collection[str] = (),
    ) -> Sequence[ExecutionDetail]:
        """See Journal."""
        left_alone = self._slow.left_alone(asyncio.get_running_loop().time())
        chosen = limit, suspects, list(without), list(handlers), left_alone
        try:
            return await self._take(_CLAIM, incarnation, *chosen, most=limit + suspects)
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
        return await self._take_apart(incarnation, chosen)

    async def claim_one(self, incarnation: UUID, org: str, execution_id: UUID) -> ExecutionDetail | None:
        """See Journal."""
        try:
            taken = await self._take(_CLAIM_ONE, incarnation, execution_id, org)
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
            taken = await self._take_unread(_CLAIM_ONE, incarnation, execution_id, org)
        return taken[0] if taken else None

    async def _take_apart(
        self, incarnation: UUID, chosen: tuple[int, int, list[str], list[str], list[UUID]]
    ) -> list[ExecutionDetail]:
        """Claim one by one, so that what is wrong with a row is wrong with it alone."""
        async with self._database.session() as session, session.transaction():
            await session.execute(_NESTED)
            due = [row["id"] for row in await session.fetch(_DUE, incarnation, *chosen)]
        taken, handlers = list[ExecutionDetail](), chosen[3]
        for execution_id in due:
            try:
                taken += await self._take(_CLAIM_DUE, incarnation, execution_id, handlers)
            except PersistenceError as error:
                if not is_of_a_row(error):
                    break  # what was taken is driven all the same
                mending.tell(execution_id, ["executions"])
                with suppress(PersistenceError):  # then the others go on without it
                    taken += await self._take_unread(_CLAIM_DUE, incarnation, execution_id, handlers)
        return taken

    async def _take_unread(
        self, statement: str, incarnation: UUID, *which: int | UUID | str | list[str] | list[UUID]
    ) -> list[ExecutionDetail]:
        """Take an execution without reading it, so that it can be ended."""
        async with self._database.session() as session:
            row = await session.fetchrow(statement.replace(_TAKEN, "e.id, e.epoch"), incarnation, *which)
        if row is None:
            return []
        return [without_details(mending.nothing_of(row["id"], "", incarnation, row["epoch"]))]

    async def load(self, incarnation: UUID, execution_id: UUID) -> ExecutionDetail | None:
        """See Journal."""
        # Whoever loads it drives it from now on, so it must not be given up, nor at this moment.
        if self._stranded:
            async with self._stranding:
                self._stranded.pop(execution_id, None)
        try:
            async with self._database.snapshot() as session:
                row = await session.fetchrow(_OWNED, execution_id, incarnation)
                if row is None:
                    return None
                (found,) = await _with_mail(session, [mending.execution(row)])
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
            found = without_details(mending.nothing_of(execution_id, "", incarnation))
        # What a claim took while it was read; were it given up by now, the first write of who drives it is refused.
        self._coming.pop(execution_id, None)
        self._stranded.pop(execution_id, None)
        return found

    async def load_payloads(self, detail: ExecutionDetail, wanted: Wanted) -> ExecutionDetail:
        """See Journal."""
        try:
            async with self._database.snapshot() as session:
                return await filled(session, detail, wanted)
        except PersistenceError as error:
            if not is_of_a_row(error):
                raise
        return replace(detail, unreadable=(*detail.unreadable, "steps"))

    async def undriven(self, incarnation: UUID, driven: Sequence[UUID]) -> Sequence[UUID]:
        """See Journal."""
        async with self._database.session() as session:
            return [row["id"] for row in await session.fetch(_UNDRIVEN, incarnation, list(driven))]

    async def next_wake_time(self) -> datetime | None:
        """See Journal."""
        async with self._database.session() as session:
            moment: datetime | None = await session.fetchval(_NEXT_WAKE_TIME)
            return moment

    async def release(self, incarnation: UUID, execution_ids: Sequence[UUID] | None = None) -> int:
        """See Journal."""
        async with self._database.session() as session, session.transaction():
            released = await release(session, incarnation, execution_ids)
            await notify(session, News(frozenset(), has_work=True))
            return released

    async def _take(
        self, statement: str, incarnation: UUID, *which: int | UUID | str | list[str] | list[UUID], most: int = 1
    ) -> list[ExecutionDetail]:
        await self._release_stranded()
        taken: list[Execution] = []
        try:
            async with self._database.session() as session, session.transaction():
                await session.execute(_NESTED)
                rows = await session.fetch(statement, incarnation, *which)
                if len(rows) > most:  # a plan that computes a LIMIT more than once
                    raise PersistenceError(f"a claim of {most} took {len(rows)}, and is rolled back")
                if statement is _CLAIM:
                    rows.sort(key=lambda row: (-row["priority"], row["turn"], row["waits_since"], row["id"]))
                taken = [mending.execution(row) for row in rows]
                self._coming |= {execution.id: execution.epoch for execution in taken}
                found = await self._read(session, taken)
                if taken:
                    await failpoints.reach("claim.after_select")
            if taken:
                await failpoints.reach("claim.after_commit_before_start")
        except BaseException:
            self._stranded |= {each.id: (incarnation, each.epoch) for each in taken if self._came(each)}
            raise
        return [detail for detail in found if self._came(detail.execution)]

    async def _read(self, session: Session, taken: Sequence[Execution]) -> list[ExecutionDetail]:
        """Return what was taken; where time does not suffice, later claims leave out what may be the reason."""
        try:
            found = await _with_mail(session, taken)
        except (TimeoutError, asyncpg.QueryCanceledError):
            self._slow.blame([each.id for each in taken], asyncio.get_running_loop().time())
            raise
        for each in taken:
            self._slow.forget(each.id)
        return found

    def _came(self, taken: Execution) -> bool:
        """Say that a call which took an execution has ended; False when somebody has loaded it meanwhile."""
        is_coming = self._coming.get(taken.id) == taken.epoch
        if is_coming:
            del self._coming[taken.id]
        return is_coming

    async def _release_stranded(self) -> None:
        if not self._stranded:
            return
        async with self._stranding:
            stranded = dict(self._stranded)
            keys = list(stranded), *map(list, zip(*stranded.values(), strict=True))
            async with self._database.session() as session, session.transaction():
                await session.execute(_RELEASE_TAKEN, *keys)
                left = {row["id"] for row in await session.fetch(_TAKEN_BEFORE, *keys)}
            for execution_id, taken in stranded.items():
                # What somebody locks is given up another time.
                if execution_id not in left and self._stranded.get(execution_id) == taken:
                    del self._stranded[execution_id]


async def _with_mail(session: Session, executions: Sequence[Execution]) -> list[ExecutionDetail]:
    """Return executions as their owner reads them. A row that is locked or of a snapshot agrees with its messages."""
    mail = await messages.unseen(session, executions)
    return [replace(found, messages=mail.get(found.execution.id, ())) for found in await details(session, executions)]


async def release(session: Session, incarnation: UUID, execution_ids: Sequence[UUID] | None) -> int:
    """Give up these executions of the incarnation, or all; returns how many."""
    chosen = None if execution_ids is None else list(execution_ids)
    return int((await session.execute(_RELEASE, incarnation, chosen)).rsplit(" ", 1)[1])
