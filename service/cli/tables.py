"""Workflows, executions and handlers as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flowkeep.definition import document, short_name
from flowkeep.payload import from_struct, from_value
from flowkeep.v1.event_pb2 import ExecutionFinished
from flowkeep.v1.execution_pb2 import Execution, FailedAttempt, Failure, StepExecution, Usage, Wait
from flowkeep.v1.execution_service_pb2 import CancelResponse
from flowkeep.v1.handler_pb2 import Handler, McpServer
from flowkeep.v1.workflow_pb2 import Workflow
from service.cli.columns import Facts, FittingTable, Prose
from service.cli.failures import cause, cause_code, failure_lines, more_of, short_failure
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

_EFFECTS = {
    "ALREADY_ENDED": "had ended before",
    "NEVER_STARTED": "had not started and never will",
    "WAIT_REMOVED": "its wait was removed",
    "STOPPING": "was told to stop; may still take effect",
    "STOPPED": "was stopped",
    "UNKNOWN": "was told to stop and had not ended; may still take effect",
    "COMPLETED": "was told to stop and completed all the same",
}


def state_name(execution: Execution | ExecutionFinished) -> str:
    """Return the state of an execution without the enum's prefix."""
    return short_name(Execution.State.DESCRIPTOR, execution.state)


def step_state_name(state: StepExecution.State.ValueType) -> str:
    """Return the state of a step without the enum's prefix."""
    return short_name(StepExecution.State.DESCRIPTOR, state)


def workflows_table(workflows: Iterable[Workflow]) -> FittingTable:
    """Return workflows as rows."""
    table = FittingTable("NAME", "REVISION", "UPDATED", "BY", "ID", leave_out=("BY", "UPDATED", "ID"))
    for workflow in workflows:
        table.add_row(
            plain(workflow.name + (" (paused)" if workflow.HasField("pause") else ""), "bold"),
            str(workflow.revision),
            time_text(workflow.update_time),
            plain(workflow.updated_by),
            workflow.workflow_id,
        )
    return table


def workflow_view(workflow: Workflow) -> Group:
    """Return a workflow with its definition in YAML, which `flowkeep apply` reads back."""
    import yaml  # takes a tenth of what most commands take, which have no use for it

    facts = Facts(
        ("Workflow", plain(workflow.name, "bold")),
        ("Id", workflow.workflow_id),
        ("Revision", str(workflow.revision)),
        ("Updated", plain(f"{time_text(workflow.update_time)} by {workflow.updated_by or 'nobody'}".lstrip())),
        ("Paused", plain(pause_text(workflow).removeprefix("paused "))),
        ("Unreadable", _unreadable(workflow)),
    )
    written = yaml.safe_dump(document(workflow.definition), sort_keys=False, allow_unicode=True, width=110)
    return Group(facts, Text(), plain(written.rstrip()))


def pause_text(workflow: Workflow) -> str:
    """Return that it is paused since when, by whom and why, empty when it is not."""
    if not workflow.HasField("pause"):
        return ""
    pause = workflow.pause
    running = ", with what ran" if pause.running_paused else ""
    why = f": {pause.reason}" if pause.reason else ""
    return f"paused since {time_text(pause.pause_time)} by {pause.paused_by or 'nobody'}{running}{why}"


def handlers_table(handlers: Iterable[Handler]) -> FittingTable:
    """Return handlers as rows, with the first line of what they say; parameters that must be given have a star."""
    table = FittingTable("NAME", "PARAMS", "EFFECT", "DESCRIPTION", leave_out=("EFFECT", "PARAMS"), wraps="DESCRIPTION")
    for handler in handlers:
        schema = from_struct(handler.params_schema)
        required = schema.get("required", [])
        params = ", ".join(f"{name}*" if name in required else name for name in schema.get("properties", {}))
        table.add_row(
            plain(handler.name, "bold"),
            plain(params),
            plain(short_name(Handler.Effect.DESCRIPTOR, handler.effect).lower()),
            plain(handler.description.partition("\n")[0]),
        )
    return table


def tools_table(servers: Iterable[McpServer]) -> FittingTable:
    """Return the tools of MCP servers as rows; arguments that must be given have a star."""
    table = FittingTable("SERVER", "TOOL", "ARGUMENTS", "DESCRIPTION", leave_out=("ARGUMENTS",), wraps="DESCRIPTION")
    for server in servers:
        for tool in server.tools:
            description = tool.description.strip().partition("\n")[0]
            arguments = plain(_names(from_struct(tool.input_schema)))
            table.add_row(plain(server.name), plain(tool.name, "bold"), arguments, plain(description))
    return table


def _names(schema: Mapping[str, Any]) -> str:
    """Return the members that a schema tells of; it is a server's, which may say anything."""
    properties, required = schema.get("properties"), schema.get("required")
    names = properties if isinstance(properties, dict) else {}
    wanted = required if isinstance(required, list) else []
    return ", ".join(f"{name}*" if name in wanted else name for name in names)


def executions_table(executions: Iterable[Execution]) -> FittingTable:
    """Return executions as rows, each with the step that failed and why."""
    table = FittingTable(
        "ID", "STATE", "WORKFLOW", "FAILURE", "DURATION", "PROGRESS", "CREATED", "BY", "TAGS",
        leave_out=("TAGS", "BY", "CREATED", "PROGRESS", "DURATION", "FAILURE", "WORKFLOW", "STATE"),
        wraps="FAILURE",
    )  # fmt: skip
    for execution in executions:
        table.add_row(
            execution.execution_id,
            state_text(state_name(execution)),
            plain(f"{execution.workflow_name}@{execution.revision}{' (dry run)' if execution.dry_run else ''}"),
            plain(_failed(execution)),
            took_text(execution),
            _progress(execution),
            time_text(execution.create_time),
            plain(execution.owner),
            plain(", ".join(execution.tags)),
        )
    return table


def execution_view(execution: Execution) -> Group:
    """Return an execution with everything that is known of it."""
    parts: list[RenderableType] = [_execution_facts(execution)]
    if execution.steps:
        parts += [Text(), steps_table(execution.steps)]
        parts += [*_more_steps(execution.execution_id, is_more=execution.steps_omitted), Text()]
    parts += _other_failures(execution)
    for name, given in (("Input", execution.input), ("Variables", execution.vars)):
        if given.fields:
            parts.append(payload_text(name, from_struct(given)))
    return Group(*parts, *outcome_lines(execution))


def outcome_lines(execution: Execution) -> list[RenderableType]:
    """Return what came of an execution: its result, why it failed, or nothing while it runs."""
    if execution.HasField("result"):
        return [payload_text("Result", from_value(execution.result))]
    if not execution.HasField("failure"):
        return []
    failure = cause(execution)
    more = [more_of(execution.execution_id, failure.step_path)] if failure.step_path else []
    return [*failure_lines(failure), *more]


def steps_table(steps: Iterable[StepExecution]) -> FittingTable:
    """Return the steps of an execution as rows."""
    table = FittingTable(
        "STEP", "STATE", "HANDLER", "ATTEMPT", "DURATION", "WORKER", "NOTE",
        leave_out=("WORKER", "HANDLER", "ATTEMPT", "DURATION", "NOTE"),
        wraps="NOTE",
    )  # fmt: skip
    for step in steps:
        # Those that the end of a server interrupted do not count: there may be more than there may be.
        is_bounded = step.max_attempts > 1 and step.attempt <= step.max_attempts
        attempts = f"{step.attempt}/{step.max_attempts}" if is_bounded else str(step.attempt or "")
        table.add_row(
            plain(step.path, "bold"),
            state_text(step_state_name(step.state)),
            plain(step.handler),
            attempts,
            span_text(duration_seconds(step.duration)) if step.HasField("duration") else "",
            plain(step.worker),
            plain(", ".join(filter(None, (_note(step), "mocked" * step.mocked)))),
        )
    return table


def receipt_view(response: CancelResponse) -> Group:
    """Return what cancelling did, step by step."""
    head = plain(f"Execution {response.execution.execution_id} is ")
    table = FittingTable("STEP", "STATE", "WHAT CANCELLING DID", leave_out=("STATE",), wraps="WHAT CANCELLING DID")
    for step in response.steps:
        effect = short_name(CancelResponse.StepReceipt.Effect.DESCRIPTOR, step.effect)
        table.add_row(plain(step.path, "bold"), state_text(step_state_name(step.state)), _EFFECTS.get(effect, effect))
    parts: list[RenderableType] = [head.append_text(state_text(state_name(response.execution))).append("."), table]
    return Group(*parts, *_more_steps(response.execution.execution_id, is_more=response.steps_omitted))


def _more_steps(execution_id: str, *, is_more: bool) -> list[RenderableType]:
    return [plain(f"There are more: flowkeep steps {execution_id} --limit 0", "dim")] if is_more else []


def _execution_facts(execution: Execution) -> Facts:
    return Facts(
        ("Execution", Text(execution.execution_id, "bold")),
        ("Workflow", plain(f"{execution.workflow_name}, revision {execution.revision}")),
        ("Dry run", "yes, it sends nothing outside" if execution.dry_run else ""),
        ("State", state_text(state_name(execution))),
        ("Paused", _pause_text(execution)),
        ("Progress", _whole_progress(execution)),
        ("Created", plain(f"{time_text(execution.create_time)} by {execution.owner or 'nobody'}".lstrip())),
        ("Starts", time_text(execution.scheduled_time) if not execution.HasField("start_time") else ""),
        ("Started", time_text(execution.start_time)),
        ("Ended", time_text(execution.end_time)),
        ("Duration", took_text(execution)),
        ("Written", f"{execution.written_bytes:,} bytes" if execution.written_bytes else ""),
        ("Priority", str(execution.priority or "")),
        ("Tags", plain(", ".join(execution.tags))),
        ("Labels", plain(", ".join(f"{key}={value}" for key, value in sorted(execution.labels.items())))),
        ("Correlation id", plain(execution.correlation_id)),
        ("Request id", plain(execution.request_id)),
        ("Child of", plain(execution.lineage.parent_execution_id)),
        ("Made from", _source_text(execution)),
        ("Forks", _forks_text(execution)),
        ("Used", usage_text(execution.usage)),
        ("Unreadable", _unreadable(execution)),
    )


def _pause_text(execution: Execution) -> Text:
    """Return since when it is paused by whom and why, empty when it is not."""
    if not execution.HasField("pause"):
        return Text()
    pause = execution.pause
    since = f"since {time_text(pause.pause_time)} by {pause.paused_by or 'nobody'}"
    told = [since, *(["what ran was stopped"] if pause.hard else [])]
    told += ["the deadline waits"] if pause.stop_deadline else []
    return plain(", ".join(told) + (f": {pause.reason}" if pause.reason else ""))


def _source_text(execution: Execution) -> Text:
    """Return what it was made from, and from which step."""
    lineage = execution.lineage
    if not lineage.source_execution_id:
        return Text()
    step = f", from {lineage.source_step_path}" if lineage.source_step_path else ""
    return plain(f"{lineage.source_execution_id}, as after event {lineage.source_seq}{step}")


def _forks_text(execution: Execution) -> Text:
    """Return what was made from it, one on a line."""
    shown = (
        f"{fork.execution_id} {short_name(Execution.State.DESCRIPTOR, fork.state)}"
        + (f", from {fork.source_step_path}" if fork.source_step_path else "")
        for fork in execution.forks
    )
    return plain("\n".join(shown))


def _unreadable(kept: Execution | Workflow) -> Text:
    """Return what is stored and cannot be read, and so is not shown."""
    return plain(", ".join(kept.unreadable), "bold red")


def usage_text(usage: Usage) -> str:
    """Return what was used up, empty for nothing."""
    parts = [f"{usage.input_tokens:,} tokens in"] if usage.input_tokens else []
    parts += [f"{usage.output_tokens:,} tokens out"] if usage.output_tokens else []
    parts += [f"cost {usage.cost_micros / 1e6:.6f}"] if usage.cost_micros else []
    return ", ".join(parts)


def _progress(execution: Execution) -> str:
    """Return how far an execution is; of one that ended early there is no share, as nothing is to come."""
    counts = execution.step_counts
    return f"{counts.completed}/{counts.total} steps" if ended_early(execution) else f"{execution.progress_percent} %"


def _whole_progress(execution: Execution) -> str:
    counts = execution.step_counts
    text = f"{counts.completed} of {counts.total} steps completed"
    others = ((counts.running, "running"), (counts.failed, "failed"), (counts.skipped, "skipped"))
    text += "".join(f", {number} {name}" for number, name in (*others, (counts.cancelled, "cancelled")) if number)
    return text if ended_early(execution) else f"{execution.progress_percent} %  ({text})"


def ended_early(execution: Execution) -> bool:
    """Whether an execution has ended without completing."""
    return execution.HasField("end_time") and execution.state != Execution.STATE_COMPLETED


def _failed(execution: Execution) -> str:
    if execution.state != Execution.STATE_FAILED:
        return ""
    failure = execution.failure
    return f"{failure.step_path}: {cause_code(failure)}" if failure.step_path else cause_code(failure)


def _note(step: StepExecution) -> str:
    """Return what is to be known of a step in short; a failure's message stands below the table."""
    if step.inherited:
        return "inherited"
    if step.HasField("failure"):
        return step.failure.code
    if step.skip_reason:
        return step.skip_reason
    if step.state == StepExecution.STATE_WAITING:
        return wait_text(step.wait)
    if step.failed_attempts:
        return f"attempt {step.failed_attempts[-1].attempt}: {step.failed_attempts[-1].failure.code}"
    return ""


def wait_text(wait: Wait) -> str:
    """Return in short what a step waits for."""
    due = f", due {time_text(wait.wake_time)}" if wait.HasField("wake_time") else ""
    match wait.WhichOneof("kind"):
        case "slot":
            return f"for {clean(wait.slot.resource)}"
        case "worker":
            return f"for the handler {clean(wait.worker.handler)}"
        case "task":
            return f"for a person, task {clean(wait.task.task_id)}{due}"
        case "signal":
            many = " and " if wait.signal.every else " or "
            return f"for the signal {many.join(map(clean, wait.signal.names))}{due}"
        case "breakpoint":
            return "at a breakpoint, until it is resumed"
        case _:
            return f"until {time_text(wait.wake_time)}" if wait.HasField("wake_time") else clean(wait.reason)


def _other_failures(execution: Execution) -> list[RenderableType]:
    """Return a line for each step that failed without being to blame for the end of the execution."""
    blamed = execution.failure.step_path if execution.HasField("failure") else ""
    failed = [step for step in execution.steps if step.HasField("failure") and step.path != blamed]
    return [Prose(Text.assemble((clean(step.path), "bold"), f": {_message(step.failure)}")) for step in failed]


def _message(failure: Failure) -> str:
    return one_line(clean(short_failure(failure)))


def took_text(ended: Execution | FailedAttempt) -> str:
    """Return how long something took, empty while that is not known."""
    if not (ended.HasField("start_time") and ended.HasField("end_time")):
        return ""
    return span_text((ended.end_time.ToNanoseconds() - ended.start_time.ToNanoseconds()) / 1e9)
