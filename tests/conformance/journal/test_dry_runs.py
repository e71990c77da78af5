"""Dry runs: kept with their mocks, which whoever drives them has."""

from __future__ import annotations

import pytest

from persistence.dry_runs import DryRun, Mock, MockFailure
from persistence.model import LARGE_PAYLOAD, StepState
from persistence.repository import Repository
from tests.conformance.builders import SCOPE, Keeper, execution, new, step, transition

FAILURE = MockFailure("BROKEN", "as given", {"n": 1e300}, retryable=True, times=2)
WHOLE = DryRun(
    {"fetch": Mock({"text": "ä" * LARGE_PAYLOAD}, FAILURE), "e[0].x": Mock(None)},
    {"call_api": Mock([1, {"a": None}])},
    Mock(failure=MockFailure("NO")),
    ("send", "e.x"),
    skips_waits=True,
)


@pytest.mark.parametrize("dry_run", [DryRun(), WHOLE])
async def test_it_has_its_mocks_whoever_drives_it(repository: Repository, keeper: Keeper, dry_run: DryRun) -> None:
    row = execution(keeper.workflow, keeper.incarnation, is_dry_run=True)
    row = (await repository.create(new(row, dry_run=dry_run))).execution
    assert row.is_dry_run and (await repository.get_execution(SCOPE, row.id)).is_dry_run
    detail = await repository.get_detail(SCOPE, row.id)
    assert (detail.dry_run, detail.unreadable) == (dry_run, ())
    loaded = await repository.load(keeper.incarnation, row.id)
    assert loaded is not None and (loaded.dry_run, loaded.execution.is_dry_run) == (dry_run, True)


async def test_it_is_a_dry_run_until_it_is_removed(repository: Repository, keeper: Keeper) -> None:
    row = execution(keeper.workflow, keeper.incarnation, is_dry_run=True)
    row = (await repository.create(new(row, dry_run=WHOLE))).execution
    mocked = step(state=StepState.COMPLETED, output=7, is_mocked=True)
    await repository.submit(transition(row, steps=[mocked, step("b")], release=True))
    taken = await repository.claim_one(keeper.incarnation, row.org, row.id)
    assert taken is not None and (taken.dry_run, taken.execution.is_dry_run) == (WHOLE, True)
    detail = await repository.get_detail(SCOPE, row.id)
    assert (detail.execution.is_dry_run, detail.dry_run) == (True, WHOLE)
    assert [(each.path, each.is_mocked) for each in detail.steps] == [("b", False), ("fetch", True)]


async def test_others_have_none(repository: Repository, keeper: Keeper) -> None:
    row = await keeper.put()
    detail = await repository.get_detail(SCOPE, row.id)
    assert (row.is_dry_run, detail.execution.is_dry_run, detail.dry_run) == (False, False, None)
