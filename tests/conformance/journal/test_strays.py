"""What a process owns and does not drive, and requests to cancel that nobody has seen."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from persistence.errors import RequestIdReusedError
from persistence.model import ExecutionState
from persistence.repository import Repository
from tests.conformance.builders import FOREIGN_ORG, ORG, SCOPE, Stage, execution, new, transition


async def _strays(repository: Repository, incarnation: UUID, *driven: UUID) -> list[UUID]:
    return [row.id for row in await repository.strays(incarnation, driven)]


async def test_what_is_owned_and_not_driven_is_a_stray(repository: Repository, stage: Stage) -> None:
    rows = [await stage.put() for _ in range(3)]
    await stage.put(incarnation=uuid4())
    assert await _strays(repository, stage.incarnation) == [row.id for row in rows]
    assert await _strays(repository, stage.incarnation, rows[0].id, rows[2].id) == [rows[1].id]
    assert await _strays(repository, stage.incarnation, *(row.id for row in rows)) == []


async def test_a_cancel_request_shows_until_a_transition_has_seen_it(repository: Repository, stage: Stage) -> None:
    row = await stage.put()
    await repository.request_cancel(SCOPE, row.id, "bob", "enough")
    (found,) = await repository.strays(stage.incarnation, [row.id])
    assert found.cancel is not None
    assert found.cancel.reason == "enough"
    await repository.submit(transition(row, state=ExecutionState.CANCELLING, cancel_seen=True))
    assert await _strays(repository, stage.incarnation, row.id) == []


async def test_a_request_id_finds_what_it_started(repository: Repository, stage: Stage) -> None:
    asked = new(execution(stage.workflow, request_id="r-1"))
    made = await repository.create(asked)
    found = await repository.find_request(ORG, "r-1", [asked.content_hash])
    assert found is not None
    assert found.id == made.execution.id
    with pytest.raises(RequestIdReusedError):
        await repository.find_request(ORG, "r-1", [b"another"])
    assert await repository.find_request(ORG, "r-2", [asked.content_hash]) is None
    assert await repository.find_request(FOREIGN_ORG.org, "r-1", [asked.content_hash]) is None
