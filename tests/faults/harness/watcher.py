"""A watcher of a chaos run: opens a stream at any replica and any position, reads a while, goes away, comes back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from flowkeep.errors import from_rpc_error
from flowkeep.v1.execution_service_pb2 import WatchExecutionRequest, WatchExecutionResponse
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.faults.harness.caller import History
from tests.faults.harness.cluster import Replica
from tests.faults.harness.records import Message, Stream

LEFT = "LEFT"


class Watcher:
    """Keeps every message of every stream that it opens."""

    def __init__(
        self,
        name: str,
        replicas: Sequence[Replica],
        history: History,
        draw: random.Random,
        stubs: Mapping[str, Any] | None = None,
        rest: float = 0.0,
    ) -> None:
        self.name = name
        self.streams: list[Stream] = []
        self._replicas = replicas
        self._history = history
        self._draw = draw
        self._rest = rest
        self._stubs = stubs or {replica.name: ExecutionServiceStub(replica.channel()) for replica in replicas}

    def beside(self, name: str) -> Watcher:
        """Return another one, on the same connections, that rests for a second between two executions."""
        return Watcher(name, self._replicas, self._history, self._draw, self._stubs, rest=1.0)

    async def run(self) -> None:
        """Watch one execution after the other until cancelled."""
        while True:
            if not self._history.recent:
                await asyncio.sleep(0.1)
                continue
            await asyncio.sleep(2 * self._rest * self._draw.random())
            execution_id = self._draw.choice(self._history.recent[-20:])
            position = self._start_of(execution_id)
            while True:
                # Some stay long enough to notice that they are told nothing.
                longest = 3.0 if self._draw.random() < 0.8 else 12.0
                stream = await self.watch(execution_id, position, self._draw.uniform(0.1, longest))
                if stream.ended != LEFT:
                    await asyncio.sleep(self._draw.uniform(0.05, 0.3))
                if stream.ended in ("OK", "OUT_OF_RANGE", "NOT_FOUND") or self._draw.random() < 0.3:
                    break
                # Resumes where it stopped, wherever that is.
                position = max([position, *(event[0] for message in stream.messages for event in message.events)])

    async def watch(
        self, execution_id: str, after_seq: int, patience: float, replica: str = "", *, is_final: bool = False
    ) -> Stream:
        """Open one stream, at a replica or any, and return what it gave until it ended or patience did."""
        name = replica or self._draw.choice(list(self._stubs))
        known, opened = self._history.known_seq.get(execution_id, 0), time.monotonic()
        messages: list[Message] = []
        ended, reason = LEFT, ""
        call = self._stubs[name].WatchExecution(WatchExecutionRequest(execution_id=execution_id, after_seq=after_seq))
        try:
            async with asyncio.timeout(patience):
                async for response in call:
                    message = _message(response)
                    messages.append(message)
                    self._learn(execution_id, message)
            ended = "OK"
        except TimeoutError:
            pass
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
            ended, reason = error.code.name, error.reason
        finally:
            call.cancel()
            stream = Stream(
                self.name,
                name,
                execution_id,
                after_seq,
                known,
                opened,
                tuple(messages),
                ended,
                reason,
                closed=time.monotonic(),
                is_final=is_final,
            )
            self.streams.append(stream)
        return stream

    def _start_of(self, execution_id: str) -> int:
        """Return a position from 100 events before what is known to 5 after it; half of them from the beginning."""
        if self._draw.random() < 0.5:
            return 0
        return max(0, self._history.known_seq.get(execution_id, 0) + self._draw.randint(-100, 5))

    def _learn(self, execution_id: str, message: Message) -> None:
        if message.events:
            known = self._history.known_seq.get(execution_id, 0)
            self._history.known_seq[execution_id] = max(known, message.events[-1][0])


def _message(response: WatchExecutionResponse) -> Message:
    events = tuple(
        (event.seq, event.transition_seq, event.SerializeToString(deterministic=True))
        for event in response.events.events
    )
    bookmark = response.bookmark.seq if response.HasField("bookmark") else None
    return Message(time.monotonic(), events, bookmark)
