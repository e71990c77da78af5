"""Which errors are worth another try, and how long to pause before it."""

from __future__ import annotations

import random
from collections.abc import Callable

import grpc

from flowkeep.errors import FlowkeepError

Judge = Callable[[FlowkeepError], bool]
"""Says whether a call that ended so may be sent again."""

# Texts of gRPC's core, which has no codes for them: a call that found no connection, and one whose connection broke.
# The latter it reports as UNKNOWN or INTERNAL when the other side, or a proxy, resets the stream.
_UNSENT = ("failed to connect", "dns resolution failed", "errors resolving")
_BREAKS = ("rst_stream", "goaway", "stream removed", "socket closed", "connection reset", "broken pipe")
# What gRPC itself says of a server that is busy, and of a message that is too large and will stay so.
_BUSY = "concurrent rpc limit"
_TOO_LARGE = ("larger than max", "size exceeds")
# How often to ask a channel that has no connection. That costs nobody anything: it decides itself when it tries again.
_LONGEST_UNCONNECTED = 0.5


def never_sent(error: FlowkeepError) -> bool:
    """Whether the request surely did not reach a server, so that even a call with effects may be sent again."""
    refused = error.code is grpc.StatusCode.UNAVAILABLE and not error.reason
    return refused and any(text in error.message.lower() for text in _UNSENT)


def connection_broke(error: FlowkeepError) -> bool:
    """Whether the way to the server failed, and not the call: only for calls that may be sent twice."""
    if error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        # A server answers CANCELLED, which we did not ask for, to streams and calls that it could not accept in time.
        return True
    return _stream_reset(error)


def nothing_done(error: FlowkeepError) -> bool:
    """Whether the call surely had no effect and may succeed later: then even one with effects may be sent again."""
    return never_sent(error) or _was_refused(error)


def may_repeat(error: FlowkeepError) -> bool:
    """Whether a call that may be sent twice should be."""
    return connection_broke(error) or _is_crowded(error)


def may_resume(error: FlowkeepError) -> bool:
    """Whether a stream that can be resumed by position should be opened again."""
    again = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
    return error.code in again or may_repeat(error)


def _was_refused(error: FlowkeepError) -> bool:
    """Whether the server had too much work to begin with the call."""
    if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    return error.retry_after is not None or (not error.reason and _BUSY in error.message.lower())


def _is_crowded(error: FlowkeepError) -> bool:
    """Whether there is too much work somewhere on the way, which passes."""
    if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or error.reason:
        return _was_refused(error)
    return not any(text in error.message.lower() for text in _TOO_LARGE)


def _stream_reset(error: FlowkeepError) -> bool:
    if error.reason or error.code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
        return False
    return any(text in error.message.lower() for text in _BREAKS)


class Backoff:
    """Pauses in seconds that double from `first` up to `longest`, each shortened at random by up to a half."""

    def __init__(self, first: float = 0.1, longest: float = 5.0) -> None:
        self._first = first
        self._longest = longest
        self._pause = first

    def next(self, at_least: float | None = None) -> float:
        """Return the next pause; never shorter than what the server asked for, but spread beyond it."""
        # Many clients of one server fail at the same moment and must not return together; nothing here is secret.
        drawn = self._pause * random.uniform(0.5, 1.0)  # noqa: S311
        self._pause = min(self._pause * 2, self._longest)
        return drawn + (at_least or 0.0)

    def after(self, error: FlowkeepError) -> float:
        """Return the pause after an error."""
        pause = self.next(error.retry_after)
        return min(pause, _LONGEST_UNCONNECTED) if never_sent(error) else pause

    def reset(self) -> None:
        """Begin with the shortest pause again."""
        self._pause = self._first
