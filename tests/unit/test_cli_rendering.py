"""What the commands print: tables, errors as people read them, JSON for programs."""

import json
import time

import grpc
import pytest

from flowkeep import to_struct
from flowkeep.errors import (
    DefinitionError,
    ExecutionFailedError,
    FlowkeepError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    Violation,
)
from flowkeep.v1.execution_pb2 import (
    Execution,
    FailedAttempt,
    Failure,
    SlotWait,
    StepCounts,
    StepExecution,
    Usage,
    Wait,
)
from flowkeep.v1.execution_service_pb2 import CancelResponse
from flowkeep.v1.handler_pb2 import Handler
from flowkeep.v1.worker_service_pb2 import Attempt
from flowkeep.v1.workflow_pb2 import Workflow
from service.cli import rendering, tables
from service.cli.columns import Facts, FittingTable
from service.cli.connection import Connection, Format
from service.cli.error_view import error_lines, exit_code, show_error
from service.cli.json_form import json_form
from service.cli.progress_lines import line
from service.cli.progress_state import Progress
from service.cli.rendering import span_text
from service.cli.step_view import step_view
from tests.unit.cli_pictures import BROKEN, DEFINITION, ID, recorded, stamp, text_of


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
        labels={"team": "growth"},
        input=to_struct({"id": 7}),
        failure=Failure(code="STEP_FAILED", message="no luck", step_path="last", details=to_struct({"status": 503})),
        usage=Usage(input_tokens=12, output_tokens=3, cost_micros=1500),
        steps=[
            StepExecution(path="fetch", handler="call_api", state=StepExecution.STATE_COMPLETED, attempt=1),
            StepExecution(path="last", state=StepExecution.STATE_FAILED, attempt=3, max_attempts=3, failure=BROKEN),
        ],
        definition=DEFINITION,
        last_seq=9,
    )


def test_an_execution_with_its_steps():
    given = execution()
    given.written_bytes = 12_345
    shown = text_of(tables.execution_view(given))

    parts = ["onboarding, revision 3", "FAILED", "1 of 2 steps completed, 1 failed", "3.50s", "[red]x", "team=growth"]
    parts += [
        "12,345 bytes",
        "12 tokens in, 3 tokens out, cost 0.001500",
        '"id": 7',
        "3/3",
        "Failed in last: STEP_FAILED: no luck",
        '"status": 503',
    ]
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
    shown = text_of(step_view(ID, step, withheld=False))
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
    assert "executions.debug" in text_of(step_view(ID, step, withheld=False))

    step.state = StepExecution.STATE_WAITING
    step.ClearField("failure")
    step.wait.CopyFrom(Wait(reason="waits for a free thread", slot=SlotWait(resource="threads")))
    waiting = text_of(step_view(ID, step, withheld=False))
    assert "\nWaits: waits for a free thread\n" in waiting and "for threads" in waiting
    assert "Attempt 2 began 2026-11-21T08:00:04Z, failed after 0.50s" in waiting
    assert "\nFailed" not in waiting


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
    handler = Handler(name="call_api", description="Calls.", params_schema=schema, effect=Handler.EFFECT_EXTERNAL)

    assert "onboarding" in text_of(tables.workflows_table([workflow]))
    assert "ordering: GRAPH\nsteps:\n- id: fetch\n" in text_of(tables.workflow_view(workflow))
    row = text_of(tables.handlers_table([handler]))
    assert "url*" in row
    assert "method*" not in row
    assert "external" in row


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
    assert "There are more" not in shown


def test_where_steps_are_left_out_it_is_said_what_shows_them():
    for view in (
        tables.receipt_view(CancelResponse(execution=Execution(execution_id=ID), steps_omitted=True)),
        tables.execution_view(Execution(execution_id=ID, steps=[StepExecution(path="a")], steps_omitted=True)),
    ):
        assert f"There are more: flowkeep steps {ID} --limit 0" in text_of(view)


def test_bytes_are_base64_in_json():
    assert json_form(Attempt(step_path="a", token=b"\x00\xff"))["token"] == "AP8="


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
    show_error(error, Connection(output=Format.JSON))

    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err)["error"]["code"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.421, "0.42s"), (12.34, "12.3s"), (247, "4m07s"), (11_100, "3h05m"), (187_200, "2d04h")],
)
def test_spans_of_time(seconds, text):
    assert span_text(seconds) == text
