"""What a worker has said of an attempt, as processes tell each other: how far it is, what it used, its result."""

from __future__ import annotations

import msgspec

from service.engine import payload
from service.engine.failure import Failure
from service.engine.workers.model import Answer, Completed, Failed, Lost


class _Written(msgspec.Struct, array_like=True, omit_defaults=True):
    percent: int = 0
    message: str = ""
    usage: tuple[int, int, int] = (0, 0, 0)
    output: bytes | None = None
    failure: bytes | None = None
    retry_after: float | None = None
    lost: str | None = None


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(_Written).decode


class Report:
    """Gathers what is said of an attempt, as a StepContext takes it; output on the way is passed on to nobody.

    `usage` is all that was said so far, input and output tokens and cost. `answer` is None while the attempt goes on.
    """

    __slots__ = ("answer", "message", "percent", "usage")

    def __init__(self) -> None:
        self.percent = 0
        self.message = ""
        self.usage = (0, 0, 0)
        self.answer: Answer | None = None

    def report(self, percent: float, message: str = "") -> None:
        """See StepContext."""
        self.percent, self.message = int(min(100.0, max(0.0, percent))), message

    def emit(self, text: str) -> None:
        """See StepContext."""

    def add_usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cost_micros: int = 0) -> None:
        """See StepContext."""
        before = self.usage
        self.usage = before[0] + input_tokens, before[1] + output_tokens, before[2] + cost_micros

    @property
    def progress(self) -> tuple[int, str]:
        """How far it is."""
        return self.percent, self.message

    def encoded(self) -> bytes:
        """Return it as other processes read it."""
        written = _Written(self.percent, self.message, self.usage)
        match self.answer:
            case Completed(output):
                written.output = output
            case Failed(failure, retry_after):
                written.failure, written.retry_after = payload.encode(failure.to_json()), retry_after
            case Lost(reason):
                written.lost = reason
        return _encode(written)

    @classmethod
    def decoded(cls, data: bytes) -> Report:
        """Return what another process has written; nothing of what cannot be read."""
        report = cls()
        try:
            written = _decode(data) if data else _Written()
            report.answer = _answer(written)
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError):
            return cls()
        report.percent, report.message, report.usage = written.percent, written.message, written.usage
        return report


def _answer(written: _Written) -> Answer | None:
    if written.output is not None:
        return Completed(written.output)
    if written.failure is not None:
        return Failed(Failure.from_json(payload.decode(written.failure)), written.retry_after)
    return None if written.lost is None else Lost(written.lost)
