"""Watching an execution over all that happens to its server, and what must hold of every history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from itertools import pairwise

from flowkeep import Client, Execution, ExecutionEvent
from tests.patience import PATIENCE

_ENDS_OF_STEPS = {"step_completed", "step_failed", "step_skipped", "step_cancelled"}


class Watcher:
    """One watch, opened once, with the events that it gave so far."""

    def __init__(self, client: Client, execution_id: str) -> None:
        self.execution_id = execution_id
        self.events: list[ExecutionEvent] = []
        self._more = asyncio.Condition()
        self._task = asyncio.create_task(self._follow(client, execution_id))

    async def until(self, kind: str, path: str = "") -> ExecutionEvent:
        """Return the first event of a kind, of a step if a path is given, as soon as it has come."""

        def find() -> ExecutionEvent | None:
            return next((event for event in self.events if is_of(event, kind, path)), None)

        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: find() is not None or self._task.done())
        found = find()
        assert found is not None, f"the watch ended without {kind} {path}: {self.events}"
        return found

    async def ended(self) -> list[ExecutionEvent]:
        """Return all events when the watch has ended."""
        async with asyncio.timeout(PATIENCE):
            await self._task
        return self.events

    async def _follow(self, client: Client, execution_id: str) -> None:
        async with aclosing(client.watch(execution_id)) as events:
            async for event in events:
                async with self._more:
                    self.events.append(event)
                    self._more.notify_all()


async def ended(client: Client, execution_id: str) -> Execution:
    """Follow an execution to its end through whatever happens to its server, and return it."""
    async for _ in client.watch(execution_id):
        pass
    return await client.get_execution(execution_id)


def is_of(event: ExecutionEvent, kind: str, path: str = "") -> bool:
    """Return whether an event is of a kind, and of a step if a path is given."""
    return event.WhichOneof("kind") == kind and (not path or getattr(event, kind).path == path)


def paths(events: Sequence[ExecutionEvent], kind: str) -> list[str]:
    """Return the paths of the steps of all events of a kind, in their order."""
    return [getattr(event, kind).path for event in events if is_of(event, kind)]


async def fresh_watch(client: Client, execution_id: str) -> list[ExecutionEvent]:
    """Return the events as a watch from the beginning gives them."""
    async with asyncio.timeout(PATIENCE), aclosing(client.watch(execution_id)) as events:
        return [event async for event in events]


def check_history(events: Sequence[ExecutionEvent]) -> None:
    """Assert what holds of the history of every execution that has ended: W1, W2, W3, ST2, ST3, CA2."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    _check_transitions(events)
    assert [event.seq for event in events if event.HasField("finished")] == [len(events)]
    assert all(before.progress_percent <= after.progress_percent for before, after in pairwise(events))
    ended: set[str] = set()
    for event in events:
        kind = event.WhichOneof("kind") or ""
        if kind.startswith("step_"):
            path = getattr(event, kind).path
            assert path not in ended, f"event {event.seq}, {kind}, comes after the end of step {path}"
            if kind in _ENDS_OF_STEPS:
                ended.add(path)


def _check_transitions(events: Sequence[ExecutionEvent]) -> None:
    for before, after in pairwise(events):
        is_last = before.seq == before.transition_seq
        assert is_last or before.transition_seq == after.transition_seq
    assert events[-1].seq == events[-1].transition_seq


async def check_watch(client: Client, watcher: Watcher) -> list[ExecutionEvent]:
    """Assert that a watch which lived through everything gave each event once, as a fresh one does; return them."""
    events = await watcher.ended()
    check_history(events)
    assert events == await fresh_watch(client, watcher.execution_id)
    return events
