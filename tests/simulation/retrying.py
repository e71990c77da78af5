"""What is retried goes on from what was not done, with what differs in it, and nothing done runs again (RE1, RE2)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowkeep.payload import from_struct, from_value
from flowkeep.v1.event_pb2 import ExecutionEvent
from tests.simulation.folding import opened
from tests.simulation.history import Answer, Call
from tests.simulation.timing import seconds

if TYPE_CHECKING:
    from tests.simulation.world import World

ENDS = ("step_completed", "step_failed", "step_skipped", "step_cancelled")


def check_retries(world: World) -> Iterator[str]:
    """Give steps that run again although they are done, lost edits, and retries that are lost or come twice."""
    calls: dict[UUID, list[Call]] = defaultdict(list)
    for call in world.history.calls:
        calls[call.execution_id].append(call)
    answers: dict[UUID | None, list[Answer]] = defaultdict(list)
    for answer in world.history.answers:
        if answer.kind == "retry":
            answers[answer.execution_id].append(answer)
    for execution_id, row in world.database.tables.executions.items():
        messages = opened(row.events)
        steps = world.scenario.workflows[row.execution.workflow_id.int - 1].document["steps"]
        goes_on = {step["id"] for step in steps if step.get("on_error") == "CONTINUE"}
        problems = [*_again(messages, goes_on, calls[execution_id]), *_edits(messages, calls[execution_id])]
        made = Counter(message.reopened.reason for message in messages if message.HasField("reopened"))
        for answer in answers[execution_id]:
            if made[answer.detail] != (answer.outcome == "ok"):
                problems.append(f"RE1: {answer.detail} was {answer.outcome}, and happened {made[answer.detail]} times")
        yield from (f"{problem} ({execution_id})" for problem in problems)


def _again(messages: list[ExecutionEvent], goes_on: set[str], calls: list[Call]) -> Iterator[str]:
    """Give steps of which another iteration begins although they are done, or have failed and others went on."""
    done: dict[str, int] = {}
    begun: dict[str, int] = {}
    for message in messages:
        kind = message.WhichOneof("kind") or ""
        if not kind.startswith("step_"):
            continue
        body: Any = getattr(message, kind)
        begun[body.path] = max(begun.get(body.path, 0), body.iteration)
        if begun[body.path] > done.get(body.path, begun[body.path]):
            yield f"RE1: step {body.path} is done, and iteration {body.iteration} of it begins by event {message.seq}"
        if kind in ("step_completed", "step_skipped") or (kind == "step_failed" and body.path in goes_on):
            done[body.path] = body.iteration
    for call in calls:
        if call.iteration > done.get(call.path, call.iteration):
            yield f"RE1: step {call.path} is done, and was called in iteration {call.iteration}"


def _edits(messages: list[ExecutionEvent], calls: list[Call]) -> Iterator[str]:
    """Give iterations that go another way than what was put in the place of their inputs and outputs."""
    edits: dict[tuple[str, int], Any] = {}
    begun, since = set[tuple[str, int]](), 0.0
    for message in messages:
        kind = message.WhichOneof("kind") or ""
        body: Any = getattr(message, kind)
        if kind == "reopened":
            # That of an earlier run holds only where the step has begun in it.
            edits = {key: edit for key, edit in edits.items() if key in begun}
            if body.HasField("edit"):
                edits[body.edit.path, body.edit.iteration] = body.edit
                since = seconds(message.time)
        if not kind.startswith("step_"):
            continue
        begun.add(key := (body.path, body.iteration))
        if kind == "step_edited":
            edits.pop(key, None)  # whoever debugs it has put something else in its place
        if (edit := edits.get(key)) is None:
            continue
        is_skip = edit.WhichOneof("edit") == "output"
        if kind == "step_started" and is_skip:
            yield f"RE2: step {body.path} was skipped by hand, and begins by event {message.seq}"
        elif kind == "step_started" and body.input != edit.input:
            yield f"RE2: attempt {body.attempt} of step {body.path} is not called with what was edited"
        elif is_skip and kind in ENDS and (kind != "step_completed" or body.output != edit.output):
            yield f"RE2: step {body.path} was skipped by hand, and ends otherwise by event {message.seq}"
    # What was cut off in an earlier run without a trace was called in the same iteration.
    yield from _called_otherwise(edits, [call for call in calls if call.begun >= since])


def _called_otherwise(edits: Mapping[tuple[str, int], Any], calls: list[Call]) -> Iterator[str]:
    for call in calls:
        edit = edits.get((call.path, call.iteration))
        if edit is None:
            continue
        if edit.WhichOneof("edit") == "output":
            yield f"RE2: step {call.path} was skipped by hand ({from_value(edit.output)}), and was called"
        elif call.given != from_struct(edit.input):
            yield f"RE2: step {call.path} was called with {call.given} in place of what was edited"
