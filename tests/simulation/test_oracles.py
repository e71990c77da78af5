"""Does each oracle turn red for the wrong world that it is there for, and stay green for a sound one?"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, patch
from uuid import UUID

import pytest
import structlog
from msgspec import structs

from flowkeep.v1.event_pb2 import ExecutionEvent
from persistence.errors import CursorAheadError, ExecutionNotFoundError
from persistence.memory.tables import ExecutionRow
from persistence.model import Event, ExecutionState, Scope, StepCounts
from persistence.transition import CommitResult
from service.engine.watch import Bookmark
from tests.simulation.checker import MOST_KILLS, check
from tests.simulation.folding import opened
from tests.simulation.history import Answer, Call, Claim, Stream, Write
from tests.simulation.replica import Replica
from tests.simulation.scenario import Fault, OrderSpec, Request, Scenario, Spec
from tests.simulation.world import World

NOBODY = UUID(int=1)
LATER = 60.0
"""A virtual time at which all is over."""

RETRY = {"max_attempts": 2, "initial_interval": 1, "backoff_coefficient": 1, "max_interval": 1, "jitter": 0}
MIXED = [
    {"id": "call", "handler": "effect", "params": {"takes": 0.5, "fails": 1}, "retry_policy": RETRY},
    {"id": "rest", "handler": "wait", "params": {"duration": 2.0}},
    {"id": "once", "handler": "effect", "params": {"takes": 0.5}, "delivery": "AT_MOST_ONCE"},
]
ASK = [{"id": "ask", "handler": "create_task", "params": {"title": "Go on?", "outcomes": ["yes"]}}]
LONG = [{"id": "long", "handler": "effect", "params": {"takes": 10.0}}]
RESCUED, PLAIN, CANCELLED, TIMED_OUT, ASKING = range(5)
SCENARIO = Scenario(
    seed=1,
    replicas=2,
    workflows=[
        Spec("acme", {"name": name, "steps": steps, "timeout": 30})
        for name, steps in (("mixed", MIXED), ("long", LONG), ("ask", ASK))
    ],
    orders=[
        OrderSpec(0, {"n": 1}, watchers=2),
        OrderSpec(0, {"n": 2}, start_delay=1.0, watchers=1),
        OrderSpec(1, {}, cancel_at=1.0, watchers=1),
        OrderSpec(1, {}, timeout=3.0),
        OrderSpec(2, {}, answered_after=0.5),
    ],
    requests=[
        Request(time, 0, order)
        for order, time in ((RESCUED, 0.1), (PLAIN, 5), (CANCELLED, 5), (TIMED_OUT, 5), (ASKING, 5))
    ],
    faults=[Fault(0.4, "crash", 0, 0.5)],
    skews=[5.0, -5.0],
)
"""Written out, so that there is what is to be spoilt; its crash is over before what is promised for calm times only."""


def row_of(world: World, order: int = PLAIN) -> ExecutionRow:
    """Return the row of an order's execution."""
    return world.database.tables.executions[world.clients.ids[order]]


def calls_of(world: World, order: int = PLAIN) -> list[Call]:
    """Return the calls of an order's steps."""
    return [call for call in world.history.calls if call.execution_id == world.clients.ids[order]]


def writes_of(world: World, order: int = PLAIN) -> dict[int, Write]:
    """Return the accepted writes of an order's execution, by their places in the history."""
    ours = world.clients.ids[order], CommitResult.COMMITTED
    return {at: each for at, each in enumerate(world.history.writes) if (each.execution_id, each.result) == ours}


def change_row(world: World, **changes: Any) -> None:
    """Let the row say something else."""
    row_of(world).execution = structs.replace(row_of(world).execution, **changes)


def change_call(world: World, order: int = PLAIN, **changes: Any) -> None:
    """Let the last call have been another one."""
    for name, value in changes.items():
        setattr(calls_of(world, order)[-1], name, value)


def edit(world: World, change: Callable[[list[ExecutionEvent]], None]) -> None:
    """Change a history, by one event more at most, for all who know it: its row, its writers and its watchers."""
    row, writes = row_of(world), writes_of(world)
    change(messages := opened(row.events))
    row.events = [
        replace(event, seq=seq, kind=message.WhichOneof("kind") or "", body=message.SerializeToString())
        for seq, (event, message) in enumerate(zip([*row.events, row.events[-1]], messages, strict=False), 1)
    ]
    change_row(world, last_seq=len(messages))
    left = tuple(row.events)
    for at, write in writes.items():
        count = len(left) if at == max(writes) else len(write.events)
        world.history.writes[at], left = replace(write, events=left[:count]), left[count:]
    for stream in world.history.streams:
        stream.events = list(row.events) if stream.order == PLAIN else stream.events


def repeat(messages: list[ExecutionEvent], kind: str, place: int) -> None:
    """Let the last event of a kind come once more, at this place from the end."""
    last = [each for each in messages if each.WhichOneof("kind") == kind][-1]
    messages.insert(len(messages) - place, ExecutionEvent.FromString(last.SerializeToString()))
    for seq, message in enumerate(messages, 1):
        message.seq = message.transition_seq = seq


def hurry(world: World, kind: str, order: int = PLAIN, path: str = "") -> None:
    """Let what brought events of a kind, of a step if that is named, be decided at the very beginning."""
    for at, write in writes_of(world, order).items():
        if any(each.WhichOneof("kind") == kind and path in str(each) for each in opened(write.events)):
            world.history.writes[at] = replace(write, decided=0.0)


def add_write(world: World, **changes: Any) -> None:
    """Add a write like the last one, without its events."""
    world.history.writes.append(replace(world.history.writes[max(writes_of(world))], **{"events": ()} | changes))


def consumed(world: World) -> tuple[UUID, ...]:
    """Return what the cancelled execution was sent."""
    return tuple(
        message for execution, message, _ in world.history.messages if execution == world.clients.ids[CANCELLED]
    )


def pass_by(world: World) -> None:
    """Let the message be consumed by a write after the end of its execution."""
    index = next(place for place, write in writes_of(world, CANCELLED).items() if write.consumed)
    write = world.history.writes[index]
    world.history.writes[index] = replace(write, consumed=())
    last = max(place for place in writes_of(world, CANCELLED))
    late = replace(world.history.writes[last], events=(), consumed=write.consumed, committed=LATER)
    world.history.writes.append(late)


def add_call(world: World, index: int = 0, order: int = PLAIN, **changes: Any) -> None:
    """Add a call like one that was."""
    world.history.calls.append(replace(calls_of(world, order)[index], **changes))


def add_claim(world: World, **changes: Any) -> None:
    """Add a claim by somebody else."""
    world.history.claims.append(replace(Claim(world.clients.ids[PLAIN], NOBODY, 9, LATER), **changes))


def add_answer(world: World, kind: str, outcome: str, of: int, time: float = LATER, detail: str = "") -> None:
    """Add an answer with the execution of an order, or one that nobody knows."""
    world.history.answers.append(Answer(kind, PLAIN, time, outcome, world.clients.ids.get(of, NOBODY), detail))


def change_completion(world: World, **changes: str) -> None:
    """Let the one who completed a task have been told something else."""
    (answer,) = (each for each in world.history.answers if each.kind == "complete")
    for name, value in changes.items():
        setattr(answer, name, value)


def cut_off_at_once(world: World) -> None:
    """Let the attempt that a crash cut off have begun when it was told so."""
    writes = writes_of(world, RESCUED)
    late = next(at for at, each in writes.items() if "INTERRUPTED" in str(opened(each.events)))
    early = max(at for at, each in writes.items() if at < late and "step_started" in str(opened(each.events)))
    world.history.writes[early] = replace(writes[early], decided=writes[late].decided)


def take(world: World) -> None:
    """Let somebody claim what has ended."""
    change_row(world, incarnation=NOBODY)
    world.database.taken(world.replicas[0].process, [row_of(world).detail()])


def kill(world: World) -> None:
    """Let an execution take down more processes than any may."""
    for number in range(MOST_KILLS + 1):
        add_call(world, attempt=10 + number, outcome="killed")


def poison(world: World) -> None:
    """Let an execution be quarantined for what another one did to all of its owners."""
    change_row(world, failure={"code": "POISONED"})
    for number, claim in enumerate(world.history.claims):
        add_call(world, order=RESCUED, attempt=10 + number, incarnation=claim.incarnation, outcome="killed")


def lose(world: World) -> None:
    """Let who lost an execution to another one go on."""
    add_claim(world)
    add_write(world, result=CommitResult.FENCED, has_changed_row=False)
    add_call(world, attempt=9, process=calls_of(world)[-1].process, epoch=calls_of(world)[-1].epoch, begun=LATER + 1)


def receive(world: World, *events: Event) -> None:
    """Let a new watcher get a message of these events."""
    world.history.streams.append(Stream(PLAIN, world.clients.ids[PLAIN]))
    world.clients._received(world.history.streams[-1], list(events))


def mark(world: World) -> None:
    """Let a watcher get a bookmark that is ahead of the events."""
    parts = AsyncMock(**{"__aiter__.return_value": [Bookmark(99)]})
    replica = SimpleNamespace(executions=SimpleNamespace(watch=lambda *_: parts))
    world.loop.run(world.clients._follow(replica, Scope("acme"), world.history.streams[0]))


def ask(world: World, part: Coroutine[Any, Any, None], answer: Exception | None) -> None:
    """Let every replica answer everything with this in a part of the run."""
    with patch.object(Replica, "call", AsyncMock(side_effect=answer, return_value=None)):
        world.loop.run(part)


def go_on(world: World, part: Callable[[World], Coroutine[Any, Any, object]]) -> None:
    """Let the run go on with this."""
    with patch.object(world, "_run", partial(part, world)):
        world.run()


async def blunder(world: World) -> None:
    """Do what must show in the warnings, in the log, and in the errors of the loop."""
    warnings.warn("never awaited", RuntimeWarning, stacklevel=1)
    structlog.get_logger().error("boom")
    world.loop.call_exception_handler({"message": "never retrieved"})


async def stall(world: World) -> None:
    """Wait for a caller and for an execution, which do not end."""
    change_row(world, state=ExecutionState.RUNNING)
    await world._settle([world._spawn(asyncio.Event().wait(), "request")])


async def leak(world: World) -> None:
    """Start a replica, and stop it with a task and a lease that stay."""
    world.replicas = [replica := world._start(0)]
    world.all_replicas.append(replica)
    await replica.up.wait()
    world.loop.spawn(replica.process, asyncio.Event().wait(), "left")
    world.database.tables.leases[replica.runner.incarnation] = world.database.now() + timedelta(hours=1)
    with patch.object(replica.leases, "end", partial(asyncio.sleep, 0.0)):
        await world._stop_all()


SPOILT: dict[str, Callable[[World], object]] = {
    "I1: was acknowledged": lambda w: add_answer(w, "cancel", "ok", -1),
    "I1: was called + ST5:": lambda w: add_call(w, execution_id=NOBODY),
    "I2: order-0 has 2": lambda w: change_row(w, correlation_id=f"order-{RESCUED}"),
    "I2: were told of": lambda w: add_answer(w, "execute", "ok", RESCUED),
    "I2: 2 callers": lambda w: add_answer(w, "execute", "ok", PLAIN, detail="created"),
    "I3: stands at": lambda w: edit(w, lambda m: setattr(m[1], "seq", 7)),
    "I3: goes back": lambda w: edit(w, lambda m: setattr(m[1], "progress_percent", 99)),
    "I3: torn": lambda w: edit(w, lambda m: setattr(m[-1], "transition_seq", 99)),
    "I3: last_seq": lambda w: change_row(w, last_seq=99),
    "I4: comes after the end + I4: ends at": lambda w: edit(w, lambda m: repeat(m, "finished", 0)),
    "I5: percent": lambda w: change_row(w, progress=1),
    "I5: counts": lambda w: change_row(w, counts=StepCounts(total=99)),
    "I5: step once": lambda w: row_of(w).steps.update({("once", 1): row_of(w, CANCELLED).steps["long", 1]}),
    "I5: not in the table": lambda w: row_of(w).steps.pop(("rest", 1)),
    "I5: Get of + I11: not refused (W7)": lambda w: ask(w, w._probe(), None),
    "I6: the log": lambda w: add_write(w, events=(row_of(w).events[0],)),
    "I6: owns it + I6: was claimed": take,
    "I6: comes after the end of step": lambda w: edit(w, lambda m: repeat(m, "step_completed", 1)),
    "I7: comes after the end + I7: again + I3: + I5:": lambda w: edit(w, lambda m: repeat(m, "step_started", 1)),
    "I8: + ST12: never": lambda w: add_call(w, -1, attempt=9),
    "I9: of epoch 0 after": lambda w: add_write(w, epoch=0),
    "I9: owned it": lambda w: add_claim(w, time=w.history.writes[max(writes_of(w))].committed),
    "I9: is written by": lambda w: add_write(w, process="r9.1"),
    "I10:": lambda w: add_write(w, result=CommitResult.FENCED, has_changed_row=True),
    "I11: got 0 of + I11: (W9)": lambda w: w.history.streams[0].events.clear(),
    "I11: (W3)": lambda w: w.history.streams[0].events.pop(1),
    "I11: (W1-W3)": lambda w: receive(w, row_of(w).events[-1]),
    "I11: (W4)": lambda w: receive(w, *row_of(w).events[:2]),
    "I11: (W6)": mark,
    "I11: (W10)": lambda w: receive(w, replace(row_of(w).events[0], body=b"")),
    "I11: beyond": lambda w: ask(w, w.clients.watch(PLAIN, w.scenario.orders[PLAIN]), CursorAheadError(2, 1)),
    "I12:": lambda w: row_of(w).input.update(changed=True),
    "I14: it was delayed": lambda w: hurry(w, "started"),
    "I14: call paused": lambda w: hurry(w, "step_started", path="call"),
    "I14: rest waited": lambda w: hurry(w, "step_completed", path="rest"),
    "I14: it had a deadline": lambda w: hurry(w, "finished", TIMED_OUT),
    "I19: does not answer": lambda w: ask(w, w._probe(), ConnectionError()),
    "I19: has not ended + I19: a caller's request + I5: the row is RUNNING": lambda w: go_on(w, stall),
    "I19: no timer is set": lambda w: go_on(w, lambda _: asyncio.Event().wait()),
    "I20: awaited + I20: boom + I20: retrieved": lambda w: go_on(w, blunder),
    "I20: leaks the task 'left' + I20: lease": lambda w: go_on(w, leak),
    "I21: consumed 2 times": lambda w: add_write(w, execution_id=w.clients.ids[CANCELLED], consumed=consumed(w)),
    "I21: never consumed": lambda w: w.history.messages.update({(w.clients.ids[PLAIN], NOBODY, 1): 0.0}),
    "I21: passed by": pass_by,
    "CA2:": lambda w: add_answer(w, "cancel", "ok", PLAIN, time=calls_of(w)[-1].begun),
    "CA3: + ST12:": lambda w: add_call(w, order=CANCELLED, attempt=9, begun=LATER),
    "CA4:": lambda w: change_call(w, CANCELLED, stopped=None, ended=LATER),
    "EX3:": lambda w: add_answer(w, "execute", "definite", -1),
    "EX6:": lambda w: ask(w, w.clients._read_own_write(Scope("acme"), NOBODY), ExecutionNotFoundError(NOBODY)),
    "EX7:": lambda w: change_row(w, failure={"code": "INTERNAL"}),
    "ST1:": lambda w: change_call(w, outcome="failed"),
    "ST3:": add_call,
    "ST5:": lambda w: change_call(w, token="other"),
    "ST6: in the moment": cut_off_at_once,
    "ST13: was refused": lambda w: change_completion(w, outcome="definite"),
    "ST13: not with yes": lambda w: change_completion(w, detail="no"),
    "ST7: it took down + ST12:": kill,
    "ST7: quarantined + ST12:": poison,
    "ST10: having lost + ST10: had begun + ST12:": lose,
    "ST12: committed at": lambda w: change_call(w, begun=calls_of(w)[-1].begun - 0.5),
}
"""What to spoil, under all that has to be reported then: rules, and no other ones, with words."""


@pytest.fixture
def world() -> Iterator[World]:
    """Return a sound world at its end."""
    world = World(SCENARIO)
    world.run()
    yield world
    world.close()


def test_a_sound_world_passes(world: World) -> None:
    assert (check(world), world.history.landed) == ([], ["crash"])


@pytest.mark.parametrize("expected", SPOILT)
def test_a_wrong_world_is_seen(world: World, expected: str) -> None:
    SPOILT[expected](world)
    problems = check(world)
    reports = [report.partition(":")[::2] for report in expected.split(" + ")]
    for rule, words in reports:
        assert any(each.startswith(f"{rule}:") and words.strip() in each for each in problems), problems
    assert {each.split(":")[0] for each in problems} == {rule for rule, _ in reports}, problems
