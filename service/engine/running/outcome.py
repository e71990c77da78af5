"""How an execution has ended, as its owner knows it without asking the store."""

from __future__ import annotations

from msgspec.structs import replace

from persistence.model import Execution, ExecutionOutcome
from persistence.transition import Transition


def outcome(execution: Execution, transition: Transition) -> ExecutionOutcome:
    """Return an execution as the store has it after the transition that has ended it."""
    ended = replace(
        execution,
        state=transition.state,
        counts=transition.counts,
        progress=transition.progress,
        last_seq=transition.last_seq,
        start_time=transition.start_time,
        end_time=transition.end_time,
        deadline_time=transition.deadline_time,
        failure=transition.failure,
        ending=None,
        pause=None,
        mail=transition.mail_seen,
        incarnation=None,
        wake_time=None,
        bytes=transition.bytes,
        usage=transition.usage,
    )
    return ExecutionOutcome(ended, transition.result)
