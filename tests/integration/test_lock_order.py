"""Whatever a batch locks, it locks in the order of ids, so that no two transactions wait for each other."""

from __future__ import annotations

import pytest

from persistence.postgres.commit import flush
from persistence.transition import CommitResult
from tests.conformance.builders import until
from tests.integration.postgres_store import PostgresStore, move, settled
from tests.integration.test_committer import cut

_WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted"
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
