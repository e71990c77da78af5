"""What a driver of the planner is told from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from persistence.model import Message, MessageKind
from persistence.signals import Signal
from service.engine.payload import size
from service.engine.planning import happenings
from service.engine.planning.happenings import Happening
from service.engine.planning.planner import Plan

T0 = datetime(2026, 1, 1, tzinfo=UTC)
CANCEL = Message(UUID(int=1), MessageKind.CANCEL, T0, "ann", {"reason": "no longer needed"})


class Messages(ABC):
    """Sends an execution messages."""

    now: datetime
    sent = 1_000
    """Number of the newest signal."""

    @abstractmethod
    def apply(self, happening: Happening) -> Plan:
        """Let something happen, when its turn comes."""

    @abstractmethod
    def apply_now(self, happening: Happening) -> Plan:
        """Let something happen before all else."""

    def cancel(self) -> Plan:
        """Let somebody ask to cancel."""
        return self.receive(CANCEL)

    def pause(self, *, hard: bool = False, stop_deadline: bool = False, workflow_pause_id: str = "") -> Plan:
        """Let somebody pause it, or all of its workflow."""
        how = {"hard": hard, "stop_deadline": stop_deadline, "workflow_pause_id": workflow_pause_id}
        return self._told(MessageKind.PAUSE, **how)

    def resume(self, **how: Any) -> Plan:
        """Let somebody resume it."""
        return self._told(MessageKind.RESUME, **how)

    def set_breakpoints(self, *points: str | tuple[str, str]) -> Plan:
        """Let somebody hold it before the steps at these paths, some with a condition."""
        named = [point if isinstance(point, tuple) else (point, "") for point in points]
        return self._told(MessageKind.BREAKPOINTS, breakpoints=[{"path": p, "condition": c} for p, c in named])

    def edit_input(self, path: str, given: Mapping[str, Any]) -> Plan:
        """Let somebody change what a step is called with that is held."""
        return self._told(MessageKind.EDIT, path=path, input=given)

    def edit_variables(self, given: Mapping[str, Any]) -> Plan:
        """Let somebody set variables."""
        return self._told(MessageKind.EDIT, vars=given)

    def terminate(self) -> Plan:
        """Let somebody terminate it."""
        return self._told(MessageKind.TERMINATE)

    def _told(self, kind: MessageKind, **body: Any) -> Plan:
        message = Message(UUID(int=3), kind, self.now, "ann", {"reason": "lunch", **body})
        return self.apply_now(happenings.MessageCame(self.now, message))

    def receive(self, message: Message) -> Plan:
        """Let a message come."""
        return self.apply(happenings.MessageCame(self.now, message))

    def signal(self, name: str, payload: Mapping[str, Any] | None = None, sender: str = "bob") -> Plan:
        """Let a signal come."""
        self.sent += 1
        signal = Signal(UUID(int=self.sent), name, dict(payload or {}), sender, self.now, size(payload or {}))
        return self.receive(Message(signal.id, MessageKind.SIGNAL, self.now, sender, signal.body()))
