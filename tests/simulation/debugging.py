"""What is held was shown, and is called with what was shown, or put in its place (CA7): told by the events alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flowkeep.v1.event_pb2 import ExecutionEvent
from tests.simulation.folding import opened

if TYPE_CHECKING:
    from tests.simulation.world import World


def check_breakpoints(world: World) -> Iterator[str]:
    """Give steps that were called with something else than was shown, and those that were held without a pause."""
    for execution_id, row in world.database.tables.executions.items():
        yield from (f"CA7: {problem} ({execution_id})" for problem in _of(opened(row.events)))


def _of(messages: list[ExecutionEvent]) -> Iterator[str]:
    shown: dict[tuple[str, int], Any] = {}
    since: dict[tuple[str, int], Any] = {}
    held = ""
    for message in messages:
        kind = message.WhichOneof("kind") or ""
        body: Any = getattr(message, kind)
        if held and not (kind == "paused" and body.step_path == held):
            yield f"step {held} is held, and event {message.seq} does not pause the execution before it"
        held = ""
        match kind:
            case "step_waiting" if body.wait.HasField("breakpoint"):
                key, begun = (body.path, body.iteration), body.wait.start_time
                # One that is shown anew is held already.
                held = body.path if since.get(key) != begun else ""
                since[key] = begun
                if body.HasField("input"):
                    shown[body.path, body.iteration] = body.input
            case "step_edited":
                shown[body.path, body.iteration] = body.input
            case "step_started" if (known := shown.get((body.path, body.iteration))) is not None:
                if body.input != known:
                    yield f"attempt {body.attempt} of step {body.path} is not called with what was shown"
