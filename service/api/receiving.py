"""How requests are received: so many at a time, in all and per connection, and each within a time.

A request that is being received holds up to 4 MiB that nobody has asked for yet. One that arrives whole, as nearly all
do, has its turn for a fraction of a millisecond. When all turns are taken, an org that has fewer takes one from the org
that has most, and so do its identities among each other, and their connections. Otherwise the newest waits least, since
what came long ago and is not here yet is probably never to come. What has not been read waits with gRPC, 64 KiB of it
at most.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from grpc import StatusCode
from grpc.aio import EOF

from flowkeep.v1.error_pb2 import ErrorReason
from service.api.errors import Refusal, RefusedError

MOST_WAITING = 1_000
"""Requests that wait for their turn; beyond, the org of which most wait loses the one that came first."""

_LOOK = 0.25
"""Seconds between looks at those that are late."""

Key = TypeVar("Key")
Party: TypeAlias = tuple[str, ...]
"""Of whom a request comes, the widest group first: org, subject, connection; or that alone, where nobody is known."""


def this_task() -> asyncio.Task[Any]:
    """Return the task that the current call runs in."""
    return asyncio.current_task()  # type: ignore[return-value]  # each call has one


@dataclass(eq=False, slots=True)
class _Arrival:
    """A request that is being received, or waits for that."""

    task: asyncio.Task[Any]
    party: Party
    since: float
    turn: asyncio.Future[None] | None = None
    refusal: RefusedError | None = None


@dataclass(eq=False, slots=True)
class Receiving:
    """The requests that are being received, each for `patience` seconds, and for `give_way` while others wait."""

    most: int = 16
    most_per_connection: int = 8
    patience: float = 10.0
    give_way: float = 1.0
    _held: dict[_Arrival, None] = field(default_factory=dict)
    _turns: Counter[Party] = field(default_factory=Counter)
    # The newest last, in both: all that wait by their widest group, and by the whole party.
    _waiting: dict[str, dict[_Arrival, None]] = field(default_factory=dict)
    _queues: dict[Party, dict[_Arrival, None]] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    async def request(self, context: Any, *party: str) -> Any:
        """Return the request of a call, None if its client sends none. Raises RefusedError for one that is late."""
        task = this_task()
        loop = task.get_loop()
        arrival = _Arrival(task, party, loop.time())
        if self._timer is None:
            self._start_looking(loop)
        try:
            if not self._takes_turn(arrival):
                arrival.turn = loop.create_future()
                await arrival.turn
            message = await context.read()
        except asyncio.CancelledError:
            if arrival.refusal is None or task.uncancel():
                raise
            raise arrival.refusal from None
        finally:
            self._leave(arrival)
        return None if message is EOF else message

    def _takes_turn(self, arrival: _Arrival) -> bool:
        if self._has_room(arrival.party):
            self._hold(arrival)
            return True
        loser = self._loser(arrival.party) if len(self._held) >= self.most else None
        if loser is None:
            self._wait(arrival)
            return False
        # In this order: a turn that is free goes to one that waits.
        self._hold(arrival)
        self._refuse(loser, self._crowded())
        return True

    def _loser(self, party: Party) -> _Arrival | None:
        """Return the first request of the group that has at least two turns more than the party's own beside it."""
        for size in range(1, len(party) + 1):
            beside = (each.party[:size] for each in self._held if each.party[: size - 1] == party[: size - 1])
            turns = Counter(beside)
            busiest, most = max(turns.items(), key=lambda item: item[1], default=((), 0))
            if turns[party[:size]] + 2 <= most:
                return next(each for each in self._held if each.party[:size] == busiest)
        return None

    def _has_room(self, party: Party) -> bool:
        return len(self._held) < self.most and self._turns[party] < self.most_per_connection

    def _hold(self, arrival: _Arrival) -> None:
        self._held[arrival] = None
        self._turns[arrival.party] += 1

    def _wait(self, arrival: _Arrival) -> None:
        if sum(map(len, self._waiting.values())) >= MOST_WAITING:
            longest = max(self._waiting.values(), key=len)
            self._refuse(next(iter(longest)), self._crowded())
        self._waiting.setdefault(arrival.party[0], {})[arrival] = None
        queue = self._queues.pop(arrival.party, {})
        queue[arrival] = None
        self._queues[arrival.party] = queue

    def _wait_no_more(self, arrival: _Arrival) -> None:
        _remove(arrival, self._waiting, arrival.party[0])
        _remove(arrival, self._queues, arrival.party)

    def _leave(self, arrival: _Arrival) -> None:
        """Forget a request, and let one of those that wait have its turn."""
        if arrival in self._waiting.get(arrival.party[0], ()):
            self._wait_no_more(arrival)
        if arrival not in self._held:
            return
        del self._held[arrival]
        self._turns[arrival.party] -= 1
        if not self._turns[arrival.party]:
            del self._turns[arrival.party]
        if self._queues:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give a turn to the newest of the org, identity and connection that have fewest."""
        turns = Counter(group for each in self._held for group in _groups(each.party))
        free = filter(self._has_room, reversed(self._queues))
        party = min(free, key=lambda party: [turns[group] for group in _groups(party)], default=None)
        if party is not None:
            self._give_turn(next(reversed(self._queues[party])))

    def _give_turn(self, arrival: _Arrival) -> None:
        self._wait_no_more(arrival)
        self._hold(arrival)
        if arrival.turn is not None and not arrival.turn.done():
            arrival.turn.set_result(None)

    def _refuse(self, arrival: _Arrival, refusal: RefusedError) -> None:
        arrival.refusal = refusal
        arrival.task.cancel()
        self._leave(arrival)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for arrival in [each for each in self._held if now - each.since >= self.patience]:
            self._refuse(arrival, self._late())
        waiting = [each for queue in self._waiting.values() for each in queue]
        for arrival in [each for each in waiting if now - each.since >= self.patience]:
            self._refuse(arrival, self._crowded())
        for arrival in [each for each in self._held if now - each.since >= min(self.give_way, self.patience)]:
            if arrival in self._held and self._is_waited_for(arrival):
                self._refuse(arrival, self._crowded())
        self._timer = None
        if self._held or self._queues:
            self._start_looking(loop)

    def _start_looking(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._pause(), self._look, loop, context=Context())

    def _pause(self) -> float:
        return min(_LOOK, self.give_way / 2)

    def _is_waited_for(self, arrival: _Arrival) -> bool:
        """Whether one that waits could be received instead, and is not of an org that has more turns already."""
        turns = Counter(each.party[0] for each in self._held)
        own = turns[arrival.party[0]]
        return arrival.party in self._queues or any(
            self._turns[party] < self.most_per_connection and (party[0] == arrival.party[0] or turns[party[0]] < own)
            for party in self._queues
        )

    def _crowded(self) -> RefusedError:
        text = f"this server receives {self.most} requests at a time, and this one had not arrived; try again later"
        reason = ErrorReason.ERROR_REASON_QUEUE_FULL
        return RefusedError(
            Refusal(StatusCode.RESOURCE_EXHAUSTED, reason, text, {"limit": str(self.most)}, retry_after=1.0)
        )

    def _late(self) -> RefusedError:
        text = f"the request had not arrived after {self.patience:g} s; nothing was begun"
        metadata = {"seconds": f"{self.patience:g}"}
        reason = ErrorReason.ERROR_REASON_REQUEST_TOO_SLOW
        return RefusedError(Refusal(StatusCode.RESOURCE_EXHAUSTED, reason, text, metadata, retry_after=1.0))


def _groups(party: Party) -> Iterator[Party]:
    """Yield the party's groups, the widest first, and the party itself."""
    return (party[:size] for size in range(1, len(party) + 1))


def _remove(arrival: _Arrival, queues: dict[Key, dict[_Arrival, None]], key: Key) -> None:
    del queues[key][arrival]
    if not queues[key]:
        del queues[key]
