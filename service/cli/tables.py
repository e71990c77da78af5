"""Workflows, executions and handlers as tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flowkeep.definition import document, short_name
from flowkeep.payload import from_struct, from_value
from flowkeep.v1.execution_pb2 import Execution, Failure, StepExecution
from flowkeep.v1.execution_service_pb2 import CancelResponse
from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.workflow_pb2 import Workflow
from service.cli.rendering import clean, duration_seconds, plain, span_text, state_text, time_text

_EFFECTS = {
    "ALREADY_ENDED": "had ended before",
    "NEVER_STARTED": "had not started and never will",
    "WAIT_REMOVED": "its wait was removed",
    "STOPPING": "was told to stop",
    "STOPPED": "was stopped",
}


def state_name(execution: Execution) -> str:
    """Return the state of an execution without the enum's prefix."""
    return short_name(Execution.State.DESCRIPTOR, execution.state)


def step_state_name(state: StepExecution.State.ValueType) -> str:
    """Return the state of a step without the enum's prefix."""
    return short_name(StepExecution.State.DESCRIPTOR, state)


def workflows_table(workflows: Iterable[Workflow]) -> Table:
    """Return workflows as rows."""
    table = _table("NAME", "REVISION", "UPDATED", "BY", "ID")
    for workflow in workflows:
        table.add_row(
            plain(workflow.name, "bold"),
            str(workflow.revision),
            time_text(workflow.update_time),
            plain(workflow.updated_by),
            workflow.workflow_id,
        )
    return table


def workflow_view(workflow: Workflow) -> Group:
    """Return a workflow with its definition in YAML, which `flowkeep apply` reads back."""
    facts = _facts(
        ("Workflow", plain(workflow.name, "bold")),
        ("Id", workflow.workflow_id),
        ("Revision", str(workflow.revision)),
        ("Updated", plain(f"{time_text(workflow.update_time)} by {workflow.updated_by or 'nobody'}")),
    )
    written = yaml.safe_dump(document(workflow.definition), sort_keys=False, allow_unicode=True, width=110)
    return Group(facts, Text(), plain(written.rstrip()))


def handlers_table(handlers: Iterable[Handler]) -> Table:
    """Return handlers as rows; parameters that must be given are marked with a star."""
    table = _table("NAME", "PARAMS", "RETRY SAFE", "DESCRIPTION")
    for handler in handlers:
        schema = from_struct(handler.params_schema)
        required = schema.get("required", [])
        params = ", ".join(f"{name}*" if name in required else name for name in schema.get("properties", {}))
        table.add_row(
            plain(handler.name, "bold"),
            plain(params),
            "yes" if handler.retry_safe else "no",
            plain(handler.description),
        )
    return table


def executions_table(executions: Iterable[Execution]) -> Table:
    """Return executions as rows."""
    table = _table("ID", "WORKFLOW", "STATE", "PROGRESS", "CREATED", "DURATION", "BY", "TAGS")
    for execution in executions:
        table.add_row(
            execution.execution_id,
            plain(f"{execution.workflow_name}@{execution.revision}"),
            state_text(state_name(execution)),
            f"{execution.progress_percent} %",
            time_text(execution.create_time),
            _took(execution),
            plain(execution.triggered_by),
            plain(", ".join(execution.tags)),
        )
    return table


def execution_view(execution: Execution) -> Group:
    """Return an execution with everything that is known of it."""
    parts: list[RenderableType] = [_execution_facts(execution)]
    if execution.steps:
        parts.append(steps_table(execution.steps))
    for name, given in (("Input", execution.input), ("Variables", execution.vars)):
        if given.fields:
            parts.append(_payload(name, from_struct(given)))
    return Group(*parts, *outcome_lines(execution))


def outcome_lines(execution: Execution) -> list[RenderableType]:
    """Return what came of an execution: its result, why it failed, or nothing while it runs."""
    if execution.HasField("result"):
        return [_payload("Result", from_value(execution.result))]
    return [failure_text(execution.failure)] if execution.HasField("failure") else []


def result_view(result: Any) -> Text:
    """Return the result of an execution, as indented JSON."""
    return _payload("Result", result)


def failure_text(failure: Failure) -> Text:
    """Return a failure in a line or two, with its details if there are any."""
    text = Text("Failed", "bold red")
    if failure.step_path:
        text.append(f" in {clean(failure.step_path)}", "bold")
    text.append(f": {clean(short_failure(failure))}", "default")
    if failure.details.fields:
        text.append("\n").append(clean(_json(from_struct(failure.details))), "dim")
    if failure.stack_trace:
        text.append("\n").append(clean(failure.stack_trace.rstrip()), "dim")
    return text


def short_failure(failure: Failure) -> str:
    """Return the code and message of a failure."""
    return f"{failure.code}: {failure.message}" if failure.message else failure.code


def steps_table(steps: Iterable[StepExecution]) -> Table:
    """Return the steps of an execution as rows."""
    table = _table("STEP", "HANDLER", "STATE", "ATTEMPT", "DURATION", "NOTE")
    for step in steps:
        attempts = f"{step.attempt}/{step.max_attempts}" if step.max_attempts > 1 else str(step.attempt or "")
        table.add_row(
            plain(step.path, "bold"),
            plain(step.handler),
            state_text(step_state_name(step.state)),
            attempts,
            span_text(duration_seconds(step.duration)) if step.HasField("duration") else "",
            plain(_note(step)),
        )
    return table


def receipt_view(response: CancelResponse) -> Group:
    """Return what cancelling did, step by step."""
    head = Text.assemble("Execution ", response.execution.execution_id, " is ")
    table = _table("STEP", "WHAT CANCELLING DID", "STATE")
    for step in response.steps:
        effect = short_name(CancelResponse.StepReceipt.Effect.DESCRIPTOR, step.effect)
        table.add_row(plain(step.path, "bold"), _EFFECTS.get(effect, effect), state_text(step_state_name(step.state)))
    return Group(head.append_text(state_text(state_name(response.execution))).append("."), table)


def _execution_facts(execution: Execution) -> Table:
    counts = execution.step_counts
    progress = f"{execution.progress_percent} %  ({counts.completed} of {counts.total} steps completed"
    others = ((counts.running, "running"), (counts.failed, "failed"), (counts.skipped, "skipped"))
    progress += "".join(f", {number} {name}" for number, name in others if number) + ")"
    return _facts(
        ("Execution", Text(execution.execution_id, "bold")),
        ("Workflow", plain(f"{execution.workflow_name}, revision {execution.revision}")),
        ("State", state_text(state_name(execution))),
        ("Progress", progress),
        ("Created", plain(f"{time_text(execution.create_time)} by {execution.triggered_by or 'nobody'}")),
        ("Starts", time_text(execution.scheduled_time) if not execution.HasField("start_time") else ""),
        ("Started", time_text(execution.start_time)),
        ("Ended", time_text(execution.end_time)),
        ("Duration", _took(execution)),
        ("Priority", str(execution.priority or "")),
        ("Tags", plain(", ".join(execution.tags))),
        ("Metadata", plain(", ".join(f"{key}={value}" for key, value in sorted(execution.metadata.items())))),
        ("Correlation id", plain(execution.correlation_id)),
        ("Request id", plain(execution.request_id)),
        ("Child of", plain(execution.lineage.parent_execution_id)),
        ("Made from", plain(execution.lineage.source_execution_id)),
        ("Used", _usage(execution)),
    )


def _usage(execution: Execution) -> str:
    usage = execution.usage
    parts = [f"{usage.tokens} tokens"] if usage.tokens else []
    parts += [f"{usage.cost_micros / 1e6:.6f} {clean(usage.currency)}"] if usage.cost_micros else []
    return ", ".join(parts)


def _note(step: StepExecution) -> str:
    if step.HasField("failure"):
        return short_failure(step.failure)
    if step.skip_reason:
        return step.skip_reason
    return f"until {time_text(step.wake_time)}" if step.HasField("wake_time") else ""


def _took(execution: Execution) -> str:
    if not (execution.HasField("start_time") and execution.HasField("end_time")):
        return ""
    return span_text((execution.end_time.ToNanoseconds() - execution.start_time.ToNanoseconds()) / 1e9)


def _payload(name: str, value: Any) -> Text:
    return Text.assemble((f"{name}: ", "bold"), clean(_json(value)))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _facts(*facts: tuple[str, str | Text]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value:
            table.add_row(name, value)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for column in columns:
        # An id that is cut cannot be copied.
        table.add_column(column, no_wrap=column == "ID", overflow="fold")
    return table
