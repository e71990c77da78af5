"""What the commands print: progress from recorded events, tables, errors as people read them, JSON for programs."""

import io
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from flowkeep import to_struct, to_value
from flowkeep.definition import definition
from flowkeep.errors import (
    DefinitionError,
    ExecutionFailedError,
    FlowkeepError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    Violation,
)
from flowkeep.v1 import event_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution, FailedAttempt, Failure, StepCounts, StepExecution, Usage
from flowkeep.v1.execution_service_pb2 import CancelResponse, StepOutput, WatchExecutionResponse
from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.workflow_pb2 import Workflow
from service.cli import rendering, tables
from service.cli.columns import Facts, FittingTable
from service.cli.connection import Connection, Output
from service.cli.json_form import json_form
from service.cli.progress import news, show_progress
from service.cli.progress_bars import Bars, visible_steps
from service.cli.progress_lines import line
from service.cli.progress_state import Progress, StepProgress
from service.cli.rendering import error_lines, exit_code, show_error, span_text
from service.cli.step_view import step_view

ID = "01930000-0000-7000-8000-000000000000"
START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
BROKEN = Failure(code="HTTP_STATUS_5XX", message="the answer was 503")

DEFINITION = definition(
    {
        "name": "onboarding",
        "ordering": "GRAPH",
        "steps": [
            {"id": "fetch", "handler": "call_api", "display_name": "Fetch it"},
            {"id": "fan_out", "handler": "transform"},
            {"id": "never", "handler": "transform"},
            {"id": "pause", "handler": "wait"},
            {"id": "last", "handler": "transform"},
        ],
    }
)


def stamp(seconds):
    time = Timestamp()
    time.FromDatetime(START + timedelta(seconds=seconds))
    return time


def recorded():
    """The events of an execution that meets everything."""
    kinds: list[tuple[float, int, dict[str, Any]]] = [
        (0.0, 0, {"created": pb.ExecutionCreated(workflow_name="onboarding", revision=3, triggered_by="ada")}),
        (0.1, 0, {"started": pb.ExecutionStarted(deadline_time=stamp(3600))}),
        (0.1, 0, {"step_started": pb.StepStarted(path="fetch", handler="call_api", attempt=1)}),
        (1.0, 0, {"step_progressed": pb.StepProgressed(path="fetch", attempt=1, step_percent=40, message="sending")}),
        (2.0, 0, {"step_retrying": pb.StepRetrying(path="fetch", attempt=1, failure=BROKEN, retry_time=stamp(3))}),
        (3.0, 0, {"step_started": pb.StepStarted(path="fetch", handler="call_api", attempt=2)}),
        (4.1, 20, {"step_completed": pb.StepCompleted(path="fetch", attempt=2, output=to_value({"n": 3}))}),
        (4.1, 20, {"variables_assigned": pb.VariablesAssigned(path="fetch", vars=to_struct({"total": 3}))}),
        (4.2, 20, {"step_started": pb.StepStarted(path="fan_out[0].part", handler="transform", attempt=1)}),
        (4.2, 40, {"step_skipped": pb.StepSkipped(path="never", reason="its condition was false")}),
        (4.3, 40, {"step_waiting": pb.StepWaiting(path="pause", wake_time=stamp(60))}),
        (5.0, 40, {"cancelling": pb.ExecutionCancelling(cancelled_by="ada", reason="enough\x1b[2J")}),
        (5.1, 40, {"step_cancelled": pb.StepCancelled(path="pause", attempt=1)}),
        (5.2, 60, {"step_failed": pb.StepFailed(path="last", attempt=3, failure=BROKEN)}),
        (5.5, 60, {}),  # a kind of a later version
        (
            6.1,
            60,
            {"finished": pb.ExecutionFinished(state=Execution.STATE_CANCELLED, failure=Failure(code="CANCELLED"))},
        ),
    ]
    return [
        pb.ExecutionEvent(
            seq=seq,
            transition_seq=seq,
            time=stamp(at),
            progress_percent=percent,
            step_counts=StepCounts(total=5),
            **kind,
        )
        for seq, (at, percent, kind) in enumerate(kinds, 1)
    ]


async def stream(events):
    for event in events:
        yield event


def paper(**options):
    """A console, and what it prints on."""
    file = io.StringIO()
    return Console(file=file, highlight=False, _environ={}, **options), file


def text_of(*renderables, width=120):
    console, file = paper(width=width)
    for renderable in renderables:
        console.print(renderable, crop=False)
    return file.getvalue()


async def test_lines_when_the_output_is_no_terminal():
    console, file = paper(width=60)

    finished = await show_progress(stream(recorded()), Progress(DEFINITION), console=console)

    lines = [line[9:] for line in file.getvalue().splitlines()]  # without the local time
    local = {second: f"{(START + timedelta(seconds=second)).astimezone():%H:%M:%S}" for second in (3, 60)}
    assert lines == [
        "  0 %  onboarding (revision 3) created by ada",
        "  0 %  started",
        "  0 %  fetch: started (call_api)",
        "  0 %  fetch: 40 %: sending",
        f"  0 %  fetch: attempt 1 failed, next attempt at {local[3]}: HTTP_STATUS_5XX: the answer was 503",
        "  0 %  fetch: started (call_api), attempt 2",
        " 20 %  fetch: completed in 4.00s",
        " 20 %  total = 3",
        " 20 %  fan_out[0].part: started (transform)",
        " 40 %  never: skipped: its condition was false",
        f" 40 %  pause: waiting: until {local[60]}",
        " 40 %  cancelling: enough�[2J",
        " 40 %  pause: cancelled",
        " 60 %  last: failed after 3 attempts: HTTP_STATUS_5XX: the answer was 503",
        " 60 %  something happened that this version does not know",
        " 60 %  CANCELLED in 6.00s",
    ]
    assert finished is not None
    assert finished.state == Execution.STATE_CANCELLED


async def test_a_json_object_on_a_line_for_each_event(capsys):
    events = recorded()

    await show_progress(stream(events), Progress(DEFINITION, execution_id=ID), output=Output.JSON)

    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["seq"] for event in printed] == list(range(1, len(events) + 1))
    assert all(event["execution_id"] == ID for event in printed)
    assert printed[6]["step_completed"] == {"path": "fetch", "attempt": 2, "output": {"n": 3}}
    assert printed[0]["progress_percent"] == 0
    assert printed[-1]["finished"]["state"] == "CANCELLED"
    assert printed[-1]["time"] == "2026-11-21T08:00:06.100Z"


async def test_what_a_step_says_is_shown_between_the_events(capsys):
    events = recorded()[:3]
    said = StepOutput(path="fetch", attempt=1, text="first\n\x1b[2Jlast\n")
    happenings = [WatchExecutionResponse(events=events), WatchExecutionResponse(output=said)]

    console, file = paper(width=60)
    await show_progress(news(stream(happenings)), Progress(DEFINITION), console=console)
    assert file.getvalue().splitlines()[-2:] == [f"{'':16}fetch: first", f"{'':16}fetch: �[2Jlast"]

    console, file = paper(width=120, height=30, force_terminal=True, color_system=None)
    await show_progress(news(stream(happenings)), Progress(DEFINITION), console=console)
    assert "�[2Jlast" in file.getvalue()

    await show_progress(news(stream(happenings)), Progress(DEFINITION, execution_id=ID), output=Output.JSON)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"execution_id": ID, "output": {"path": "fetch", "attempt": 1, "text": said.text}}


async def test_bars_on_a_terminal():
    console, file = paper(width=120, height=30, force_terminal=True, color_system=None)

    await show_progress(stream(recorded()), Progress(DEFINITION, execution_id=ID), console=console)

    printed = file.getvalue()
    assert ID in printed
    assert "CANCELLED" in printed
    assert "HTTP_STATUS_5XX: the answer was 503" in printed
    assert "\x1b[?25h" in printed  # the cursor is shown again


async def test_the_display_is_closed_when_the_events_break_off():
    async def broken():
        yield recorded()[0]
        raise NotFoundError(grpc.StatusCode.NOT_FOUND, "", "gone")

    console, file = paper(force_terminal=True)
    with pytest.raises(NotFoundError):
        await show_progress(broken(), Progress(DEFINITION), console=console)

    assert "\x1b[?25h" in file.getvalue()
    assert await show_progress(stream(recorded()[:3]), Progress(DEFINITION), console=console) is None


def test_a_takeover_shows():
    progress, said = Progress(DEFINITION), []
    for attempt, worker in enumerate(("one:1", "one:1", "two:2"), 1):
        started = pb.StepStarted(path="fetch", handler="call_api", attempt=attempt, worker=worker)
        event = pb.ExecutionEvent(time=stamp(0), step_started=started)
        progress.apply(event)
        said.append(str(line(event, progress)).partition("fetch: ")[2])
    assert said == ["started (call_api)", "started (call_api), attempt 2", "started (call_api), attempt 3 on two:2"]


def test_progress_follows_the_events():
    progress = Progress(DEFINITION)
    for event in recorded():
        progress.apply(event)

    found = {step.path: step for step in progress.steps}
    assert list(found) == ["fetch", "fan_out", "fan_out[0].part", "never", "pause", "last"]
    assert [step.state for step in progress.steps] == [
        "COMPLETED", "PENDING", "RUNNING", "SKIPPED", "CANCELLED", "FAILED",
    ]  # fmt: skip
    assert (found["fetch"].name, found["fetch"].attempt, found["fetch"].note) == ("Fetch it", 2, "")
    assert (found["fetch"].started, found["fetch"].ended) == (START.timestamp() + 0.1, START.timestamp() + 4.1)
    assert (progress.state, progress.percent, progress.title) == ("CANCELLED", 60, "onboarding")


def test_a_picture_of_every_moment_fits():
    progress = Progress(DEFINITION, execution_id=ID)
    console, _ = paper(width=100, height=12)
    bars = Bars(console, progress)
    for event in recorded():
        progress.apply(event)
        assert len(text_of(bars.render(), width=100).splitlines()) <= 12
    assert "✔ Fetch it" in text_of(bars.render())


def test_progress_goes_on_from_an_execution():
    execution = Execution(
        execution_id=ID,
        workflow_name="onboarding",
        state=Execution.STATE_RUNNING,
        progress_percent=20,
        definition=DEFINITION,
        start_time=stamp(0),
        steps=[
            StepExecution(path="fetch", state=StepExecution.STATE_COMPLETED, attempt=2, start_time=stamp(0)),
            StepExecution(path="last", state=StepExecution.STATE_WAITING, failure=BROKEN),
        ],
    )
    progress = Progress.of_execution(execution)

    assert (progress.state, progress.percent) == ("RUNNING", 20)
    assert [(step.path, step.state) for step in progress.steps if step.state != "PENDING"] == [
        ("fetch", "COMPLETED"),
        ("last", "WAITING"),
    ]


def test_what_moves_is_shown_when_there_is_no_room_for_all():
    states = ["COMPLETED"] * 40 + ["FAILED"] + ["RUNNING"] * 3 + ["PENDING"] * 56
    steps = [StepProgress(f"s{i}", f"s{i}", state=state, ended=float(i)) for i, state in enumerate(states)]

    shown = visible_steps(steps, 10)

    assert [step.path for step in shown] == ["s37", "s38", "s39", "s40", "s41", "s42", "s43", "s44", "s45", "s46"]
    assert len(visible_steps(steps[:5], 10)) == 5
    assert len(visible_steps(steps[:40], 10)) == 10
    assert len(visible_steps([StepProgress("r", "r", state="RUNNING") for _ in range(50)], 10)) == 10


def execution():
    return Execution(
        execution_id=ID,
        workflow_name="onboarding",
        revision=3,
        state=Execution.STATE_FAILED,
        progress_percent=50,
        step_counts=StepCounts(total=2, completed=1, failed=1),
        create_time=stamp(0),
        start_time=stamp(1),
        end_time=stamp(4.5),
        tags=["crm", "[red]x"],
        metadata={"team": "growth"},
        input=to_struct({"id": 7}),
        failure=Failure(code="STEP_FAILED", message="no luck", step_path="last", details=to_struct({"status": 503})),
        usage=Usage(tokens=12),
        steps=[
            StepExecution(path="fetch", handler="call_api", state=StepExecution.STATE_COMPLETED, attempt=1),
            StepExecution(path="last", state=StepExecution.STATE_FAILED, attempt=3, max_attempts=3, failure=BROKEN),
        ],
        definition=DEFINITION,
        last_seq=9,
    )


def test_an_execution_with_its_steps():
    shown = text_of(tables.execution_view(execution()))

    parts = ["onboarding, revision 3", "FAILED", "1 of 2 steps completed, 1 failed", "3.50s", "[red]x", "team=growth"]
    parts += ["12 tokens", '"id": 7', "3/3", "Failed in last: STEP_FAILED: no luck", '"status": 503']
    assert [part for part in parts if part not in shown] == []
    assert "Unreadable" not in shown


def test_what_cannot_be_read_is_named():
    spoilt = execution()
    spoilt.unreadable[:] = ["create_time", "steps.fetch.output"]
    for view in (tables.execution_view(spoilt), tables.workflow_view(Workflow(name="w", unreadable=["document"]))):
        (told,) = (each for each in text_of(view).splitlines() if each.startswith("Unreadable"))
        assert told.split(maxsplit=1)[1] in ("create_time, steps.fetch.output", "document")


def test_a_step_with_everything():
    step = StepExecution(
        path="last",
        display_name="The last",
        handler="call_api",
        state=StepExecution.STATE_FAILED,
        attempt=2,
        max_attempts=2,
        input=to_struct({"url": "https://shop.example/orders"}),
        worker="worker-7",
        start_time=stamp(1),
        end_time=stamp(4.5),
        failed_attempts=[
            FailedAttempt(
                attempt=1,
                start_time=stamp(1),
                end_time=stamp(1.5),
                failure=Failure(code="INTERRUPTED"),
                worker="worker-6",
            ),
            FailedAttempt(attempt=2, start_time=stamp(4), end_time=stamp(4.5), failure=BROKEN),
        ],
        failure=Failure(
            code="HTTP_STATUS_5XX",
            message="the answer was 503",
            details=to_struct({"body": "out of stock"}),
            stack_trace="Traceback …\nKeyError: 'stock'",
        ),
    )
    shown = text_of(step_view(execution(), step))
    for part in (
        ID,
        "The last",
        "2 of at most 2",
        "worker-7",
        '"url": "https://shop.example/orders"',
        "KeyError: 'stock'",
    ):
        assert part in shown
    assert "Attempt 1 on worker-6 began 2026-11-21T08:00:01Z, failed after 0.50s: INTERRUPTED\n" in shown
    assert shown.count("the answer was 503") == 1
    assert '"body": "out of stock"' in shown

    step.failure.stack_trace, step.failure.stack_trace_withheld = "", True
    assert "executions.debug" in text_of(step_view(execution(), step))


def test_the_cause_stands_in_place_of_the_failure_of_the_execution():
    failed = execution()
    failed.failure.message = BROKEN.message
    failed.failure.details.update({"code": BROKEN.code})
    failed.steps[1].failure.details.update({"body": "sorry"})
    shown = text_of(tables.execution_view(failed))

    assert "Failed in last: HTTP_STATUS_5XX: the answer was 503\n" in shown
    assert shown.count("the answer was 503") == 1
    assert "STEP_FAILED" not in shown
    assert '"body": "sorry"' in shown
    assert f"flowkeep get {ID} --step last" in shown


async def test_no_bar_stands_for_what_ended_early_and_no_message_poses_as_an_event():
    finished = pb.ExecutionFinished(state=Execution.STATE_TIMED_OUT)
    finished.failure.code, finished.failure.message = "EXECUTION_TIMEOUT", "too long\n08:00:00Z 100 %  COMPLETED"
    started = pb.StepStarted(path="fetch", handler="call_api", attempt=1)
    tomorrow = stamp(86_400)
    waiting = pb.StepWaiting(path="fetch", wake_time=tomorrow)
    kinds: list[dict[str, Any]] = [{"step_started": started}, {"step_waiting": waiting}, {"finished": finished}]
    events = [pb.ExecutionEvent(time=stamp(0), progress_percent=80, **kind) for kind in kinds]
    events[-1].time.CopyFrom(tomorrow)
    progress = Progress(DEFINITION, execution_id=ID)
    console, file = paper(width=60)

    await show_progress(stream(events), progress, console=console)

    assert file.getvalue().splitlines()[1:] == [
        "08:00:00Z 80 %  fetch: waiting: until 2026-11-22T08:00:00Z",
        "2026-11-22",
        "08:00:00Z 80 %  TIMED_OUT: EXECUTION_TIMEOUT: too long 08:00:00Z 100 %  COMPLETED",
    ]
    head = text_of(Bars(console, progress).render()).splitlines()[1]
    assert "TIMED_OUT" in head
    assert "%" not in head


def test_executions_as_rows_keep_their_ids_whole():
    assert ID in text_of(tables.executions_table([execution()]), width=60)


def test_a_failed_execution_is_listed_with_its_step_and_the_cause_and_without_a_share():
    failed = execution()
    failed.failure.details.update({"code": "NO_STOCK"})
    row = text_of(tables.executions_table([failed]), width=200).splitlines()[-1]

    assert "last: NO_STOCK" in row
    assert "1/2 steps" in row
    assert "%" not in row


_ALL_COLUMNS = ["ID", "STATE", "WORKFLOW", "FAILURE", "DURATION", "PROGRESS", "CREATED", "BY", "TAGS"]


@pytest.mark.parametrize(
    ("width", "columns"), [(30, 1), (60, 3), (80, 4), (100, 6), (200, 9), (rendering.FILE_WIDTH, 9)]
)
def test_columns_are_left_out_in_order_and_nothing_is_cut(width, columns):
    rows = [execution(), execution()]
    rows[1].ClearField("failure")
    lines = text_of(tables.executions_table(rows), width=width).splitlines()

    assert [title for title in _ALL_COLUMNS if title in lines[0]] == _ALL_COLUMNS[:columns]
    assert all(len(line) <= max(width, len(ID)) for line in lines)
    whole = [ID, "FAILED", "onboarding@3", "last: STEP_FAILED", "3.50s", "1/2 steps", "2026-11-21T08:00:00Z", "", "crm"]
    assert all(value in lines[2] for value in whole[:columns])
    assert ID in lines[3]


def test_an_empty_column_goes_first_and_a_long_text_is_broken_between_words():
    table = FittingTable("STEP", "WORKER", "STATE", "NOTE", leave_out=("STATE", "WORKER"), wraps="NOTE")
    table.add_row("fetch", "", "FAILED", "a note of\nsome words and " + "x" * 60)
    table.add_row("store", "", "PENDING", "")

    assert text_of(table, width=60).splitlines()[0].split() == ["STEP", "STATE", "NOTE"]
    lines = text_of(table, width=50).splitlines()
    assert lines[0].split() == ["STEP", "STATE", "NOTE"]
    assert lines[2] == "fetch  FAILED   a note of some words and …"
    narrow = text_of(table, width=27).splitlines()
    assert narrow[0].split() == ["STEP", "NOTE"]
    assert narrow[2:4] == ["fetch  a note of some words", "       and …"]
    facts = text_of(Facts(("Id", "1 2 " + "3" * 30), ("None", "")), width=20).splitlines()
    assert facts == ["Id  1 2", "    " + "3" * 30]


def test_texts_from_elsewhere_cannot_deceive_a_terminal():
    evil = "a\u202egnp\x1b[2J\x9b31m\u2066b\u2028c\nCOMPLETED"
    deceitful = execution()
    deceitful.tags[:] = [evil]
    deceitful.workflow_name = evil
    deceitful.failure.message = evil
    deceitful.input.update({"x": evil})
    shown = text_of(tables.executions_table([deceitful]), tables.execution_view(deceitful), width=400)

    assert "a�gnp�[2J�31m�b�c COMPLETED" in shown
    assert not set(shown) & set("\u202e\x1b\x9b\u2066\u2028")
    assert json.loads(rendering.json_text({"x": evil})) == {"x": evil}
    assert "\\u202e" in rendering.json_text(evil)


def test_times_are_in_utc_whatever_the_zone_of_the_machine(monkeypatch):
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        assert "2026-11-21T08:00:00Z" in text_of(tables.execution_view(execution()))
        assert str(line(recorded()[0], Progress(DEFINITION))).startswith("08:00:00Z  0 %")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_workflows_and_handlers():
    workflow = Workflow(name="onboarding", revision=2, workflow_id="w", updated_by="ada", definition=DEFINITION)
    schema = to_struct({"properties": {"url": {}, "method": {}}, "required": ["url"]})
    handler = Handler(name="call_api", description="Calls.", params_schema=schema, retry_safe=True)

    assert "onboarding" in text_of(tables.workflows_table([workflow]))
    assert "ordering: GRAPH\nsteps:\n- id: fetch\n" in text_of(tables.workflow_view(workflow))
    row = text_of(tables.handlers_table([handler]))
    assert "url*" in row
    assert "method*" not in row


def test_the_receipt_of_a_cancel():
    receipt = CancelResponse.StepReceipt
    response = CancelResponse(
        execution=Execution(execution_id=ID, state=Execution.STATE_CANCELLING),
        steps=[
            receipt(path="fetch", effect=receipt.EFFECT_STOPPING, state=StepExecution.STATE_RUNNING),
            receipt(path="last", effect=receipt.EFFECT_NEVER_STARTED, state=StepExecution.STATE_CANCELLED),
        ],
    )
    shown = text_of(tables.receipt_view(response))

    assert f"Execution {ID} is CANCELLING." in shown
    assert "was told to stop" in shown
    assert "had not started and never will" in shown


def test_json_has_numbers_names_and_what_cannot_be_absent():
    form = json_form(execution())

    assert form["last_seq"] == 9
    assert form["input"] == {"id": 7}
    assert form["state"] == "FAILED"
    assert form["steps"][0]["state"] == "COMPLETED"
    assert form["priority"] == 0
    assert form["correlation_id"] == ""
    assert form["definition"]["ordering"] == "GRAPH"
    assert form["create_time"] == "2026-11-21T08:00:00Z"
    assert "deadline_time" not in form
    assert "result" not in form
    json.dumps(form)


ERRORS = [
    (ExecutionFailedError(ID, Execution.STATE_FAILED, BROKEN), 1),
    (InvalidArgumentError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", "no"), 2),
    (DefinitionError([Violation("nmae", "is unknown. Did you mean name?")]), 2),
    (NotFoundError(grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND", "no"), 3),
    (UnavailableError(grpc.StatusCode.UNAVAILABLE, "", "failed to connect"), 4),
    (FlowkeepError(grpc.StatusCode.DEADLINE_EXCEEDED, "", ""), 4),
    (FlowkeepError(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING", "no"), 5),
    (FlowkeepError(grpc.StatusCode.INTERNAL, "INTERNAL", "no"), 5),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_errors_end_with_their_code(error, code):
    assert exit_code(error) == code


def test_errors_as_people_read_them():
    first, second = Violation("definition.steps[0].id", "must not be empty"), Violation("", "and 3 more")
    refused = InvalidArgumentError(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", f"{first} (and 1 more)", [first, second]
    )
    busy = FlowkeepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "too much work", retry_after=2.0)

    def printed(error):
        return text_of(*error_lines(error, "host:1")).splitlines()

    assert printed(refused) == [
        "Error: the request is not valid",
        "  definition.steps[0].id: must not be empty",
        "  and 3 more",
    ]
    assert printed(busy) == ["Error: too much work (QUEUE_FULL). Try again in 2.00s"]
    assert printed(ERRORS[4][0])[0].startswith("Error: no server answers at host:1.")
    assert printed(ERRORS[2][0]) == ["Error: this is no workflow definition", "  nmae: is unknown. Did you mean name?"]
    assert printed(NotFoundError(grpc.StatusCode.NOT_FOUND, "", "a\x1b]0;b\x07"))[0] == "Error: a�]0;b�"


@pytest.mark.parametrize("error", [error for error, _ in ERRORS], ids=lambda error: type(error).__name__)
def test_errors_as_json_leave_standard_output_empty(error, capsys):
    show_error(error, Connection(output=Output.JSON))

    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err)["error"]["code"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.421, "0.42s"), (12.34, "12.3s"), (247, "4m07s"), (11_100, "3h05m"), (187_200, "2d04h")],
)
def test_spans_of_time(seconds, text):
    assert span_text(seconds) == text
