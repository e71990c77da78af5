"""The progress of an execution as lines of text."""

from __future__ import annotations

import json
from datetime import date

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.text import Text

from flowkeep.payload import from_struct
from flowkeep.v1.event_pb2 import ExecutionEvent, ExecutionFinished
from flowkeep.v1.execution_pb2 import Breakpoint
from flowkeep.v1.execution_service_pb2 import StepOutput
from service.cli.failures import short_failure
from service.cli.progress_state import Progress, StepProgress
from service.cli.rendering import clean, moment, one_line, plain, span_text, state_text, time_text

_LONGEST_VALUE = 200
# Characters of the time and the progress before each event.
_HEAD = 16


class Lines:
    """A line for each event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._day: date | None = None

    def show(self, event: ExecutionEvent, progress: Progress) -> None:
        """Print the line of an event, and the date before it where another day begins."""
        day = moment(event.time).date()
        if self._day not in (None, day):
            self._console.print(Text(f"{day}", "dim"))
        self._day = day
        self._console.print(line(event, progress), soft_wrap=True)

    def show_output(self, output: StepOutput, progress: Progress) -> None:
        """Print each line of an output."""
        for text in output.text.splitlines():
            said = plain(output.path, "bold").append(": ").append_text(plain(text))
            self._console.print(Text(" " * _HEAD, "dim").append_text(said), soft_wrap=True)


def line(event: ExecutionEvent, progress: Progress) -> Text:
    """Return an event as a line: time, progress of the execution, what happened."""
    head = f"{moment(event.time):%H:%M:%S}Z {event.progress_percent:2} %  "
    return Text(head, "dim").append_text(_on_one_line(_what_happened(event, progress)))


def history_line(event: ExecutionEvent, progress: Progress) -> Text:
    """Return an event as a line: its number, its time to the millisecond, what happened."""
    time = moment(event.time).replace(tzinfo=None).isoformat(timespec="milliseconds")
    head = Text(f"{event.seq:4}  {time}Z  ", "dim")
    return head.append_text(_on_one_line(_what_happened(event, progress)))


def _on_one_line(text: Text) -> Text:
    """Return a text of an event without its line breaks, by which a message could pose as an event."""
    text.plain = one_line(text.plain)
    return text


def _what_happened(event: ExecutionEvent, progress: Progress) -> Text:
    text = _told(event, progress)
    return text.append(" (inherited)", "dim") if event.inherited else text


def _told(event: ExecutionEvent, progress: Progress) -> Text:
    match event.WhichOneof("kind"):
        case "created":
            created = event.created
            by = f" by {created.owner}" if created.owner else ""
            starts = (
                f", starts at {_clock(created.scheduled_time, event)}" if created.HasField("scheduled_time") else ""
            )
            return plain(f"{created.workflow_name} (revision {created.revision}) created{by}{starts}")
        case "started":
            return Text("started")
        case "paused":
            how = "paused, what runs is stopped" if event.paused.hard else "paused"
            return plain(_with(how, event.paused.reason))
        case "resumed":
            return plain(_with("resumed", event.resumed.reason))
        case "breakpoints_set":
            steps = [_breakpoint(each) for each in event.breakpoints_set.breakpoints]
            return plain(f"held before {', '.join(steps)}" if steps else "held before no step")
        case "cancelling":
            what = "terminating" if event.cancelling.terminated else "cancelling"
            return plain(_with(what, event.cancelling.reason))
        case "signal_received":
            return plain(f"signal {event.signal_received.name} received")
        case "variables_assigned":
            values = from_struct(event.variables_assigned.vars)
            by = event.variables_assigned.edited_by
            told = ", ".join(f"{name} = {_value(value)}" for name, value in values.items())
            return plain(f"{told}, set by {by}" if by else told)
        case "finished":
            return _finished(event.finished, progress)
        case "reopened":
            return plain(_with(f"run {event.reopened.run} begins", event.reopened.reason))
        case None:
            return Text("something happened that this version does not know", "dim")
        case kind:
            return _step_text(kind, event, progress)


def _breakpoint(point: Breakpoint) -> str:
    return f"{point.path} if {point.condition}" if point.condition else point.path


def _step_text(kind: str, event: ExecutionEvent, progress: Progress) -> Text:
    step = progress.step(getattr(event, kind).path)
    return plain(step.path, "bold").append(": ").append_text(_step_happened(kind, event, step))


def _step_happened(kind: str, event: ExecutionEvent, step: StepProgress) -> Text:
    match kind:
        case "step_started":
            attempt = f", attempt {step.attempt}" if step.attempt > 1 else ""
            handler = f"{step.handler}, mocked" if event.step_started.mocked else step.handler
            return plain(f"started ({handler}){attempt}" + (f" on {step.worker}" if step.has_moved else ""))
        case "step_progressed":
            return plain(_with(f"{step.percent} %", step.note))
        case "step_waiting":
            until = f"until {_clock(event.step_waiting.wait.wake_time, event)}" if step.wakes else ""
            return plain(_with("waiting", step.note or until), "cyan")
        case "step_edited":
            return plain(f"will be called with {_value(from_struct(event.step_edited.input))}")
        case "step_retrying":
            retrying = event.step_retrying
            failure = short_failure(retrying.failure)
            again = f"next attempt at {_clock(retrying.retry_time, event)}"
            return plain(f"attempt {retrying.attempt} failed, {again}: {failure}", "yellow")
        case "step_completed":
            return plain("completed" if event.inherited else f"completed{_took(step)}", "green")
        case "step_failed":
            attempts = f" after {step.attempt} attempts" if step.attempt > 1 else ""
            return plain(_with(f"failed{attempts}", step.note), "bold red")
        case _:
            return plain(_with(step.state.lower(), step.note), "dim")


def _finished(finished: ExecutionFinished, progress: Progress) -> Text:
    took = f" in {span_text(progress.ended - progress.started)}" if progress.ended and progress.started else ""
    failure = finished.failure
    # That of a step has its own line, and why it was cancelled too.
    is_told = not finished.HasField("failure") or failure.step_path or failure.code == "CANCELLED"
    why = "" if is_told else f": {clean(short_failure(failure))}"
    return state_text(progress.state).append(took + why, "default")


def _took(step: StepProgress) -> str:
    return f" in {span_text(step.ended - step.started)}" if step.ended and step.started else ""


def _clock(stamp: Timestamp, event: ExecutionEvent) -> str:
    """Return a time, with its date unless that is the day of the event."""
    time, now = moment(stamp), moment(event.time)
    return f"{time:%H:%M:%S}Z" if time.date() == now.date() else time_text(stamp)


def _with(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text


def _value(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
