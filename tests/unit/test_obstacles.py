"""Why executions and steps do not move, in the sentences that people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from persistence.model import Ending, Execution, ExecutionState, Pause, Step, StepCounts, StepState
from persistence.processes import Driving
from persistence.waits import Wait, WaitKind
from service.engine import obstacles as of
from service.engine.obstacles import Obstacle, Room

NOW = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
PAST, LATER = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
SOFT, HARD = Pause("ann", "lunch", PAST), Pause("ann", "", PAST, is_hard=True)
HOLDER = UUID("01930000-0000-7000-8000-000000000000")


def execution(state: ExecutionState = ExecutionState.RUNNING, **changes: object) -> Execution:
    row = Execution(HOLDER, "acme", "ann", HOLDER, "work", 1, state, PAST, 60.0, StepCounts(total=3, running=2))
    return replace(row, **changes)


RUNNING, ENDING = execution(), execution(ending=Ending(ExecutionState.FAILED, {}))
PAUSED, STOPPED = (execution(ExecutionState.PAUSED, pause=pause) for pause in (SOFT, HARD))
ATTEMPT = Step("fetch", "call_api", StepState.RUNNING, attempt=2, attempt_time=PAST, worker="box:7", progress=40)
FAILED = Step("fetch", "call_api", StepState.WAITING, attempt=1, failure={"code": "UNAVAILABLE"})
RUNS = "Attempt 2 runs on box:7 since 2031-02-03 04:04:06 UTC, 40 % done."


def wait(kind: WaitKind, until: datetime | None = LATER, **changes: object) -> Wait:
    return replace(Wait(kind, PAST, until), **changes)


TIMER, OVER = wait(WaitKind.TIMER), wait(WaitKind.TIMER, PAST)
SAID = {
    "ended": (of.ended(execution(ExecutionState.COMPLETED)), "It has ended: COMPLETED. Nothing is to come."),
    "ended in a later run": (
        of.ended(execution(ExecutionState.FAILED, run=2, failure={"code": "BROKEN"})),
        "It has ended in run 2: FAILED with BROKEN. Nothing is to come, unless it is retried.",
    ),
    "paused": (of.paused(SOFT), "ann paused it: lunch. It goes on when it is resumed."),
    "paused hard": (of.paused(HARD), "ann paused it hard. It goes on when it is resumed."),
    "end put off": (
        of.paused(SOFT, is_put_off=True),
        "ann paused it: lunch. All of its steps have ended, and it completes when it is resumed.",
    ),
    "runs": (of.running(ATTEMPT, RUNNING, may_be_stopped=True), RUNS),
    "let finish": (of.running(ATTEMPT, PAUSED, may_be_stopped=True), f"{RUNS} The pause lets it finish."),
    "once only": (of.running(ATTEMPT, STOPPED, may_be_stopped=False), f"{RUNS} The pause lets it finish."),
    "stopping": (
        of.running(ATTEMPT, STOPPED, may_be_stopped=True),
        f"{RUNS} It was told to stop, and is made again when the execution is resumed.",
    ),
    "stopping for the end": (
        of.running(ATTEMPT, ENDING, may_be_stopped=True),
        f"{RUNS} It was told to stop, since the execution ends.",
    ),
    "ending": (of.ending(ENDING), "Before its end as FAILED, what still runs is stopped: 2 steps in work."),
    "timer": (of.timer(TIMER, RUNNING, NOW), "It waits until 2031-02-03 04:06:06 UTC."),
    "timer in a pause": (of.timer(TIMER, PAUSED, NOW), "It waits until 2031-02-03 04:06:06 UTC."),
    "timer that a pause holds": (
        of.timer(OVER, PAUSED, NOW),
        "It waited until 2031-02-03 04:04:06 UTC, and goes on when the execution is resumed.",
    ),
    "retry": (
        of.retry(FAILED, wait(WaitKind.RETRY, attempt=2), RUNNING, NOW),
        "Attempt 2 comes at 2031-02-03 04:06:06 UTC, since the last one failed with UNAVAILABLE.",
    ),
    "retry that a pause holds": (
        of.retry(FAILED, wait(WaitKind.RETRY, PAST, attempt=2), PAUSED, NOW),
        "Attempt 2 comes when the execution is resumed, since the last one failed with UNAVAILABLE.",
    ),
    "signal": (
        of.signal(wait(WaitKind.SIGNAL, signals=("paid", "void"))),
        "It waits for the signals paid or void since 2031-02-03 04:04:06 UTC, until 2031-02-03 04:06:06 UTC at most.",
    ),
    "begins at the resume": (of.execution(PAUSED), "It begins when the execution is resumed."),
    "begins no more": (of.execution(ENDING), "It does not begin any more, since the execution ends."),
    "before it": (of.predecessors(["a", "b", "c", "d"]), "It begins when a, b, c and 1 more have ended."),
    "held": (
        of.slot(wait(WaitKind.SLOT, None, resource="threads"), [(HOLDER, "fetch")], 2),
        f"It waits for threads; held by fetch of {HOLDER} and 2 more.",
    ),
    "busy workers": (
        of.slot(wait(WaitKind.SLOT, None, resource="workers", reason="waits for a worker: all 2 are busy"), [], 2),
        "It waits for a worker: all 2 are busy; held by 2 others.",
    ),
    "no worker": (
        of.worker(wait(WaitKind.WORKER, None, handler="paint"), 0, 0),
        "It waits for somebody who may run it; no connected worker has the handler paint.",
    ),
    "no worker that fits": (
        of.worker(wait(WaitKind.WORKER, None, handler="paint", reason="has the label gpu=yes"), 2, 0),
        "It waits for somebody who may run it (has the label gpu=yes); "
        "2 workers are connected with the handler paint, but none fits.",
    ),
    "driven": (
        of.server(Driving(NOW, "box:7", LATER)),
        "Server box:7 drives it; its lease lasts until 2031-02-03 04:06:06 UTC and is renewed while it lives.",
    ),
    "stopped": (
        of.server(Driving(NOW, "box:7", PAST)),
        "Server box:7 has stopped: its lease ended at 2031-02-03 04:04:06 UTC. "
        "The next server with room takes it over.",
    ),
    "queue": (
        of.queue(execution(wake_time=PAST), 3, 1_000),
        "It waits for a server with room, and 3 of its org are before it.",
    ),
    "suspect": (
        of.queue(execution(deaths=3), 0, 1_000),
        "3 servers died while they drove it: it waits for one that tries it apart from all others.",
    ),
    "full": (
        of.servers(2, Room("box:7", has_room=False, has_room_for_org=False, driven=9)),
        "2 servers are there. box:7, which was asked, drives 9 executions of this org, and takes nothing more.",
    ),
    "full for one org": (
        of.servers(1, Room("box:7", has_room=True, has_room_for_org=False, driven=9)),
        "1 server is there. box:7, which was asked, drives 9 executions of this org, "
        "and takes nothing more of this org, to keep room for others.",
    ),
}


@pytest.mark.parametrize(("found", "said"), SAID.values(), ids=SAID)
def test_a_reason_is_said_in_a_sentence(found: Obstacle, said: str) -> None:
    assert found.sentence == said


def test_what_the_sentences_say_stands_in_the_structure_as_well() -> None:
    found = {what: obstacle for what, (obstacle, _) in SAID.items()}
    assert (found["retry"].end, found["signal"].start, found["stopped"].start) == (LATER, PAST, PAST)
    told = {what for what, each in found.items() if each.is_told_to_stop}
    assert (told, found["end put off"].is_put_off) == ({"stopping", "stopping for the end"}, True)
    assert (found["queue"].count, found["suspect"].deaths, found["full"].count) == (3, 3, 2)
