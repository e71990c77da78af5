"""Variables that somebody sets while an execution is paused, whoever drives it on; and what is refused.

Holds CA10 of the contract.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import flowkeep
from flowkeep.payload import from_struct, from_value
from tests.integration.conftest import Serve
from tests.integration.credentials import ALL, AUDIENCE, ISSUER, PUBLIC_PEM, token
from tests.integration.stage import Served, Stage, ended, log, made, step, wait_step
from tests.integration.test_breakpoints import held, holds

State = flowkeep.Execution
PAIRS, AT_ONCE = 400, 20


def assigning(step_id: str, value: Any, **names: str) -> dict[str, Any]:
    return {"id": step_id, "handler": "transform", "params": {"value": value}, "assign": names}


def reading(step_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "handler": "transform", "params": {"value": "${ vars.n }"}, **fields}


@pytest.mark.usefixtures("prompt")
async def test_what_comes_later_sees_them_whoever_goes_on_and_a_retry_keeps_them(
    served: Served, serve: Serve, stage: Stage
) -> None:
    client = served.client
    name = await made(
        client,
        assigning("a", 1, n="result", m="result"),
        step("b", params={"by": "${ vars.n }"}),
        reading("c", condition="vars.n > 5"),
        step("late", "gate"),
        reading("d"),
        output="${ [steps.c.output, steps.d.output, vars.m] }",
    )
    execution_id = (await client.execute(name, breakpoints=["b"])).execution_id
    assert await held(client, execution_id) == "b"
    first = await client.edit_variables(execution_id, {"n": 7}, request_id="e")
    again = await client.edit_variables(execution_id, {"n": 7}, request_id="e")
    assert first.last_seq == again.last_seq
    assert from_struct((await client.get_step(execution_id, "b")).step.input) == {"by": 7}
    await served.stop()
    other = (await serve()).client
    execution = await other.get_execution(execution_id)
    assert from_struct(execution.vars) == {"n": 7, "m": 1}
    await other.resume(execution_id)
    await stage.called("late")
    await other.cancel(execution_id)
    assert (await ended(other, execution_id)).state == State.STATE_CANCELLED
    stage.open("gate")
    await other.retry(execution_id)
    execution = await ended(other, execution_id)
    assert from_value(execution.result) == [7, 7, 1]
    history = await log(other, execution_id)
    told = [event.variables_assigned for event in history if event.HasField("variables_assigned")]
    assert [(each.path, each.edited_by, from_struct(each.vars)) for each in told] == [
        ("a", "", {"n": 1, "m": 1}),
        ("", "developer", {"n": 7}),
    ]
    edited = next(event.seq for event in history if event.variables_assigned.edited_by)
    for seq, n in ((edited - 1, 1), (edited, 7), (execution.last_seq, 7)):
        assert from_struct((await other.get_execution(execution_id, at_seq=seq)).vars)["n"] == n
    fork = await other.fork(execution_id, "late", validate_only=True)
    assert not fork.checks
    forked = (await other.fork(execution_id, "late")).execution.execution_id
    assert from_struct((await ended(other, forked)).vars)["n"] == 1  # it inherits what steps have assigned


@pytest.mark.usefixtures("prompt")
async def test_an_input_that_was_edited_stays_as_it_is(client: flowkeep.Client) -> None:
    name = await made(client, assigning("a", 1, n="result"), step("b", params={"by": "${ vars.n }"}))
    execution_id = (await client.execute(name, breakpoints=["b"])).execution_id
    await held(client, execution_id)
    await client.edit_step_input(execution_id, "b", {"by": 2})
    await client.edit_variables(execution_id, {"n": 7})
    found = (await client.get_step(execution_id, "b")).step
    assert (from_struct(found.input), found.wait.breakpoint.edited) == ({"by": 2}, True)


async def test_what_cannot_be_is_named(client: flowkeep.Client) -> None:
    large = "x" * (150 << 10)
    name = await made(client, assigning("a", 1, n="result", m="result"), wait_step(), assigning("c", 1, later="result"))
    execution_id = (await client.execute(name)).execution_id
    with pytest.raises(flowkeep.FailedPreconditionError) as running:
        await client.edit_variables(execution_id, {"absent": 1})
    assert running.value.reason == "EXECUTION_STATE"
    await client.pause(execution_id)
    for given, field in (
        ({}, "vars"),
        ({"n": 1, "absent": 1}, "vars.absent"),
        ({"n": "a\0"}, "vars.n"),
        ({"n": large, "m": large}, "vars"),
    ):
        with pytest.raises((flowkeep.InvalidArgumentError, flowkeep.PayloadError)) as refused:
            await client.edit_variables(execution_id, given)
        if isinstance(refused.value, flowkeep.InvalidArgumentError):
            assert [each.field for each in refused.value.violations] == [field]
    with pytest.raises(flowkeep.InvalidArgumentError, match="later, m, n"):
        await client.edit_variables(execution_id, {"absent": 1})
    await client.edit_variables(execution_id, {"n": large})
    with pytest.raises(flowkeep.InvalidArgumentError) as together:  # all of them are one payload
        await client.edit_variables(execution_id, {"m": large})
    assert [each.field for each in together.value.violations] == ["vars"]
    await client.edit_variables(execution_id, {"later": None})
    assert from_struct((await client.get_execution(execution_id)).vars) == {"n": large, "m": 1, "later": None}
    await client.cancel(execution_id)
    with pytest.raises(flowkeep.FailedPreconditionError, match="CANCEL"):
        await client.edit_variables(execution_id, {"n": 1})


async def test_it_takes_the_permission_to_write_workflows_and_names_no_variables_without_that_to_read_them(
    serve: Serve, tmp_path: Path
) -> None:
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    guarded = await serve(jwt_key_file=key_file, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    async with guarded.client_with(token()) as client:
        name = await made(client, wait_step(), assigning("c", 1, hidden="result"))
        execution_id = (await client.execute(name)).execution_id
        await client.pause(execution_id)
    for missing in ("executions.control", "workflows.write"):
        permissions = [each for each in ALL if each != missing]
        async with guarded.client_with(token(permissions=permissions)) as client:
            with pytest.raises(flowkeep.PermissionDeniedError, match=missing):
                await client.edit_variables(execution_id, {"hidden": 1})
    async with guarded.client_with(token(permissions=[each for each in ALL if each != "workflows.read"])) as client:
        with pytest.raises(flowkeep.InvalidArgumentError) as refused:
            await client.edit_variables(execution_id, {"absent": 1})
        assert "hidden" not in str(refused.value)


@pytest.mark.usefixtures("prompt")
async def test_of_an_edit_and_a_resume_one_wins_and_an_answer_means_the_edit(client: flowkeep.Client) -> None:
    name = await made(
        client,
        assigning("a", 0, n="result"),
        *(step(f"s{number}", params={"by": "${ vars.n }"}) for number in range(PAIRS // AT_ONCE)),
    )

    async def pairs() -> int:
        """Race an edit against the resume from each step of an execution, and return how many edits came first."""
        execution_id = (await client.execute(name, breakpoints=["*"])).execution_id
        answered, number = list[int](), 0
        async for path in holds(client, execution_id):
            if path == "a":
                await client.resume(execution_id)
                continue
            assert path == f"s{number}"
            edit = asyncio.create_task(client.edit_variables(execution_id, {"n": number + 1}))
            if number % 4 == 0:  # on a fast machine the edit would lose every race: some have to come first
                await asyncio.wait([edit])
            edited, _ = await asyncio.gather(edit, client.resume(execution_id), return_exceptions=True)
            if isinstance(edited, flowkeep.FailedPreconditionError):
                assert edited.reason in ("EXECUTION_STATE", "EXECUTION_FINISHED")
            else:
                assert isinstance(edited, flowkeep.Execution)
                answered.append(number + 1)
            number += 1
        assert number == PAIRS // AT_ONCE
        assert (await ended(client, execution_id)).state == State.STATE_COMPLETED
        n, told = 0, list[int]()
        for event in await log(client, execution_id):
            if event.variables_assigned.edited_by:
                n = from_struct(event.variables_assigned.vars)["n"]
                told.append(n)
            if event.HasField("step_started"):
                assert event.step_started.input["by"] == n
        assert told == answered
        return len(told)

    assert PAIRS // 4 <= sum(await asyncio.gather(*(pairs() for _ in range(AT_ONCE)))) <= PAIRS


@pytest.mark.usefixtures("prompt")
async def test_edits_at_once_have_no_more_than_all_variables_may(client: flowkeep.Client) -> None:
    """Each was judged beside what there was before all of them: together they had 3 MB."""
    names = [f"v{number}" for number in range(12)]
    name = await made(client, assigning("a", 0, **dict.fromkeys(names, "result")), step("b"))
    execution_id = (await client.execute(name, breakpoints=["b"])).execution_id
    await held(client, execution_id)
    large = "x" * 50_000
    edits = (client.edit_variables(execution_id, {name: large}) for name in names)
    answers = dict(zip(names, await asyncio.gather(*edits, return_exceptions=True), strict=True))
    kept = [name for name, answer in answers.items() if isinstance(answer, flowkeep.Execution)]
    variables = from_struct((await client.get_execution(execution_id)).vars)
    assert [name for name in names if variables[name] == large] == kept
    assert 1 <= len(kept) <= 5
    refused = {type(answer) for name, answer in answers.items() if name not in kept}
    assert refused <= {flowkeep.InvalidArgumentError, flowkeep.FailedPreconditionError}
    await client.cancel(execution_id)
