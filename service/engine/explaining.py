"""Why an execution and its open steps do not move: what is read for it, and what follows from that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

from persistence.errors import NotFoundError
from persistence.listing import StepFilter
from persistence.model import OPEN_STEP_STATES, Execution, Scope, Step, StepState
from persistence.people import Person, Task, TaskFilter
from persistence.processes import Driving
from persistence.repository import Repository
from persistence.waits import Wait, WaitKind
from persistence.workers import ConnectedWorker
from service.engine import obstacles as of
from service.engine import paths
from service.engine.definition import Definition, Delivery
from service.engine.handlers.processes import Processes, processes
from service.engine.handlers.threads import Slots, Threads, threads
from service.engine.obstacles import MOST_NAMED, Obstacle, Room
from service.engine.planning.reopened import finding_earlier
from service.engine.planning.state import newest
from service.engine.queueing import MOST_BEFORE, Queueing, room_of
from service.engine.running.runner import Runner
from service.engine.slices import in_slices
from service.engine.steps import Steps, place_of
from service.engine.wishes import Wishes
from service.engine.workers.lines import WORKERS
from service.engine.workflows import Workflows

MOST_STEPS = 100
"""Open steps that are explained."""

_SLOTS: Mapping[str, Callable[[], Slots]] = {Threads.resource: threads, Processes.resource: processes}
_LOOKS = 3
_OPEN = StepFilter(OPEN_STEP_STATES)
_Holder = tuple[str, UUID, str]
"""Org, execution and path of the step that holds something."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an execution stands where it does, and each of its open steps. Not `is_whole`: there are more."""

    execution: Execution
    obstacles: Sequence[Obstacle]
    steps: Sequence[tuple[Step, Sequence[Obstacle]]]
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read to explain the steps of an execution."""

    execution: Execution
    scope: Scope
    driving: Driving
    definition: Definition
    ended: frozenset[str]
    """Paths of steps before others that have ended."""
    tasks: Mapping[str, Task] = field(default_factory=dict)
    workers: Sequence[ConnectedWorker] = ()
    seen: dict[UUID, bool] = field(default_factory=dict)
    """Whether the caller may see executions that hold what others wait for."""


class Explaining:
    """Explains executions, over one repository; holders of slots are those of this process."""

    def __init__(self, repository: Repository, workflows: Workflows, runner: Runner) -> None:
        self._repository = repository
        self._workflows = workflows
        self._runner = runner
        self._steps = Steps(repository, workflows)
        self.queues = Queueing(repository, runner)
        self._of_waits: Mapping[WaitKind, Callable[[_Known, Step, Wait], Awaitable[Obstacle]]] = {
            WaitKind.TIMER: self._timer,
            WaitKind.RETRY: self._retry,
            WaitKind.SLOT: self._slot,
            WaitKind.WORKER: self._worker,
            WaitKind.TASK: self._task,
            WaitKind.SIGNAL: self._signal,
            WaitKind.BREAKPOINT: self._breakpoint,
        }

    async def explain(self, scope: Scope, execution_id: UUID, person: Person | None) -> Explanation:
        """Return why it does not move. What its tasks say is told to a `person`, as far as that one sees them.

        Raises ExecutionNotFoundError, QueueFullError.
        """
        execution, driving = await self._standing(scope, execution_id)
        if execution.state.is_end:
            return Explanation(execution, [of.ended(execution)], [])
        page = await self._steps.page(scope, execution_id, _OPEN, "", MOST_STEPS, 0)
        again = await self._again(scope, execution, page.definition)
        steps = [*(step for _, step in page.steps), *again]
        if again:
            steps.sort(key=lambda step: place_of(page.definition, step.path))
        is_whole, steps = not page.following and len(steps) <= MOST_STEPS, steps[:MOST_STEPS]
        known = _Known(
            execution,
            scope,
            driving,
            page.definition,
            await self._ended_before(scope, execution_id, page.definition, steps) - {step.path for step in again},
            await self._tasks(person, execution_id, steps),
            await self._workers(scope, steps),
        )
        explained = [(step, [await self._of_step(known, step)]) for step in steps]
        whole = _of_execution(execution, driving, room_of(self._runner, scope.org), has_open=bool(steps))
        if execution.held_back:
            whole = [*await self._of_workflow(scope, execution), *whole]
        return Explanation(execution, whole, explained, is_whole)

    async def _of_workflow(self, scope: Scope, execution: Execution) -> Sequence[Obstacle]:
        """Return that the whole workflow is paused, nothing where it has been resumed since."""
        workflow = await self._repository.get_workflow(Scope(scope.org), str(execution.workflow_id))
        return [] if workflow.pause is None else [of.workflow_paused(workflow, workflow.pause)]

    async def _standing(self, scope: Scope, execution_id: UUID) -> tuple[Execution, Driving]:
        """Return an execution and who drives it, as of a time between which and the look at the other it was nobody
        else, unless that changes all the time.
        """
        execution = await self._repository.get_execution(scope, execution_id)
        driving = await self._repository.who_drives(scope, execution_id, MOST_BEFORE)
        for _ in range(_LOOKS):
            before, execution = execution, await self._repository.get_execution(scope, execution_id)
            if (before.incarnation, before.epoch) == (execution.incarnation, execution.epoch):
                break
            driving = await self._repository.who_drives(scope, execution_id, MOST_BEFORE)
        return execution, driving

    async def _again(self, scope: Scope, execution: Execution, definition: Definition) -> Sequence[Step]:
        """Return the steps of the root that had ended, and run again since the execution was reopened.

        Of what they repeat nothing is there before they begin.
        """
        if not execution.reopened_seq:
            return ()
        found = await self._repository.get_steps(scope, execution.id, list(definition.root.by_id), 0)
        earlier = await in_slices(finding_earlier(definition, newest(found.steps), execution.reopened_seq))
        return [
            Step(step.path, step.handler, StepState.PENDING, step.iteration + 1, position=step.position)
            for step in earlier.values()
        ]

    async def _ended_before(
        self, scope: Scope, execution_id: UUID, definition: Definition, steps: Sequence[Step]
    ) -> frozenset[str]:
        """Return which of the steps that must end before these have ended."""
        unbegun = [step.path for step in steps if step.state is StepState.PENDING]
        before = set(chain.from_iterable(_predecessors(definition, path) for path in unbegun))
        if not before:
            return frozenset()
        found = await self._repository.get_steps(scope, execution_id, sorted(before), 0)
        return frozenset(path for path, step in newest(found.steps).items() if step.state.is_end)

    async def _tasks(self, person: Person | None, execution_id: UUID, steps: Sequence[Step]) -> Mapping[str, Task]:
        ids = frozenset(
            UUID(step.wait.task) for step in steps if step.wait is not None and step.waits_for(WaitKind.TASK)
        )
        if person is None or not ids:
            return {}
        where = TaskFilter(execution_id=execution_id, ids=ids)
        return {str(task.id): task for task in await self._repository.list_tasks(person, where, None, len(ids))}

    async def _workers(self, scope: Scope, steps: Sequence[Step]) -> Sequence[ConnectedWorker]:
        is_asked = any(step.waits_for(WaitKind.WORKER) for step in steps)
        return await self._repository.list_workers(scope.org) if is_asked else ()

    async def _of_step(self, known: _Known, step: Step) -> Obstacle:
        if step.state is StepState.WAITING and step.wait is not None:
            return await self._of_waits[step.wait.kind](known, step, step.wait)
        if step.state is StepState.RUNNING:
            spec = known.definition.find(step.path)
            may_be_stopped = spec is None or spec.delivery is not Delivery.AT_MOST_ONCE
            return of.running(step, known.execution, may_be_stopped=may_be_stopped)
        if of.is_ending(known.execution):
            return of.execution(known.execution)
        before = [path for path in _predecessors(known.definition, step.path) if path not in known.ended]
        return of.predecessors(before) if before else of.execution(known.execution)

    async def _timer(self, known: _Known, step: Step, wait: Wait) -> Obstacle:
        return of.timer(wait, known.execution, known.driving.time)

    async def _retry(self, known: _Known, step: Step, wait: Wait) -> Obstacle:
        return of.retry(step, wait, known.execution, known.driving.time)

    async def _signal(self, known: _Known, step: Step, wait: Wait) -> Obstacle:
        return of.signal(wait)

    async def _breakpoint(self, known: _Known, step: Step, wait: Wait) -> Obstacle:
        return of.breakpoint_of(wait)

    async def _task(self, known: _Known, step: Step, wait: Wait) -> Obstacle:
        return of.task(wait, known.tasks.get(wait.task))

    async def _worker(self, known: _Known, step: Step, wait: Wait) -> Obstacle:
        having = [each for each in known.workers if wait.handler in each.handlers]
        try:
            wishes = Wishes.of(wait.wishes)
        except ValueError:  # written by hand
            return of.worker(wait, len(having), 0)
        fitting = [each for each in having if not each.is_draining and wishes.are_met_by(each.labels, each.version)]
        return of.worker(wait, len(having), len(fitting))

    async def _slot(self, known: _Known, step: Step, wait: Wait) -> Obstacle:
        if known.execution.incarnation != self._runner.incarnation:
            return of.slot(wait, [], 0)
        if wait.resource == WORKERS:
            holding = self._held_by_workers(known.scope.org, step.handler)
        else:
            holding = _holding(wait.resource)
        named = [(execution_id, path) for org, execution_id, path in holding if org == known.scope.org][:MOST_NAMED]
        seen = [each for each in named if await self._is_seen(known, each[0])]
        return of.slot(wait, seen, len(holding) - len(seen))

    def _held_by_workers(self, org: str, handler: str) -> Sequence[_Holder]:
        """Return what the workers of this process run that have a handler."""
        having = (each for each in self._runner.context.workers.of(org) if handler in each.handlers)
        return [
            (org, attempt.execution_id, attempt.path)
            for worker in having
            for attempt in (*worker.assigned, *worker.relayed)
        ]

    async def _is_seen(self, known: _Known, execution_id: UUID) -> bool:
        if execution_id not in known.seen:
            try:
                await self._repository.get_execution(known.scope, execution_id)
            except NotFoundError:
                known.seen[execution_id] = False
            else:
                known.seen[execution_id] = True
        return known.seen[execution_id]


def _of_execution(execution: Execution, driving: Driving, room: Room, *, has_open: bool) -> list[Obstacle]:
    """Return what holds an execution as a whole: first what somebody decided, then where it is driven."""
    found = []
    if execution.pause is not None:
        is_put_off = execution.start_time is not None and execution.ending is None and not has_open
        found.append(of.paused(execution.pause, is_put_off=is_put_off))
    if of.is_ending(execution):
        found.append(of.ending(execution))
    is_unbegun = execution.start_time is None
    if is_unbegun and execution.scheduled_time is not None and execution.scheduled_time > driving.time:
        found.append(of.start_delay(execution, execution.scheduled_time))
    elif execution.incarnation is not None:
        found.append(of.server(driving))
    elif execution.held_back:
        pass  # its workflow is told of
    elif execution.wake_time is not None and execution.wake_time > driving.time:
        has_deadline = not is_unbegun and not (execution.pause is not None and execution.pause.stops_deadline)
        if execution.pause is None or has_deadline:  # else only a resume moves it
            found.append(of.parked(execution.wake_time))
    else:
        found.append(of.queue(execution, driving.before, MOST_BEFORE))
        found.append(of.servers(driving.servers, room))
    return found


def _holding(resource: str) -> Sequence[_Holder]:
    """Return which attempts hold what there is of a resource of this process."""
    slots = _SLOTS.get(resource)
    attempts = [] if slots is None else [place.attempt for place in slots().running if place.attempt is not None]
    return [(each.org, each.execution_id, each.path) for each in attempts]


def _predecessors(definition: Definition, path: str) -> Sequence[str]:
    """Return the paths of the steps that must have ended before the step at `path` may begin."""
    scope, step_id = paths.split(path)
    block = definition.blocks.get(paths.place(scope))
    return [paths.join(scope, each) for each in block.predecessors.get(step_id, ())] if block else []
