"""Why an execution does not move, as people read it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from flowkeep.definition import short_name
from flowkeep.v1.execution_pb2 import Execution, StepExecution
from flowkeep.v1.explanation_pb2 import ExplainExecutionResponse, ExplainQueueResponse, Obstacle
from service.cli.columns import Facts, Prose
from service.cli.rendering import clean, plain, state_text


def explanation_view(found: ExplainExecutionResponse) -> Group:
    """Return an execution and its open steps, each with the sentences that say why it does not move."""
    execution = found.execution
    parts: list[RenderableType] = [
        Facts(
            ("Execution", plain(execution.execution_id, "bold")),
            ("Workflow", plain(execution.workflow_name)),
            ("State", state_text(short_name(Execution.State.DESCRIPTOR, execution.state))),
        ),
        Text(),
        *_sentences(found.obstacles),
    ]
    for step in found.steps:
        state = state_text(short_name(StepExecution.State.DESCRIPTOR, step.state))
        parts += [Text(), Text.assemble((clean(step.path), "bold"), " ", state), *_sentences(step.obstacles)]
    if found.steps_omitted:
        parts += [Text(), plain(f"… more open steps: flowkeep steps {execution.execution_id}", "dim")]
    return Group(*parts)


def queue_view(found: ExplainQueueResponse) -> Group:
    """Return what holds the queue of a workflow, and each execution in it with the sentences that say why it waits."""
    parts: list[RenderableType] = _sentences(found.obstacles)
    for each in found.executions:
        state = state_text(short_name(Execution.State.DESCRIPTOR, each.execution.state))
        parts += [Text(), Text.assemble((clean(each.execution.execution_id), "bold"), " ", state)]
        parts += _sentences(each.obstacles)
    if found.executions_omitted:
        parts += [Text(), plain("… there are more, or may be", "dim")]
    return Group(*parts)


def _sentences(obstacles: Iterable[Obstacle]) -> list[RenderableType]:
    return [Prose(Text(f"  {clean(each.sentence)}")) for each in obstacles]
