"""What is called after variables were set is called with them (CA10): told by the events alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowkeep.payload import from_struct
from flowkeep.v1.event_pb2 import ExecutionEvent
from tests.simulation.folding import opened

if TYPE_CHECKING:
    from tests.simulation.world import World

VARIABLE = "seen"
"""Which a first step may assign, and callers set."""
UNSET = -1
READ = f"${{ '{VARIABLE}' in vars ? vars.{VARIABLE} : {UNSET} }}"
"""The `value` that steps after it may be called with."""


def check_variables(world: World) -> Iterator[str]:
    """Give steps that were called with another value than the variable had, and values that were set and are lost."""
    for execution_id, row in world.database.tables.executions.items():
        document = world.scenario.workflows[row.execution.workflow_id.int - 1].document
        readers = {step["id"] for step in document["steps"] if step["params"].get("value") == READ}
        messages = opened(row.events)
        problems = [*_called(messages, readers), *_lost(world, execution_id, messages)]
        yield from (f"CA10: {problem} ({execution_id})" for problem in problems)


def _called(messages: list[ExecutionEvent], readers: set[str]) -> Iterator[str]:
    value: Any = UNSET
    # What is held is called with what it has been shown with, as the variable was then or has been set by hand until it
    # was let go, in each of its attempts.
    held, let_go = dict[tuple[str, int], Any](), dict[tuple[str, int], Any]()
    by_hand = set[tuple[str, int]]()
    for message in messages:
        kind = message.WhichOneof("kind") or ""
        body: Any = getattr(message, kind)
        is_called = kind in ("step_waiting", "step_started") and body.path in readers and not message.inherited
        match kind:
            case "variables_assigned":
                value = from_struct(body.vars).get(VARIABLE, value)
                held = dict.fromkeys(held, value) if body.edited_by else held
            case "step_edited":
                by_hand.add((body.path, body.iteration))
            case "reopened" if body.HasField("edit"):
                by_hand.add((body.edit.path, body.edit.iteration))
            case "step_waiting" | "step_started" if is_called and body.HasField("input"):
                key, given = (body.path, body.iteration), from_struct(body.input).get("value")
                wanted = let_go.get(key, held.get(key, value))
                if key not in by_hand and given != wanted:
                    yield f"event {message.seq}, {kind}, has {given} for step {body.path}, and it is {wanted}"
                if kind == "step_waiting":
                    held[key] = given
                elif key in held:
                    let_go[key] = held.pop(key)


def _lost(world: World, execution_id: UUID, messages: list[ExecutionEvent]) -> Iterator[str]:
    assigned = [each.variables_assigned for each in messages if each.HasField("variables_assigned")]
    came = {str(int(from_struct(each.vars).get(VARIABLE, UNSET))) for each in assigned if each.edited_by}
    for answer in world.history.answers:
        is_kept = (answer.kind, answer.outcome, answer.execution_id) == ("set", "ok", execution_id)
        if is_kept and answer.detail not in came:
            yield f"{answer.detail} was set, and the execution does not say so"
