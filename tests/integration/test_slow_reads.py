"""An execution that cannot be read in time keeps nothing back that would be claimed after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from persistence.errors import UnavailableError
from persistence.model import SUSPECT_DEATHS, Execution, ExecutionDetail
from persistence.postgres import claims, slowness
from persistence.postgres.driving import details
from tests.conformance.builders import SCOPE, ids
from tests.integration.postgres_store import PostgresStore
from tests.patience import PATIENCE


def slow_to_read(monkeypatch: pytest.MonkeyPatch, execution_id: UUID) -> None:
    """Let the server cancel each statement that reads the steps of an execution."""

    async def slowly(session: Any, executions: Sequence[Execution]) -> list[ExecutionDetail]:
        if execution_id in [each.id for each in executions]:
            await session.execute("SET LOCAL statement_timeout = 1")
            await session.execute("SELECT pg_sleep(60)")
        return await details(session, executions)

    monkeypatch.setattr(claims, "details", slowly)


@pytest.mark.parametrize("state", ["given up", "of a dead owner", "awaiting a handler", "a suspect"])
async def test_what_comes_after_it_is_claimed(patient: PostgresStore, monkeypatch: pytest.MonkeyPatch, state: str):
    rows = await patient.put_many(3)
    await patient.repository.release(patient.incarnation)
    (slow, *others), owner = sorted(rows, key=lambda row: row.id), uuid4()
    await patient.repository.register(owner, "other", 300)
    await patient.admin.execute(
        {
            "given up": "UPDATE executions SET wake_time = '2020-01-01' WHERE id = $1",
            "of a dead owner": "UPDATE executions SET incarnation = id, wake_time = NULL WHERE id = $1",
            "awaiting a handler": "UPDATE executions SET awaits = '[\"a\"]', priority = 1,"
            " wake_time = now() + interval '1 h' WHERE id = $1",
            "a suspect": "UPDATE executions SET deaths = $2 WHERE id = $1",
        }[state],
        slow.id,
        *([SUSPECT_DEATHS] if state == "a suspect" else []),
    )
    before = await patient.repository.get_execution(SCOPE, slow.id)
    monkeypatch.setattr(slowness, "FIRST_PAUSE", PATIENCE)
    slow_to_read(monkeypatch, slow.id)
    with pytest.raises(UnavailableError):
        await patient.repository.claim(owner, 1, suspects=1, handlers=["a"])
    taken = await patient.repository.claim(owner, 10, suspects=1, handlers=["a"])
    assert set(ids(taken)) == {row.id for row in others}
    assert await patient.repository.get_execution(SCOPE, slow.id) == before


async def test_it_is_tried_again_and_claimed_when_it_can_be_read(
    patient: PostgresStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slowness, "FIRST_PAUSE", 0.0)
    row = await patient.put()
    await patient.repository.release(patient.incarnation)
    with monkeypatch.context() as patch:
        slow_to_read(patch, row.id)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await patient.repository.claim(patient.incarnation, 1)
    assert ids(await patient.repository.claim(patient.incarnation, 1)) == [row.id]
