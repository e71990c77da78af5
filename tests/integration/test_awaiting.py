"""What it costs to find who awaits a handler, on Postgres."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from persistence.postgres import claims
from persistence.workers import AwaitedWorker
from tests.conformance.builders import in_seconds, parking
from tests.integration.postgres_store import PostgresStore


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan and all below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def test_a_claim_reads_a_bounded_number_of_those_that_await_a_handler(store: PostgresStore) -> None:
    for row in await store.put_many(40):
        await store.commit(parking(row, in_seconds(3600), awaits=("a",)))
    statement = claims._DUE.replace(f"greatest({claims.AWAITED},", "greatest(6,")
    async with store.repository._database.session() as session, session.transaction():
        await session.execute(claims._NESTED)
        answer = await session.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", store.incarnation, 2, 0, [], ["a"], []
        )
    [plan] = [node for node in nodes(json.loads(answer)[0]["Plan"]) if node.get("Subplan Name") == "CTE awaited"]
    read = [node["Actual Rows"] * node["Actual Loops"] for node in nodes(plan) if "Relation Name" in node]
    assert 0 < sum(read) <= 8


async def test_all_that_await_a_handler_come_in_the_end(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await store.put_many(12)
    for row in rows:
        await store.commit(parking(row, in_seconds(3600), awaits=("a",)))
    monkeypatch.setattr(claims, "_CLAIM", claims._CLAIM.replace(f"greatest({claims.AWAITED},", "greatest(2,"))
    taken = [await store.repository.claim(store.incarnation, 3, handlers=("a",)) for _ in range(4)]
    assert {each.execution.id for page in taken for each in page} == {row.id for row in rows}


async def test_what_nothing_awaits_any_more_is_forgotten_in_time(store: PostgresStore) -> None:
    (row,) = await store.put_many(1)
    rows = [AwaitedWorker(row.org, "a", wishes) for wishes in ("awaited", "over", "young")]
    for each in rows[:2]:
        await store.repository.keep_awaited_worker(each)
    await store.commit(parking(row, in_seconds(3600), awaits=("a", "\t".join(rows[0]))))
    async with store.repository._database.session() as session:
        await session.execute("UPDATE awaited_workers SET seen_time = seen_time - interval '31 days'")
    await store.repository.keep_awaited_worker(rows[2])
    assert await store.repository.list_awaited_workers([(row.org, "a")]) == [rows[0], rows[2]]
