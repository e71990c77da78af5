"""Why executions wait for a server with room: their place, the servers that there are, and the room of this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from persistence.model import Execution, Scope
from persistence.repository import Repository
from service.engine import obstacles as of
from service.engine.obstacles import Obstacle, Room
from service.engine.running.runner import Runner

MOST_BEFORE = 1_000
"""Executions that are counted before one of them."""

DEEPEST = 10_000
"""Executions of an org that are looked at to find those of a workflow."""


@dataclass(frozen=True, slots=True)
class QueueExplanation:
    """The executions of a workflow that wait for a server, each with why, and what holds all. Not `is_whole`: there may
    be more."""

    executions: Sequence[tuple[Execution, Sequence[Obstacle]]]
    obstacles: Sequence[Obstacle]
    is_whole: bool


class Queueing:
    """Explains the queues of workflows, over one repository."""

    def __init__(self, repository: Repository, runner: Runner) -> None:
        self._repository = repository
        self._runner = runner

    async def explain(self, scope: Scope, workflow: str, limit: int) -> QueueExplanation:
        """Return up to `limit` executions of a workflow, by id or name, that wait for a server, and why they do.

        Raises WorkflowNotFoundError, QueueFullError.
        """
        found = await self._repository.get_workflow(scope, workflow)
        queue = await self._repository.queue(scope, found.id, limit, DEEPEST)
        paused = [] if found.pause is None else [of.workflow_paused(found, found.pause)]
        waiting = [(each, [of.queue(each, before, DEEPEST)]) for each, before in queue.waiting]
        if not waiting and queue.is_whole:
            return QueueExplanation([], [*paused, of.empty()], is_whole=True)
        servers = of.servers(queue.servers, room_of(self._runner, scope.org))
        return QueueExplanation(waiting, [*paused, servers], queue.is_whole)


def room_of(runner: Runner, org: str) -> Room:
    """Return whether this process takes executions, and of an org."""
    runs = runner.runs
    room = runs.room
    has_room_for_org = room > 0 and org not in runs.full and runs.shares.room(org) > 0
    return Room(runner.name, room > 0, has_room_for_org, runs.shares.held_by(org))
