"""Who starts executions in a chaos run, and does with some of them what callers do."""

from __future__ import annotations

import asyncio

from flowkeep.requests import execute_request
from flowkeep.v1.execution_service_pb2 import ExecuteRequest
from tests.faults.harness.caller import Called
from tests.faults.harness.control import Controller
from tests.faults.harness.records import Call, Outcome

STEERED = 0.05
"""Share of the executions that somebody steers."""


class Starter(Controller):
    """Starts executions until told to stop, each again under its request id for as long as its fate is unknown."""

    steered = STEERED
    """Share of the executions that it steers."""

    async def start(self, workflow: str, give_up: asyncio.Event) -> None:
        """Start one execution, and do with it what some do: twice at once, read it elsewhere, cancel it, steer it."""
        number = self._draw.randrange(1000)
        request = execute_request(workflow, {"number": number})
        content = f"{workflow} {number}"
        luck = self._draw.random()
        first, second = self._draw.sample(list(self.replicas), 2)
        if luck < 0.10:
            twice = (self._until_known(replica, request, content, give_up) for replica in (first, second))
            calls = list(await asyncio.gather(*twice))
        else:
            calls = [await self._until_known(first, request, content, give_up)]
        done = next((call for call in calls if call.outcome is Outcome.OK), None)
        if done is None:
            return
        if 0.10 <= luck < 0.20:
            await self.get(second, done.execution_id)
        elif 0.20 <= luck < 0.25:
            await asyncio.sleep(self._draw.uniform(0.0, 0.8))
            await self._cancel_until_known(second, done.execution_id, give_up)
        elif 0.25 <= luck < 0.27:
            other = execute_request(workflow, {"number": number + 1}, request_id=request.request_id)
            await self.execute(second, other, f"{workflow} {number + 1}")
        elif 0.27 <= luck < 0.29:
            await self.execute(second, execute_request(workflow, {"number": "none"}), "refused")
        elif 0.29 <= luck < 0.29 + self.steered:
            await self.steer(done.execution_id, content)

    async def _until_known(
        self, replica: Called, request: ExecuteRequest, content: str, give_up: asyncio.Event
    ) -> Call:
        while True:
            call = await self.execute(replica, request, content)
            is_known = call.outcome is Outcome.OK or (
                call.outcome is Outcome.DEFINITE and call.code != "RESOURCE_EXHAUSTED"
            )
            if is_known or give_up.is_set():
                return call
            await asyncio.sleep(self._draw.uniform(0.1, 0.4))
            replica = self._draw.choice(list(self.replicas))

    async def _cancel_until_known(self, replica: Called, execution_id: str, give_up: asyncio.Event) -> None:
        while (await self.cancel(replica, execution_id)).outcome is Outcome.UNKNOWN and not give_up.is_set():
            await asyncio.sleep(self._draw.uniform(0.1, 0.4))
            replica = self._draw.choice(list(self.replicas))
