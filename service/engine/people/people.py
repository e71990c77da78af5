"""What the service does with tasks of people, over one repository and one runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from persistence.people import Act, Claim, Complete, Delegate, Person, Release, Remark, Task, TaskFilter, TaskRepository
from persistence.requests import Method
from service.engine.payload import normalising
from service.engine.people.asking import judging_values
from service.engine.requests import asked
from service.engine.running.runner import Runner
from service.engine.schema import locate
from service.engine.slices import in_one_go, in_slices
from service.engine.violations import ValidationError, Violation
from service.engine.watch import Pace, ShuttingDownError

WATCHED = 2_000
"""Tasks that one watches at a time."""

PAGE = 100
"""Tasks that are read and given at a time."""

_METHODS: Mapping[type[Act], Method] = {
    Claim: Method.CLAIM_TASK,
    Release: Method.RELEASE_TASK,
    Complete: Method.COMPLETE_TASK,
    Delegate: Method.DELEGATE_TASK,
    Remark: Method.COMMENT_TASK,
}


@dataclass(frozen=True, slots=True)
class News:
    """Tasks that are new to one who watches, or have changed, and ids of those that are gone; or a sign of life."""

    tasks: Sequence[Task] = ()
    gone: Sequence[UUID] = ()


class People:
    """Lets people work on tasks. What a person does not see raises TaskNotFoundError."""

    def __init__(self, repository: TaskRepository, runner: Runner, pace: Pace) -> None:
        self._repository = repository
        self._runner = runner
        self._hub = runner.context.hub
        self._pace = pace

    async def act(self, person: Person, task_id: UUID, act: Act, request_id: str = "") -> Task:
        """Let a person act on a task, and return it after that.

        Raises TaskNotFoundError, TaskEndedError, TaskClaimedError, TaskNotAssignedError, RequestIdReusedError.
        """
        content = {"task_id": str(task_id), **asdict(act)}
        request = in_one_go(asked(_METHODS[type(act)], request_id, person.subject, **content))
        done = await self._repository.act(person, task_id, act, request)
        self._hub.people.tell()
        if done.posted is not None:
            delivery = self._runner.hand_in(done.posted, to_the_end=False)
            # Whoever takes an execution has to drive it, also when the caller has gone in between.
            await asyncio.shield(self._runner.tasks.spawn(delivery, f"task {task_id}"))
        return done.task

    async def complete(
        self, person: Person, task_id: UUID, outcome: str, values: Mapping[str, Any], comment: str, request_id: str = ""
    ) -> Task:
        """End a task with an outcome, empty for the only one, and values that meet its form.

        Raises as `act`, and ValidationError with paths such as `values.amount`.
        """
        task = await self._repository.get_task(person, task_id)  # its outcomes and its form never change
        values = await in_slices(normalising(dict(values), "values"))
        found = await in_slices(judging_values(task.form, values))
        wrong = [Violation(locate("values", path), text) for path, text in found]
        if not outcome and len(task.outcomes) == 1:
            outcome = task.outcomes[0]
        if outcome not in task.outcomes:
            wrong.append(Violation("outcome", f"must be one of {', '.join(task.outcomes)}"))
        act = Complete(outcome, values or None, comment)
        if wrong and not task.state.is_end:
            raise ValidationError(wrong)
        return await self.act(person, task_id, act, request_id)

    async def watch(self, person: Person, where: TaskFilter) -> AsyncGenerator[News, None]:
        """Give the newest tasks that meet the filter, then what changes; never ends. Raises ShuttingDownError."""
        known: dict[UUID, int] = {}
        """Versions of what was given."""
        clock = asyncio.get_running_loop().time
        spoken: float | None = None
        with self._hub.people.listening() as listener:
            while True:
                found = await self._repository.task_versions(person, where, WATCHED)
                gone = [task_id for task_id in known if task_id not in found]
                changed = [task_id for task_id, version in found.items() if known.get(task_id) != version]
                for task_id in gone:
                    del known[task_id]
                # What has gone before it is read is told of at the next look.
                for start in range(0, len(changed), PAGE):
                    page = replace(where, ids=frozenset(changed[start : start + PAGE]))
                    tasks = await self._repository.list_tasks(person, page, None, PAGE)
                    known.update((task.id, task.version) for task in tasks)
                    if tasks:
                        spoken = clock()
                        yield News(tasks, gone)
                        gone = []
                if gone or spoken is None or clock() - spoken >= self._pace.bookmark:
                    spoken = clock()
                    yield News((), gone)
                if self._hub.is_closed:
                    raise ShuttingDownError
                await listener.wait(self._pace.poll)
