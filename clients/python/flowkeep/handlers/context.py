"""What a handler is given beside its params."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event
from typing import Any, Protocol
from uuid import UUID

from flowkeep.handlers import arguments
from flowkeep.handlers.errors import invalid


def _ignore(input_tokens: int, output_tokens: int, cost_micros: int) -> None:
    """Count nothing, as in a test of a handler."""


def _tell(level: int, text: str) -> None:
    """Log a line as any library would; the server adds which attempt it is of."""
    logging.getLogger(LOGGER).log(level, "%s", text)


LOGGER = "flowkeep.handlers"
_LINE = logging.Formatter("%(message)s")


class _Log(logging.Logger):
    """Hands its lines, each whole, to `tell`."""

    def __init__(self, tell: Callable[[int, str], None]) -> None:
        super().__init__(LOGGER, logging.DEBUG)
        self._tell_line = tell

    def handle(self, record: logging.LogRecord) -> None:
        self._tell_line(record.levelno, _LINE.format(record))


class Connector(Protocol):
    """What has the HTTP clients of an attempt."""

    @property
    def http(self) -> Any:
        """The one for async functions."""
        ...

    @property
    def sync_http(self) -> Any:
        """The one for other functions."""
        ...


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a handler knows of the attempt it runs. Everything in it may be used from any thread.

    `iteration` is the number of the whole run of the step, within which attempts are counted, both from 1.
    `idempotency_token` is one per iteration, equal over its attempts. `timeout` is the time of this attempt
    in seconds. `now` is the time of its start. `variables` is what expressions see: of `steps` what the parameters
    of the step read, since of the others nothing need be at hand.
    """

    execution_id: UUID
    org: str
    owner: str
    workflow: str
    step_path: str
    iteration: int
    attempt: int
    idempotency_token: str
    timeout: float
    now: datetime
    variables: Mapping[str, Any]
    # What the server listens to, speaks through and measures by.
    reporter: Callable[[int, str], None] = field(repr=False, compare=False)
    emitter: Callable[[str], None] = field(repr=False, compare=False)
    stop: Event = field(default_factory=Event, repr=False, compare=False)
    began: float = field(default_factory=time.monotonic, repr=False, compare=False)
    meter: Callable[[int, int, int], None] = field(default=_ignore, repr=False, compare=False)
    teller: Callable[[int, str], None] = field(default=_tell, repr=False, compare=False)
    connector: Connector | None = field(default=None, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether the attempt was told to stop: by a cancel, its timeout or the end of the execution."""
        return self.stop.is_set()

    @property
    def deadline(self) -> datetime:
        """The end of this attempt's time, in UTC."""
        return self.now + timedelta(seconds=self.timeout)

    @property
    def remaining(self) -> float:
        """Seconds left of this attempt's time by a clock that only goes forward, never below 0."""
        return max(0.0, self.began + self.timeout - time.monotonic())

    @property
    def log(self) -> logging.Logger:
        """A logger for the server's log, in which each line says which execution, step and attempt it is of.

        Secrets that stand in the params are hidden in it.
        """
        return _Log(self.teller)

    @property
    def http(self) -> Any:
        """An `httpx2.AsyncClient` that calls what workflows may call, closed when the attempt ends.

        Each request has the Idempotency-Key of the step, and says which execution, step and attempt it is of. Raises
        RuntimeError where no server runs the handler; requests raise HandlerError, ADDRESS_NOT_ALLOWED, for what the
        deployment does not allow.
        """
        return self._connector.http

    @property
    def sync_http(self) -> Any:
        """The same for functions that are not async: an `httpx2.Client`. Its answers are read as a whole."""
        return self._connector.sync_http

    @property
    def _connector(self) -> Connector:
        if self.connector is None:
            raise RuntimeError("there is no HTTP client here: only a server gives one to the handlers that it runs")
        return self.connector

    def report(self, percent: float, message: str = "") -> None:
        """Show how much is done, 0 to 100, and a message.

        Raises HandlerError, INVALID_OUTPUT, when `percent` is no finite number or `message` no text.
        """
        share = invalid("context.report: percent", arguments.number, percent)
        said = invalid("context.report: message", arguments.text, message)
        self.reporter(int(min(100.0, max(0.0, share))), said)

    def add_usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cost_micros: int = 0) -> None:
        """Count what the attempt has used up, beside what it has said before: it counts also if the attempt fails.

        `cost_micros` are millionths of the org's currency. Each is a whole number from 0 to 10^12. Raises HandlerError,
        INVALID_OUTPUT, when one is not; then none of them counts.
        """
        given = invalid("context.add_usage: input_tokens", arguments.amount, input_tokens)
        got = invalid("context.add_usage: output_tokens", arguments.amount, output_tokens)
        cost = invalid("context.add_usage: cost_micros", arguments.amount, cost_micros)
        self.meter(given, got, cost)

    def emit(self, text: str) -> None:
        """Show text to whoever watches at this moment; it is not kept.

        Raises HandlerError, INVALID_OUTPUT, when it is no text.
        """
        self.emitter(invalid("context.emit: text", arguments.text, text))
