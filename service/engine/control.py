"""What callers ask of executions that have not ended, beside to cancel them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from persistence import failpoints
from persistence.model import Execution, MessageKind, Scope
from persistence.posting import Posting
from persistence.repository import Repository
from persistence.requests import Method, Request
from service.engine.ids import uuid7
from service.engine.requests import asked
from service.engine.running.runner import Runner
from service.engine.slices import in_slices


class Control:
    """Sends executions messages, and lets them take effect where this process can."""

    def __init__(self, repository: Repository, runner: Runner, new_id: Callable[[datetime], UUID] = uuid7) -> None:
        self._repository = repository
        self._runner = runner
        self._new_id = new_id

    def new_id(self) -> UUID:
        """Return the id of a message that is sent now."""
        return self._new_id(self._runner.now())

    async def ask(
        self,
        scope: Scope,
        execution_id: UUID,
        kind: MessageKind,
        by: str,
        body: Mapping[str, Any],
        request_id: str = "",
    ) -> Execution:
        """Keep what is asked, let it take effect, and return the execution after that.

        An execution that stands so already is left as it is; so is all when the request id was used so before. Raises
        ExecutionNotFoundError, ExecutionFinishedError, ExecutionStateError, RequestIdReusedError.
        """
        request = await in_slices(asked(Method(kind.value), request_id, by, execution_id=str(execution_id), body=body))
        await self.send(scope, execution_id, Posting(self.new_id(), kind, by, body), request)
        return await self._repository.get_execution(scope, execution_id)

    async def send(self, scope: Scope, execution_id: UUID, posting: Posting, request: Request | None) -> None:
        """Do what `ask` does with a message of any kind."""
        posted = await self._repository.post(scope, execution_id, posting, request)
        if posted.message is not None:
            await failpoints.reach("message.after_commit_before_delivery")
            delivery = self._runner.hand_in(posted, to_the_end=posting.kind is MessageKind.TERMINATE)
            # Whoever takes an execution has to drive it, also when the caller has gone in between.
            await asyncio.shield(self._runner.tasks.spawn(delivery, f"{posting.kind.value.lower()} {execution_id}"))
