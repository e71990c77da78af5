"""A mistake of ours that one execution meets with ends that one, wherever it is made; the others go on."""

import asyncio

import pytest

import flowkeep
from service.engine.planning import happenings, planner
from service.engine.running.attempts import Attempts
from service.engine.running.context import Context
from service.engine.running.run import Run
from service.engine.workflows import Workflows
from tests.integration.stage import ended, log, made, step, wait_step

State = flowkeep.Execution


def breaking(monkeypatch, owner, name, is_bad):
    """Let a function raise when it works for the execution that is bad."""
    real = getattr(owner, name)

    def broken(*arguments, **named):
        if is_bad(*arguments):
            raise RuntimeError("a mistake")
        return real(*arguments, **named)

    async def broken_later(*arguments, **named):
        if is_bad(*arguments):
            raise RuntimeError("a mistake")
        return await real(*arguments, **named)

    monkeypatch.setattr(owner, name, broken_later if asyncio.iscoroutinefunction(real) else broken)


def of_bad(definition, state, happening):
    return state.facts["workflow"] == "bad" and state.start_time is not None


PLACES = {
    "planner": (planner, "apply", lambda d, s, h: of_bad(d, s, h) and not isinstance(h, happenings.Condemned)),
    "planner, always": (planner, "apply", of_bad),
    "definition": (Workflows, "of", lambda _, execution: execution.workflow_name == "bad"),
    "taking up": (Run, "resume_timer", lambda run: run.definition.name == "bad" and run.execution.epoch > 1),
    "timer": (Run, "_set_timer", lambda run: run.definition.name == "bad" and run.execution.epoch > 1),
    "attempt": (Attempts, "_happening", lambda attempts, *_: attempts._run.definition.name == "bad"),
    "encoder": (Context, "encode_all", lambda _, found: any(getattr(e.body, "path", "") == "bad" for e in found)),
    "after the commit": (Run, "_after_commit", lambda run, _: run.definition.name == "bad" and run.execution.epoch > 1),
}


@pytest.mark.parametrize("place", PLACES)
async def test_one_bad_execution_ends_and_the_others_go_on(serve, stage, monkeypatch, mistakes, place):
    served = await serve(park_after=0.0, claim_interval=0.1)
    client = served.client
    names = [await made(client, wait_step("pause", 0.3), step(each), name=each) for each in ("bad", "good")]
    breaking(monkeypatch, *PLACES[place])  # now, since it is met with when the pause is over
    bad, good = [await client.execute(name) for name in names]
    await log(client, bad.execution_id)
    monkeypatch.undo()
    found = await client.get_execution(bad.execution_id)
    assert (found.state, found.failure.code) == (State.STATE_FAILED, "INTERNAL")
    assert (await ended(client, good.execution_id)).state == State.STATE_COMPLETED
    mistakes.clear()
