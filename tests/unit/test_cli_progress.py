"""How the commands show progress: bars on a terminal, lines elsewhere, JSON for programs."""

import json
from typing import Any

import grpc
import pytest

from flowkeep.errors import (
    NotFoundError,
)
from flowkeep.v1 import event_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution, StepExecution, Wait
from flowkeep.v1.execution_service_pb2 import EventBatch, StepOutput, WatchExecutionResponse
from service.cli.connection import Format
from service.cli.progress import news, show_progress
from service.cli.progress_bars import Bars, visible_steps
from service.cli.progress_lines import line
from service.cli.progress_state import Progress, StepProgress
from tests.unit.cli_pictures import BROKEN, DEFINITION, ID, START, paper, recorded, stamp, text_of


async def stream(events):
    for event in events:
        yield event


async def test_lines_when_the_output_is_no_terminal():
    console, file = paper(width=60)

    finished = await show_progress(stream(recorded()), Progress(DEFINITION), console=console)

    lines = [line[9:] for line in file.getvalue().splitlines()]  # without the time
    assert lines == [
        "  0 %  onboarding (revision 3) created by ada",
        "  0 %  started",
        "  0 %  fetch: started (call_api)",
        "  0 %  fetch: 40 %: sending",
        "  0 %  fetch: attempt 1 failed, next attempt at 08:00:03Z: HTTP_STATUS_5XX: the answer was 503",
        "  0 %  fetch: started (call_api), attempt 2",
        " 20 %  fetch: completed in 4.00s",
        " 20 %  total = 3",
        " 20 %  fan_out[0].part: started (transform)",
        " 40 %  never: skipped: its condition was false",
        " 40 %  pause: waiting: until 08:01:00Z",
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

    await show_progress(stream(events), Progress(DEFINITION, execution_id=ID), output=Format.JSON)

    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["seq"] for event in printed] == list(range(1, len(events) + 1))
    assert all(event["execution_id"] == ID for event in printed)
    completed = {"path": "fetch", "attempt": 2, "output": {"n": 3}, "iteration": 1, "signal_ids": [], "mocked": False}
    assert printed[6]["step_completed"] == completed
    assert printed[0]["progress_percent"] == 0
    assert printed[-1]["finished"]["state"] == "CANCELLED"
    assert printed[-1]["time"] == "2026-11-21T08:00:06.100Z"


async def test_what_a_step_says_is_shown_between_the_events(capsys):
    events = recorded()[:3]
    said = StepOutput(path="fetch", iteration=1, attempt=1, text="first\n\x1b[2Jlast\n")
    happenings = [WatchExecutionResponse(events=EventBatch(events=events)), WatchExecutionResponse(output=said)]

    console, file = paper(width=60)
    await show_progress(news(stream(happenings)), Progress(DEFINITION), console=console)
    assert file.getvalue().splitlines()[-2:] == [f"{'':16}fetch: first", f"{'':16}fetch: �[2Jlast"]

    console, file = paper(width=120, height=30, force_terminal=True, color_system=None)
    await show_progress(news(stream(happenings)), Progress(DEFINITION), console=console)
    assert "�[2Jlast" in file.getvalue()

    await show_progress(news(stream(happenings)), Progress(DEFINITION, execution_id=ID), output=Format.JSON)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"execution_id": ID, "output": {"path": "fetch", "attempt": 1, "text": said.text, "iteration": 1}}


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


def test_what_a_step_waited_for_is_shown_no_more_once_it_runs():
    progress, wait = Progress(DEFINITION), Wait(reason="no server has the handler")
    for event in (
        pb.ExecutionEvent(time=stamp(0), step_waiting=pb.StepWaiting(path="fetch", wait=wait)),
        pb.ExecutionEvent(time=stamp(1), step_started=pb.StepStarted(path="fetch", attempt=1)),
    ):
        progress.apply(event)
    assert (progress.step("fetch").state, progress.step("fetch").note) == ("RUNNING", "")


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


async def test_no_bar_stands_for_what_ended_early_and_no_message_poses_as_an_event():
    finished = pb.ExecutionFinished(state=Execution.STATE_TIMED_OUT)
    finished.failure.code, finished.failure.message = "EXECUTION_TIMEOUT", "too long\n08:00:00Z 100 %  COMPLETED"
    started = pb.StepStarted(path="fetch", handler="call_api", attempt=1)
    tomorrow = stamp(86_400)
    waiting = pb.StepWaiting(path="fetch", wait=Wait(wake_time=tomorrow))
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
