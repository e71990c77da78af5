"""The store as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_bytes

from persistence.memory.bulks import MemoryBulks
from persistence.memory.journal import MemoryJournal
from persistence.memory.people import MemoryTasks
from persistence.memory.replicas import MemoryReplicas
from persistence.memory.tables import Tables
from persistence.memory.user_notifications import MemoryUserNotifications
from persistence.memory.workers import MemoryWorkers
from persistence.memory.workflow_breakpoints import MemoryWorkflowBreakpoints
from persistence.memory.workflow_pauses import MemoryWorkflowPauses
from persistence.memory.workflows import MemoryWorkflows
from persistence.model import LOADED_AT_ONCE
from persistence.processes import News
from persistence.repository import SECRET_BYTES


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryRepository(
    MemoryWorkflows,
    MemoryWorkflowPauses,
    MemoryWorkflowBreakpoints,
    MemoryBulks,
    MemoryTasks,
    MemoryJournal,
    MemoryReplicas,
    MemoryUserNotifications,
    MemoryWorkers,
):
    """Implements Repository in this process; wake times and leases go by `now`.

    Of the payloads of steps so much comes with an execution that is to be driven.
    """

    def __init__(self, now: Callable[[], datetime] = _utc_now, loaded_at_once: int = LOADED_AT_ONCE) -> None:
        self._tables = Tables(now)
        self._loaded_at_once = loaded_at_once

    def leases_apart(self) -> None:
        """See Repository. No other process can take anything from this one."""

    async def listen(self, heard: Callable[[News], None]) -> None:
        """See Signals. There is no other process."""
        await asyncio.get_running_loop().create_future()

    async def secret(self, name: str) -> bytes:
        """See Repository."""
        return self._tables.secrets.setdefault(name, token_bytes(SECRET_BYTES))

    async def ping(self) -> None:
        """See Repository."""

    async def close(self) -> None:
        """See Repository."""
