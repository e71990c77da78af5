"""Whatever a batch locks, it locks in the order of ids, so that no two transactions wait for each other."""

from __future__ import annotations

import pytest

from persistence.errors import WorkflowNotFoundError
from persistence.postgres.commit import flush
from persistence.transition import CommitResult
from tests.conformance.builders import ORG, step, until
from tests.integration.postgres_store import PostgresStore, move, settled
from tests.integration.test_committer import cut

_WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted"
_KEEP = """
INSERT INTO requests (org_id, request_id, method, content_hash, create_time)
VALUES ($1, 'r', 'DELETE_WORKFLOW', '', clock_timestamp())"""
_LOCK = "SELECT FROM executions WHERE id = $1 FOR UPDATE NOWAIT"


async def _never(*_: object) -> None:
    """Leave it to a transaction of several statements."""


@pytest.mark.parametrize("way", ["as one statement", "in several", "after reading back"])
async def test_a_batch_that_waits_for_one_execution_holds_none_with_a_greater_id(
    patient: PostgresStore, monkeypatch: pytest.MonkeyPatch, way: str
):
    low, high = await patient.put_many(2)
    assert low.id < high.id
    await patient.commit(move(low, 1))
    if way == "in several":
        monkeypatch.setattr(flush, "write_single", _never)
    elif way == "after reading back":
        cut(monkeypatch, "WITH", after=False)
    admin = patient.admin
    async with admin.transaction():
        await admin.execute(_LOCK, low.id)
        submitted = [patient.repository.submit(each) for each in (move(high, 1), move(low, 2))]
        await until(lambda: admin.fetchval(_WAITS))
        await admin.execute(_LOCK, high.id)
    assert await settled(*submitted) == [CommitResult.COMMITTED] * 2


@pytest.mark.parametrize("way", ["as one statement", "in several"])
async def test_a_batch_that_waits_for_a_request_id_holds_no_workflow(
    patient: PostgresStore, monkeypatch: pytest.MonkeyPatch, way: str
):
    """As whoever changes or deletes a workflow under a request id."""
    if way == "in several":
        monkeypatch.setattr(flush, "write_single", _never)
    admin = patient.admin
    async with admin.transaction():
        await admin.execute(_KEEP, ORG)
        created = patient.repository.create(patient.new(request_id="r"))
        await until(lambda: admin.fetchval(_WAITS))
        await admin.execute("SELECT FROM workflows WHERE id = $1 FOR UPDATE NOWAIT", patient.workflow.id)
        await admin.execute("DELETE FROM requests")
    assert (await created).created


@pytest.mark.parametrize("way", ["as one statement", "in several"])
async def test_a_batch_that_waits_for_an_execution_holds_none_of_its_steps(
    patient: PostgresStore, monkeypatch: pytest.MonkeyPatch, way: str
):
    row, running = await patient.put(), step("a")
    await patient.commit(move(row, 1, steps=[running]))
    if way == "in several":
        monkeypatch.setattr(flush, "write_single", _never)
    admin = patient.admin
    async with admin.transaction():
        await admin.execute(_LOCK, row.id)
        submitted = patient.repository.submit(move(row, 2, steps=[running]))
        await until(lambda: admin.fetchval(_WAITS))
        assert await admin.fetchval("SELECT count(*) FROM (SELECT FROM steps FOR UPDATE NOWAIT) s") == 1
    assert await submitted is CommitResult.COMMITTED


async def test_a_request_id_of_what_is_refused_is_free_again(store: PostgresStore):
    await store.admin.execute("UPDATE workflows SET delete_time = now(), deleted_by = 'ann'")
    [refused] = await settled(store.repository.create(store.new(request_id="r")))
    assert isinstance(refused, WorkflowNotFoundError)
    assert not await store.admin.fetchval("SELECT count(*) FROM requests")
