"""One step of an execution, with everything that is known of it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from flowkeep.payload import from_struct, from_value
from flowkeep.v1.execution_pb2 import FailedAttempt, StepExecution
from service.cli.columns import Facts, Prose
from service.cli.failures import failure_lines, short_failure
from service.cli.rendering import (
    clean,
    duration_seconds,
    one_line,
    payload_text,
    plain,
    span_text,
    state_text,
    time_text,
)
from service.cli.tables import step_state_name, took_text, usage_text, wait_text


def step_view(execution_id: str, step: StepExecution, unreadable: Iterable[str] = (), *, withheld: bool) -> Group:
    """Return a step: facts, input, attempts that failed, and its output, or its failure with details and trace.

    `unreadable` is what an answer names as such; `withheld` says that the caller may not see definitions.
    """
    parts: list[RenderableType] = [_facts(execution_id, step, unreadable)]
    # The failure of the last attempt is that of the step, and stands below.
    ended_by = step.attempt if step.HasField("failure") else 0
    parts += [_attempt(each) for each in step.failed_attempts if each.attempt != ended_by]
    if step.payloads_omitted:
        more = f"Its payloads are too large for one answer: flowkeep events {clean(execution_id)} shows them."
        parts.append(Prose(Text(more, "dim")))
    if step.HasField("input"):
        parts.append(payload_text("Input", from_struct(step.input)))
    elif withheld and step.attempt:
        parts.append(Prose(Text("Its input is shown to callers with the permission workflows.read only.", "dim")))
    if step.HasField("output"):
        parts.append(payload_text("Output", from_value(step.output)))
    if step.assigned.fields:
        parts.append(payload_text("Assigned", from_struct(step.assigned)))
    if step.HasField("failure"):
        parts += failure_lines(step.failure)
    if step.wait.reason:
        word = "Waits" if step.state == StepExecution.STATE_WAITING else "Waited"
        parts.append(Prose(Text.assemble((word, "bold yellow"), plain(f": {one_line(clean(step.wait.reason))}"))))
    return Group(*parts)


def _facts(execution_id: str, step: StepExecution, unreadable: Iterable[str]) -> Facts:
    place = f"steps.{step.path}."
    lost = [name.removeprefix(place) for name in unreadable if name == "steps" or name.startswith(place)]
    return Facts(
        ("Step", plain(step.path, "bold")),
        ("Name", plain(step.display_name if step.display_name != step.path else "")),
        ("Execution", plain(execution_id)),
        ("Handler", plain(step.handler)),
        ("Mocked", "yes, nothing ran in its place" if step.mocked else ""),
        ("State", state_text(step_state_name(step.state))),
        ("Iteration", str(step.iteration) if step.iteration > 1 else ""),
        ("Attempt", _number(step)),
        ("Worker", plain(step.worker)),
        ("Inherited", "from the execution that this one was made from; it did not run here" if step.inherited else ""),
        ("Started", time_text(step.start_time)),
        ("Ended", time_text(step.end_time)),
        ("Waits", plain(wait_text(step.wait) if step.state == StepExecution.STATE_WAITING else "")),
        ("Duration", span_text(duration_seconds(step.duration)) if step.HasField("duration") else ""),
        ("Used", usage_text(step.usage)),
        ("Skipped", plain(step.skip_reason)),
        ("After", plain(", ".join(step.depends_on))),
        ("Unreadable", plain(", ".join(lost), "bold red")),
    )


def _number(step: StepExecution) -> str:
    if not step.attempt:
        return ""
    # Those that the end of a server interrupted do not count.
    is_bounded = step.attempt <= step.max_attempts
    return f"{step.attempt} of at most {step.max_attempts}" if is_bounded else str(step.attempt)


def _attempt(failed: FailedAttempt) -> Prose:
    began = f"began {time_text(failed.start_time)}, " if failed.HasField("start_time") else ""
    after = f" after {took}" if (took := took_text(failed)) else ""
    where = f" on {clean(failed.worker)}" if failed.worker else ""
    head = Text(f"Attempt {failed.attempt}{where} {began}failed{after}: ", "yellow")
    return Prose(head.append(one_line(clean(short_failure(failed.failure))), "default"))
