"""Whatever stands in a text from elsewhere, nothing that the command prints moves the cursor or turns the direction."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.text import Text

from flowkeep.errors import FlowkeepError, Violation
from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import Execution
from flowkeep.v1.execution_service_pb2 import CancelResponse, StepOutput
from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.workflow_pb2 import Workflow, WorkflowDefinition
from service.cli import refusal
from service.cli.checkup import Finding
from service.cli.error_view import error_form, error_lines
from service.cli.progress_bars import Bars
from service.cli.progress_lines import Lines, history_line, line
from service.cli.progress_state import Progress, outline
from service.cli.rendering import json_text
from service.cli.step_view import step_view
from service.cli.tables import (
    execution_view,
    executions_table,
    handlers_table,
    receipt_view,
    steps_table,
    workflow_view,
    workflows_table,
)

HARMFUL = [
    *range(9),
    *range(0xB, 0x20),
    *range(0x7F, 0xA0),
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029),
]
TEXT = "a" + "".join(chr(code) for code in HARMFUL if code) + "\x1b]0;title\x07\x1b[2J[bold]b\nc\td"


def filled(message: Any, depth: int = 0) -> Any:
    """A message with hostile text in each field of text, at every depth."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type and field.message_type.GetOptions().map_entry:
            entries = getattr(message, field.name)
            if field.message_type.fields_by_name["value"].message_type is None:
                entries[TEXT] = TEXT
            continue
        if field.message_type is not None:
            if depth < 4:
                _fill_message(message, field, depth)
        elif field.type == field.TYPE_STRING:
            if field.is_repeated:
                getattr(message, field.name).append(TEXT)
            else:
                setattr(message, field.name, TEXT)
        elif field.type in (field.TYPE_INT32, field.TYPE_INT64) and not field.is_repeated:
            setattr(message, field.name, 1)
    return message


def _fill_message(message: Any, field: Any, depth: int) -> None:
    target = getattr(message, field.name)
    inner = target.add() if field.is_repeated else target
    match inner:
        case Struct():
            inner.update({TEXT: TEXT, "code": TEXT})
        case Value():
            inner.struct_value.update({TEXT: [TEXT]})
        case Timestamp():
            inner.seconds = 1_800_000_000
        case _:
            filled(inner, depth + 1)
            inner.SetInParent()


def shown(*parts: Any, width: int = 100) -> str:
    """What a terminal gets, without the colours that we put there ourselves."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False, highlight=False)
    for part in parts:
        console.print(part, soft_wrap=True)
    return file.getvalue()


def harmful(text: str) -> list[str]:
    return sorted({f"U+{ord(character):04X}" for character in text if ord(character) in HARMFUL})


EXECUTION: Execution = filled(Execution())
FAILED: Execution = filled(Execution(state=Execution.STATE_FAILED))
FAILED.failure.message = TEXT
EVENTS = [filled(ExecutionEvent(), 0)]


def events() -> Iterable[ExecutionEvent]:
    """One event of each kind."""
    for field in ExecutionEvent.DESCRIPTOR.oneofs_by_name["kind"].fields:
        event = ExecutionEvent(seq=1, time=Timestamp(seconds=1_800_000_000))
        inner: Message = getattr(event, field.name)
        inner.SetInParent()
        filled(inner)
        yield event


VIEWS = {
    "execution": lambda: execution_view(EXECUTION),
    "failed execution": lambda: execution_view(FAILED),
    "executions": lambda: executions_table([EXECUTION, FAILED]),
    "steps": lambda: steps_table([*EXECUTION.steps, *FAILED.steps]),
    "step": lambda: step_view(TEXT, EXECUTION.steps[0], [f"steps.{TEXT}.{TEXT}"], withheld=True),
    "failed step": lambda: step_view(TEXT, FAILED.steps[0], withheld=False),
    "workflow": lambda: workflow_view(filled(Workflow())),
    "workflows": lambda: workflows_table([filled(Workflow())]),
    "handlers": lambda: handlers_table([filled(Handler())]),
    "receipt": lambda: receipt_view(filled(CancelResponse())),
    "JSON": lambda: json_text({TEXT: [TEXT]}),
    "finding": lambda: Text(Finding(Finding.Verdict.FAIL, TEXT, TEXT).line),
}


@pytest.mark.parametrize("width", [40, 100, 1_000_000])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view(view: Any, width: int) -> None:
    text = shown(view(), width=width)
    assert "a" in text
    assert harmful(text) == []


def test_every_line_of_progress() -> None:
    for event in events():
        progress = Progress(outline(EXECUTION), execution_id=TEXT)
        progress.apply(event)
        for made in (line(event, progress), history_line(event, progress), Bars(Console(), progress).render()):
            assert harmful(shown(made)) == [], event.WhichOneof("kind")
    file = io.StringIO()
    progress = Progress(WorkflowDefinition(name=TEXT), execution_id=TEXT)
    Lines(Console(file=file, color_system=None, highlight=False)).show_output(
        StepOutput(path=TEXT, text=TEXT), progress
    )
    assert harmful(file.getvalue()) == []


def test_an_error() -> None:
    error = FlowkeepError(grpc.StatusCode.INTERNAL, TEXT, TEXT, [Violation(TEXT, TEXT)], {TEXT: TEXT})
    assert harmful(shown(*error_lines(error, TEXT))) == []
    assert harmful(json.dumps(error_form(error))) == []


def test_a_command_line_that_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="2"):
        refusal.refuse(TEXT)
    assert harmful(capsys.readouterr().err.replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "")) == []
