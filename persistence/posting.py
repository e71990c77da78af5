"""What may be sent to an execution, told by where it stands and by what it has been sent and not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from persistence.errors import ExecutionFinishedError, ExecutionStateError, SignalsFullError
from persistence.model import Execution, ExecutionState, Json, Message, MessageKind
from persistence.pauses import PAUSE_ID
from persistence.signals import MOST_WAITING, MOST_WAITING_BYTES, has_room

OF_WORKFLOW = "WORKFLOW_"
"""What stands before the kinds of messages that the pause of a whole workflow sends."""

_GOING = frozenset({ExecutionState.PENDING, ExecutionState.RUNNING})


class Posting(msgspec.Struct, frozen=True):
    """What is to be sent to an execution; its message has this id, and the time at which it is kept."""

    id: UUID
    kind: MessageKind
    sender: str
    body: Mapping[str, Json]


class Standing(Protocol):
    """What decides of an execution whether it may be sent something."""

    @property
    def id(self) -> UUID:
        """Its id."""
        ...

    @property
    def state(self) -> ExecutionState:
        """Its state."""
        ...

    @property
    def ending(self) -> object:
        """The end that is decided while attempts are being stopped, None while there is none."""
        ...

    @property
    def has_joinable_pause(self) -> bool:
        """Whether it is paused by a breakpoint or its workflow alone."""
        ...


def admits_cancel(execution: Standing, unseen: Iterable[str]) -> bool:
    """Return whether the message CANCEL is to be sent: False where the execution is cancelled, or will be.

    Raises ExecutionFinishedError for what has ended otherwise.
    """
    state = execution.state
    if state.is_end and state is not ExecutionState.CANCELLED:
        raise ExecutionFinishedError(execution.id, state)
    return not state.is_end and state is not ExecutionState.CANCELLING and MessageKind.CANCEL not in tuple(unseen)


def admits(execution: Execution, unseen: Iterable[str], posting: Posting) -> bool:
    """Return what `admits_kind` does of a message, which may be about one pause of the execution."""
    waiting = tuple(unseen)
    is_held = posting.kind is MessageKind.EDIT and _is_held(execution, waiting, posting)
    return admits_kind(execution, waiting, posting.kind, is_held=is_held)


def admits_kind(execution: Standing, unseen: Iterable[str], kind: MessageKind, *, is_held: bool = False) -> bool:
    """Return whether a message of a kind is to be sent: False where what it asks for is so already, or asked for.

    `unseen` are the kinds, as `kind_of` gives them, of the messages that wait for the execution, in their order: it is
    judged by how it will stand when it has seen them. Raises ExecutionFinishedError and ExecutionStateError.
    """
    state = execution.state
    if state.is_end:
        raise ExecutionFinishedError(execution.id, state)
    waiting = tuple(unseen)
    if kind == MessageKind.TERMINATE:
        return MessageKind.TERMINATE not in waiting
    state, is_asked = _after(execution, waiting)
    match kind:
        case MessageKind.PAUSE if state in _GOING and execution.ending is None:
            return True
        case MessageKind.PAUSE if state is ExecutionState.PAUSED:
            return not is_asked
        case MessageKind.RESUME if state is ExecutionState.PAUSED:
            return True
        case MessageKind.EDIT if is_held:
            return True
        case MessageKind.SIGNAL | MessageKind.BREAKPOINTS if state is not ExecutionState.CANCELLING:
            return True
    raise ExecutionStateError(execution.id, state, _WANTED.get(kind, ""))


def _is_held(execution: Execution, unseen: Sequence[str], posting: Posting) -> bool:
    """Return whether the pause goes on in which something is to be edited, and no end is decided.

    Variables are edited as they were looked at: nothing has come since, and no other edit is to come.
    """
    resumes = MessageKind.RESUME, f"{OF_WORKFLOW}{MessageKind.RESUME}"
    pause, letting_go = execution.pause, {*resumes, MessageKind.CANCEL, MessageKind.TERMINATE}
    is_same = pause is not None and pause.seq == posting.body.get("pause_seq")
    if "vars" in posting.body:
        is_same = is_same and execution.last_seq == posting.body.get("last_seq") and MessageKind.EDIT not in unseen
    return is_same and execution.ending is None and letting_go.isdisjoint(unseen)


def check_room(execution: Execution, sizes: Sequence[int], posting: Posting) -> None:
    """Raises SignalsFullError where a signal is to be sent for which there is no room beside others of these sizes."""
    if posting.kind is MessageKind.SIGNAL and not has_room([*sizes, size_of(posting.body)]):
        raise SignalsFullError(execution.id, MOST_WAITING, MOST_WAITING_BYTES)


def size_of(body: Mapping[str, Json]) -> int:
    """Return how many bytes the signal has that a message brings, whoever has written it."""
    size = body.get("size")
    return size if type(size) is int else 0


def kind_of(message: Message) -> str:
    """Return the kind by which a message counts among those that wait: what a whole workflow sends is told apart."""
    return f"{OF_WORKFLOW}{message.kind}" if PAUSE_ID in message.body else message.kind


def _after(execution: Standing, kinds: Iterable[str]) -> tuple[ExecutionState, bool]:
    """Return the state after messages, and, where that is PAUSED, whether somebody has asked for it by Pause.

    The resume of a workflow may end a pause, or find one that it leaves: it is as if it had not come.
    """
    state = execution.state
    is_asked = state is ExecutionState.PAUSED and not execution.has_joinable_pause
    for kind in kinds:
        match kind:
            case MessageKind.CANCEL | MessageKind.TERMINATE:
                return ExecutionState.CANCELLING, False
            case MessageKind.PAUSE if state in _GOING or state is ExecutionState.PAUSED:
                state, is_asked = ExecutionState.PAUSED, True
            case "WORKFLOW_PAUSE" if state in _GOING:
                state, is_asked = ExecutionState.PAUSED, False
            case MessageKind.RESUME if state is ExecutionState.PAUSED:
                state, is_asked = ExecutionState.RUNNING, False
    return state, is_asked


_WANTED = {
    MessageKind.PAUSE: "only what is PENDING or RUNNING can be paused",
    MessageKind.RESUME: "only what is PAUSED can be resumed",
    MessageKind.SIGNAL: "what is being cancelled takes no signals",
    MessageKind.BREAKPOINTS: "what is being cancelled cannot be held",
    MessageKind.EDIT: "what is edited must be PAUSED, and not have gone on since it was looked at",
}
