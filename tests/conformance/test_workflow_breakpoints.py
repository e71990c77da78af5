"""Breakpoints for the next executions of a workflow: each is counted once, in the commit that makes the execution."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from persistence.breakpoints import Breakpoint, Breakpoints, BreakpointsMetError, WorkflowBreakpoints
from persistence.errors import RequestIdReusedError, WorkflowNotFoundError
from persistence.model import Workflow
from persistence.repository import Repository
from persistence.requests import Method, Request
from persistence.transition import Created
from service.engine.ids import uuid7
from tests.conformance.builders import MOMENT, SCOPE, document, execution, in_seconds, new, outcome

POINTS = (Breakpoint("fetch", "params.n > 1"), Breakpoint("*"))
_BREAK = Method.BREAK_WORKFLOW


def asked(left: int = 1, **changes: Any) -> WorkflowBreakpoints:
    """What ann sets, or as `changes` say."""
    return replace(WorkflowBreakpoints(uuid7(), "ann", POINTS, MOMENT, left, in_seconds(300)), **changes)


async def start(repository: Repository, workflow: Workflow, takes: UUID | None = None, **changes: Any) -> Any:
    """Start an execution that takes these breakpoints up; return the answer or the error."""
    row = execution(workflow, **changes)
    if takes is not None:
        row = replace(row, breakpoints=Breakpoints("ann", POINTS))
    return await outcome(repository.create(new(row, takes=takes)))


async def left(repository: Repository, workflow: Workflow) -> int:
    """How many executions are to take breakpoints up."""
    kept = (await repository.get_workflow(SCOPE, workflow.name)).breakpoints
    return 0 if kept is None else kept.left


async def test_they_are_shown_and_replaced_and_removed(repository: Repository, workflow: Workflow) -> None:
    mine = asked(3)
    shown = (await repository.set_workflow_breakpoints(SCOPE, workflow.name, mine)).breakpoints
    assert shown is not None and replace(shown, time=mine.time, until=mine.until) == mine
    updated = await repository.update_workflow(SCOPE, workflow.name, document("research", tags=["x"]), "", "bob")
    assert updated.breakpoints == shown == (await repository.get_workflow(SCOPE, workflow.name, 1)).breakpoints
    other = asked(5)
    assert (await repository.set_workflow_breakpoints(SCOPE, str(workflow.id), other)).breakpoints is not None
    assert await left(repository, workflow) == 5
    assert (await repository.set_workflow_breakpoints(SCOPE, workflow.name, asked(points=()))).breakpoints is None
    with pytest.raises(WorkflowNotFoundError):
        await repository.set_workflow_breakpoints(SCOPE, "absent", mine)


async def test_what_does_not_take_them_up_is_told_of_them_and_not_kept(
    repository: Repository, workflow: Workflow
) -> None:
    mine = asked(2)
    shown = (await repository.set_workflow_breakpoints(SCOPE, workflow.name, mine)).breakpoints
    for takes in (None, uuid7()):
        met = await start(repository, workflow, takes, request_id="r")
        assert isinstance(met, BreakpointsMetError) and met.pending == shown
    first = await start(repository, workflow, mine.id, request_id="r")  # the request id is free
    again = await start(repository, workflow, mine.id, request_id="r")
    assert (first.created, again.created, again.execution.id) == (True, False, first.execution.id)
    assert first.execution.breakpoints == Breakpoints("ann", POINTS)
    assert await left(repository, workflow) == 1
    assert (await start(repository, workflow, mine.id)).created
    met = await start(repository, workflow, mine.id)
    assert isinstance(met, BreakpointsMetError) and met.pending is None
    assert (await start(repository, workflow)).created


async def test_what_has_its_own_takes_none_up(repository: Repository, workflow: Workflow) -> None:
    await repository.set_workflow_breakpoints(SCOPE, workflow.name, asked())
    own = await start(repository, workflow, breakpoints=Breakpoints("bob", (Breakpoint("fetch"),)))
    assert own.created and own.execution.breakpoints.by == "bob"
    assert await left(repository, workflow) == 1


async def test_when_their_time_is_over_nobody_takes_them_up(repository: Repository, workflow: Workflow) -> None:
    mine = asked(5, until=in_seconds(-1))
    assert (await repository.set_workflow_breakpoints(SCOPE, workflow.name, mine)).breakpoints is None
    met = await start(repository, workflow, mine.id)
    assert isinstance(met, BreakpointsMetError) and met.pending is None
    assert (await start(repository, workflow)).created


async def test_of_many_at_once_as_many_take_them_up_as_are_asked_for(
    repository: Repository, open_repository: Any, workflow: Workflow
) -> None:
    other = await open_repository()
    mine = asked(7)
    await repository.set_workflow_breakpoints(SCOPE, workflow.name, mine)
    found = await asyncio.gather(
        *(start(at, workflow, mine.id, request_id=f"r{n}") for n in range(20) for at in (repository, other))
    )
    assert sum(isinstance(each, Created) and each.created for each in found) == 7
    told = [each for each in found if isinstance(each, BreakpointsMetError)]
    assert all(each.pending is None for each in told)
    assert await left(repository, workflow) == 0


async def test_a_request_id_sets_them_once(repository: Repository, workflow: Workflow) -> None:
    request = Request("b", _BREAK, b"x")
    mine = asked(2)
    await repository.set_workflow_breakpoints(SCOPE, workflow.name, mine, request)
    assert (await start(repository, workflow, mine.id)).created
    again = (await repository.set_workflow_breakpoints(SCOPE, workflow.name, asked(9), request)).breakpoints
    assert again is not None and (again.id, again.left) == (mine.id, 1)
    with pytest.raises(RequestIdReusedError):
        await repository.set_workflow_breakpoints(SCOPE, workflow.name, mine, Request("b", _BREAK, b"y"))
