"""How requests are received: so many at a time, in all and per connection, and each within a time.

A request that is being received holds up to 4 MiB that nobody has asked for yet. One that arrives whole, as nearly all
do, has its turn for a fraction of a millisecond. When all turns are taken, a connection that has fewer takes one from
the connection that has most; otherwise the newest waits least, since what came long ago and is not here yet is
probably never to come. What has not been read waits with gRPC, 64 KiB of it at most.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from grpc import StatusCode
from grpc.aio import EOF

from flowkeep.v1.error_pb2 import ErrorReason
from service.api.errors import Refusal, RefusedError

MOST_WAITING = 1_000
"""Requests that wait for their turn; beyond, the connection of which most wait loses the one that came first."""

_LOOK = 0.25
"""Seconds between looks at those that are late."""


def this_task() -> asyncio.Task[Any]:
    """Return the task that the current call runs in."""
    return asyncio.current_task()  # type: ignore[return-value]  # each call has one


@dataclass(eq=False, slots=True)
class _Arrival:
    """A request that is being received, or waits for that."""

    task: asyncio.Task[Any]
    connection: str
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
    _per_connection: dict[str, int] = field(default_factory=dict)
    _waiting: dict[_Arrival, None] = field(default_factory=dict)
    # By connection, the newest last, as in all the others: a thousand may wait, of a few connections.
    _queues: dict[str, dict[_Arrival, None]] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    async def request(self, context: Any, connection: str) -> Any:
        """Return the request of a call, None if its client sends none. Raises RefusedError for one that is late."""
        loop = asyncio.get_running_loop()
        task = this_task()
        arrival = _Arrival(task, connection, loop.time())
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
        if self._has_room(arrival.connection):
            self._hold(arrival)
            return True
        busiest, most = max(self._per_connection.items(), key=lambda item: item[1])
        if len(self._held) < self.most or self._per_connection.get(arrival.connection, 0) + 2 > most:
            self._wait(arrival)
            return False
        # In this order: a turn that is free goes to one that waits.
        self._hold(arrival)
        self._refuse(next(each for each in self._held if each.connection == busiest), self._crowded())
        return True

    def _has_room(self, connection: str) -> bool:
        return len(self._held) < self.most and self._per_connection.get(connection, 0) < self.most_per_connection

    def _hold(self, arrival: _Arrival) -> None:
        self._held[arrival] = None
        self._per_connection[arrival.connection] = self._per_connection.get(arrival.connection, 0) + 1

    def _wait(self, arrival: _Arrival) -> None:
        if len(self._waiting) >= MOST_WAITING:
            longest = max(self._queues.values(), key=len)
            self._refuse(next(iter(longest)), self._crowded())
        queue = self._queues.pop(arrival.connection, {})
        queue[arrival] = self._waiting[arrival] = None
        self._queues[arrival.connection] = queue

    def _wait_no_more(self, arrival: _Arrival) -> None:
        del self._waiting[arrival]
        queue = self._queues[arrival.connection]
        del queue[arrival]
        if not queue:
            del self._queues[arrival.connection]

    def _leave(self, arrival: _Arrival) -> None:
        """Forget a request, and let the newest of those that wait have its turn."""
        if self._waiting and arrival in self._waiting:
            self._wait_no_more(arrival)
        if arrival not in self._held:
            return
        del self._held[arrival]
        others = self._per_connection[arrival.connection] - 1
        if others:
            self._per_connection[arrival.connection] = others
        else:
            del self._per_connection[arrival.connection]
        if self._queues:
            self._pass_on()

    def _pass_on(self) -> None:
        connection = next(filter(self._has_room, reversed(self._queues)), None)
        if connection is not None:
            self._give_turn(next(reversed(self._queues[connection])))

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
        for arrival in [each for each in self._waiting if now - each.since >= self.patience]:
            self._refuse(arrival, self._crowded())
        for arrival in [each for each in self._held if now - each.since >= min(self.give_way, self.patience)]:
            if arrival in self._held and self._is_waited_for(arrival):
                self._refuse(arrival, self._crowded())
        self._timer = None
        if self._held or self._waiting:
            self._start_looking(loop)

    def _start_looking(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._pause(), self._look, loop, context=Context())

    def _pause(self) -> float:
        return min(_LOOK, self.give_way / 2)

    def _is_waited_for(self, arrival: _Arrival) -> bool:
        """Whether one that waits could be received instead."""
        most = self.most_per_connection
        return arrival.connection in self._queues or any(
            self._per_connection.get(each, 0) < most for each in self._queues
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
