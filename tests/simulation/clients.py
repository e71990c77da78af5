"""Callers of the simulated replicas: they repeat what they do not know the fate of, and watch."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from persistence.errors import (
    CursorAheadError,
    CursorExpiredError,
    ExecutionFinishedError,
    ExecutionStateError,
    NotFoundError,
    PersistenceError,
    QueueFullError,
    TaskEndedError,
    UnavailableError,
)
from persistence.model import Event, ExecutionState, MessageKind, Scope, WaitKind
from persistence.people import Person, Task
from service.engine.requests import StartRequest
from service.engine.violations import ValidationError
from service.engine.watch import Bookmark, Output, ShuttingDownError
from tests.simulation.dry_running import dry_run
from tests.simulation.editing import VARIABLE
from tests.simulation.history import Answer, Stream
from tests.simulation.scenario import OrderSpec, Request
from tests.simulation.signalling import NAME

if TYPE_CHECKING:
    from tests.simulation.world import World

OWNER = "ann"
PERSON = "bob"
LOOK = 0.1
"""Seconds between looks for what steps ask of people."""
PATIENCE = 3.0
UNKNOWN = (UnavailableError, ConnectionError, TimeoutError, QueueFullError, ShuttingDownError)


async def rest(random: Random) -> None:
    """Return a while after a call of which nobody knows what became of it, before it is made again."""
    await asyncio.sleep(0.1 + 0.4 * random.random())


class Clients:
    """All callers; what they were told goes into the history."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._made: dict[int, asyncio.Event] = {}
        self.ids: dict[int, UUID] = {}

    async def request(self, request: Request) -> None:
        """Execute an order, again and again until the answer is definite."""
        world = self._world
        await world.until(request.time)
        spec = world.scenario.orders[request.order]
        scope = Scope(self._org(spec))
        order = self._order(request, spec)
        at = request.replica
        while True:
            answer = Answer("execute", request.order, 0.0, "", is_changed=request.is_changed)
            try:
                created = await self.ask(at, lambda replica: replica.executions.execute(scope, OWNER, order))
            except UNKNOWN as error:
                answer.outcome, answer.detail = "unknown", repr(error)
            except (PersistenceError, ValidationError) as error:
                answer.outcome, answer.detail = "definite", repr(error)
            else:
                answer.outcome, answer.execution_id = "ok", created.execution.id
                answer.detail = "created" if created.created else "existed"
                if not request.is_changed:
                    self.ids[request.order] = created.execution.id
            self.told(answer)
            if answer.execution_id is not None:
                await self._read_own_write(scope, answer.execution_id)
            if answer.outcome != "unknown":
                if not request.is_changed:
                    self._event(request.order).set()
                return
            await rest(self._random)
            at = self._random.randrange(world.scenario.replicas)

    async def _read_own_write(self, scope: Scope, execution_id: UUID) -> None:
        """Read what was just acknowledged, at any replica."""
        at = self._random.randrange(self._world.scenario.replicas)
        try:
            await self.ask(at, lambda replica: replica.runner.context.journal.get_execution(scope, execution_id))
        except UNKNOWN:
            return
        except NotFoundError as error:
            self._world.history.problems.append(f"EX6: {error!r} right after the acknowledgement")

    async def cancel(self, number: int, spec: OrderSpec) -> None:
        """Cancel an execution some time after it is known."""
        await self.known(number)
        if number not in self.ids:
            return  # it was refused: somebody else used its request id
        assert spec.cancel_at is not None
        await asyncio.sleep(spec.cancel_at)
        execution_id, scope = self.ids[number], Scope(self._org(spec))
        await self._definite(
            Answer("cancel", number, 0.0, "", execution_id),
            lambda replica: replica.executions.cancel(scope, execution_id, OWNER, "enough"),
            lambda detail: detail.execution.state.value,
            ExecutionFinishedError,
        )

    async def pause(self, number: int, spec: OrderSpec) -> None:
        """Pause an execution some time after it is known, and resume it."""
        await self.known(number)
        if number not in self.ids:
            return
        assert spec.paused_at is not None
        await asyncio.sleep(spec.paused_at)
        await self._control(number, spec, MessageKind.PAUSE, {"hard": spec.is_hard})
        await asyncio.sleep(spec.paused_for)
        await self._control(number, spec, MessageKind.RESUME, {})

    async def debug(self, number: int, spec: OrderSpec) -> None:
        """Hold an execution before each step for a while, change what it is called with, and let it go in the end."""
        await self.known(number)
        if number not in self.ids:
            return
        tables, execution_id = self._world.database.tables, self.ids[number]
        await self._control(number, spec, MessageKind.BREAKPOINTS, {"breakpoints": [{"path": "*"}]}, "all")
        for place, span in enumerate(spec.debugged):
            await asyncio.sleep(span)
            row = tables.executions[execution_id]
            pause = row.execution.pause
            for step in list(row.steps.values()):
                if pause is not None and step.waits_for(WaitKind.BREAKPOINT) and step.is_fixed and spec.edits_inputs:
                    given = {**step.input, "reports": place}
                    edited = {"path": step.path, "input": given, "pause_seq": pause.seq}
                    await self._control(number, spec, MessageKind.EDIT, edited, f"{step.path}-{place}")
            if pause is not None and spec.edits_variables:
                await self._set(number, spec, 100 + place)
            await self._control(number, spec, MessageKind.RESUME, {"step_over": True}, str(place))
        await self._control(number, spec, MessageKind.BREAKPOINTS, {"breakpoints": []}, "none")
        for place in itertools.count(len(spec.debugged)):
            state = tables.executions[execution_id].execution.state
            if state.is_end:
                return
            if state is ExecutionState.PAUSED:
                await self._control(number, spec, MessageKind.RESUME, {}, str(place))
            await asyncio.sleep(LOOK)

    async def _set(self, number: int, spec: OrderSpec, value: int) -> None:
        """Set the variable that steps are called with, once there is one."""
        execution_id, scope = self.ids[number], Scope(self._org(spec))
        await self._definite(
            Answer("set", number, 0.0, "", execution_id),
            lambda replica: replica.debugging.edit_variables(
                scope, execution_id, {VARIABLE: value}, OWNER, f"set-{execution_id}-{value}"
            ),
            lambda _: str(value),
            *(ExecutionFinishedError, ExecutionStateError, ValidationError),
        )

    async def _control(
        self, number: int, spec: OrderSpec, kind: MessageKind, body: Mapping[str, Any], place: str = ""
    ) -> None:
        execution_id, scope, name = self.ids[number], Scope(self._org(spec)), kind.value.lower()
        await self._definite(
            Answer(name, number, 0.0, "", execution_id),
            lambda replica: replica.control.ask(
                scope, execution_id, kind, OWNER, body, f"{name}-{execution_id}-{place}"
            ),
            lambda execution: execution.state.value,
            *(ExecutionFinishedError, ExecutionStateError),
        )

    async def signal(self, number: int, spec: OrderSpec) -> None:
        """Send an execution signals, one after the other."""
        await self.known(number)
        if number not in self.ids:
            return
        execution_id, scope = self.ids[number], Scope(self._org(spec))
        for place, pause in enumerate(spec.signals):
            await asyncio.sleep(pause)
            request_id = f"signal-{execution_id}-{place}"
            is_kept = await self._definite(
                Answer("signal", number, 0.0, "", execution_id),
                lambda replica, request_id=request_id: replica.signalling.send(
                    scope, execution_id, NAME, {}, OWNER, request_id
                ),
                lambda sent: str(sent[1]),
                *(ExecutionFinishedError, ExecutionStateError),
            )
            if not is_kept:
                return

    async def answer(self, number: int, patience: float) -> None:
        """Do what the steps of an execution ask of people, each task after a while, until it has ended."""
        await self.known(number)
        if number not in self.ids:
            return
        execution_id, tables, seen = self.ids[number], self._world.database.tables, set[UUID]()
        while not tables.executions[execution_id].execution.state.is_end:
            fresh = [
                each for each in tables.tasks.values() if each.execution_id == execution_id and each.id not in seen
            ]
            for task in fresh:
                seen.add(task.id)
                await asyncio.sleep(patience)
                await self._complete(number, task)
            await asyncio.sleep(LOOK)

    async def _complete(self, number: int, task: Task) -> None:
        person, outcome = Person(task.org, PERSON), self._random.choice(task.outcomes)
        asked = Answer("complete", number, 0.0, "", task.execution_id, outcome)
        asked.path, asked.iteration = task.path, task.iteration
        await self._definite(
            asked,
            lambda replica: replica.people.complete(person, task.id, outcome, {}, "", f"answer-{task.id}"),
            lambda _: outcome,
            TaskEndedError,
        )

    async def _definite(
        self, asked: Answer, make: Any, detail: Callable[[Any], str], *refusals: type[Exception]
    ) -> bool:
        """Ask, any replica each time, until the answer is definite; return whether it is no refusal."""
        while True:
            answer = replace(asked, outcome="ok")
            at = self._random.randrange(self._world.scenario.replicas)
            try:
                answer.detail = detail(await self.ask(at, make))
            except UNKNOWN as error:
                answer.outcome, answer.detail = "unknown", repr(error)
            except refusals as error:
                answer.outcome, answer.detail = "definite", repr(error)
            self.told(answer)
            if answer.outcome != "unknown":
                return answer.outcome == "ok"
            await rest(self._random)

    async def watch(self, number: int, spec: OrderSpec) -> None:
        """Watch an execution to its end, cutting the connection at random and going on at another replica."""
        await self.known(number)
        if number not in self.ids:
            return
        stream = Stream(number, self.ids[number])
        self._world.history.streams.append(stream)
        scope = Scope(self._org(spec))
        while not stream.has_ended:
            at = self._random.randrange(self._world.scenario.replicas)
            patience = self._random.choice((0.2, 1.0, 5.0, 1_000.0))
            stream.connections += 1
            try:
                await self.ask(at, lambda replica: self._follow(replica, scope, stream), patience)
            except UNKNOWN:
                await asyncio.sleep(0.05 + 0.3 * self._random.random())
            except (NotFoundError, CursorAheadError, CursorExpiredError) as error:
                stream.problems.append(f"I11: {error!r} after {len(stream.events)} events")
                return

    async def _follow(self, replica: Any, scope: Scope, stream: Stream) -> None:
        cursor = len(stream.events)
        connection = stream.connections
        async with aclosing(replica.executions.watch(scope, stream.execution_id, cursor)) as parts:
            async for part in parts:
                if stream.connections != connection:
                    return  # the caller has gone on elsewhere
                match part:
                    case Bookmark(seq):
                        if seq != len(stream.events):
                            stream.problems.append(f"I11: bookmark {seq} after event {len(stream.events)} (W6)")
                    case Output():
                        pass
                    case _:
                        self._received(stream, list(part))
        stream.has_ended = stream.connections == connection

    def _received(self, stream: Stream, events: list[Event]) -> None:
        row = self._world.database.tables.executions.get(stream.execution_id)
        for event in events:
            if event.seq != len(stream.events) + 1:
                stream.problems.append(f"I11: event {event.seq} after {len(stream.events)} (W1-W3)")
            if row is None or len(row.events) < event.seq or row.events[event.seq - 1] != event:
                stream.problems.append(f"I11: event {event.seq} was sent and is not durable as it was sent (W10)")
            stream.events.append(event)
        if events and events[-1].seq != events[-1].transition_seq:
            stream.problems.append(f"I11: a transition is torn after event {events[-1].seq} (W4)")

    async def known(self, number: int) -> None:
        """Return when the one who wants an execution knows it, or knows that there will be none."""
        await self._event(number).wait()

    async def ask(self, at: int, make: Any, patience: float = PATIENCE) -> Any:
        """Let a replica do something and return its answer. Raises what it raises, and what is UNKNOWN."""
        replica = self._world.replicas[at]
        async with asyncio.timeout(patience):
            return await replica.call(lambda: make(replica))

    def told(self, answer: Answer) -> None:
        """Write down what a caller was told."""
        answer.time = self._world.loop.time()
        self._world.history.answers.append(answer)
        self._world.history.note(answer.time, "client", answer.kind, answer.order, answer.outcome, answer.detail)

    def _event(self, number: int) -> asyncio.Event:
        return self._made.setdefault(number, asyncio.Event())

    def _org(self, spec: OrderSpec) -> str:
        return self._world.scenario.workflows[spec.workflow].org

    def _order(self, request: Request, spec: OrderSpec) -> StartRequest:
        document, fails = self._world.scenario.workflows[spec.workflow].document, spec.mocks_fail
        return StartRequest(
            workflow=document["name"],
            input={**spec.input, "changed": True} if request.is_changed else spec.input,
            request_id=f"request-{request.order}",
            correlation_id=f"order-{request.order}",
            start_delay=spec.start_delay,
            timeout=spec.timeout,
            priority=spec.priority,
            dry_run=None if fails is None else dry_run(document, fails, skips_waits=spec.skips_waits),
        )
