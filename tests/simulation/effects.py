"""The handler that simulated steps run: every call is written down by a witness outside the product."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from service.engine.handlers.model import Effect
from service.engine.handlers.registry import Handler, HandlerError, StepContext
from tests.simulation.history import Call, History
from tests.simulation.loop import Process, VirtualLoop

if TYPE_CHECKING:
    from service.engine.running.runner import Runner

SCHEMA = {
    "type": "object",
    "properties": {
        "takes": {"type": "number"},
        "fails": {"type": "integer"},
        "fatal": {"type": "boolean"},
        "stubborn": {"type": "number"},
        "reports": {"type": "integer"},
        "kills": {"type": "boolean"},
        "value": {},
    },
    "additionalProperties": False,
}


class Effects:
    """What the steps of one process do, seen from outside."""

    def __init__(self, loop: VirtualLoop, history: History, process: Process) -> None:
        self.runner: Runner | None = None
        self._loop = loop
        self._history = history
        self._process = process
        self.kill: Callable[[], None] = lambda: None
        """Ends the process, as a handler does that calls os._exit."""

    def handlers(self) -> tuple[Handler, Handler]:
        """Return the handlers `effect`, and `pure`, which does the same and declares that it has no effect outside.

        It takes `takes` seconds, fails the first `fails` attempts (`fatal`: for good), takes `stubborn` seconds to
        stop when told to, reports its progress `reports` times and returns `value`; `kills` ends its process.
        """
        pure = partial(self._run, is_harmless=True)
        return (
            Handler("effect", self._run, params_schema=SCHEMA, effect=Effect.IDEMPOTENT),
            Handler("pure", pure, params_schema=SCHEMA, effect=Effect.NONE),
        )

    async def _run(self, params: Mapping[str, Any], context: StepContext, *, is_harmless: bool = False) -> Any:
        call = self._begun(context, params, is_harmless)
        try:
            await self._work(params, context, call)
        except asyncio.CancelledError:
            call.outcome, call.stopped = "stopped", self._loop.time()
            if stubborn := params.get("stubborn"):
                await asyncio.sleep(stubborn)
            raise
        finally:
            call.ended = self._loop.time()
        if params.get("fatal"):
            call.outcome = "failed"
            raise HandlerError("FATAL", "asked to fail for good", retryable=False)
        if context.attempt <= params.get("fails", 0):
            call.outcome = "failed"
            raise HandlerError("ASKED", "asked to fail")
        call.outcome = "succeeded"
        return {"value": params.get("value"), "token": context.idempotency_token}

    async def _work(self, params: Mapping[str, Any], context: StepContext, call: Call) -> None:
        if params.get("kills"):
            self._history.landed.append("killed by a step")
            call.outcome = "killed"
            self.kill()
            await self._loop.create_future()  # nothing follows
        pieces = params.get("reports", 0) + 1
        for piece in range(pieces):
            context.add_usage(output_tokens=1)
            await asyncio.sleep(params.get("takes", 0.0) / pieces)
            if piece:
                context.report(100 * piece // pieces, f"piece {piece}")

    def _begun(self, context: StepContext, params: Mapping[str, Any], is_harmless: bool) -> Call:
        run = self.runner.runs.get(context.execution_id) if self.runner else None
        call = Call(
            execution_id=context.execution_id,
            path=context.step_path,
            attempt=context.attempt,
            token=context.idempotency_token,
            process=self._process.name,
            incarnation=run.incarnation if run else None,
            epoch=run.execution.epoch if run else 0,
            begun=self._loop.time(),
            iteration=context.iteration,
            given=dict(params),
            is_harmless=is_harmless,
        )
        self._history.calls.append(call)
        self._history.note(call.begun, self._process, "calls", call.execution_id, call.path, call.attempt)
        return call
