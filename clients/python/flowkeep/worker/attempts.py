"""The attempts that a worker runs, and the results that it keeps until they are settled."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from flowkeep.handlers import HandlerError, StepContext
from flowkeep.handlers.errors import HANDLER_ERROR, rebuilt
from flowkeep.v1 import worker_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Usage
from flowkeep.worker.functions import Function, to_json
from flowkeep.worker.threads import Threads

log = logging.getLogger("flowkeep.worker")

MAX_OUTPUT = 16_384
MAX_PROGRESS = 1_000
"""Of what is said of attempts on their way, so many wait to be sent; more is left out."""

MAX_NAMED = 2_000
"""Attempts that a server looks at when a worker connects."""

LONGEST_TRACE = 16_384
LONGEST_MESSAGE = 2_048
MAX_DETAILS = 16_384
CANCELLED = "CANCELLED"

Key = tuple[str, str, int, int]


def key_of(attempt: pb.Attempt) -> Key:
    """Return what an attempt is known by."""
    return attempt.execution_id, attempt.step_path, attempt.iteration, attempt.attempt


class Attempt:
    """One attempt: it runs, or has a result that is not settled."""

    def __init__(self, assignment: pb.Assignment) -> None:
        self.assignment = assignment
        self.stop = threading.Event()
        self.task: asyncio.Task[None] | None = None
        self.result: pb.WorkRequest | None = None
        self.is_unwanted = False
        self.usage = Usage()

    @property
    def key(self) -> Key:
        """What it is known by."""
        return key_of(self.assignment.attempt)


class Attempts:
    """Runs attempts; `say` sends what is to be said of them, `changed` is called when one begins or ends."""

    def __init__(
        self,
        functions: Mapping[str, Function],
        capacity: int,
        say: Callable[[pb.WorkRequest], None],
        changed: Callable[[], None],
    ) -> None:
        self._functions = functions
        self._say = say
        self._changed = changed
        self._threads = Threads(capacity)
        self._all: dict[Key, Attempt] = {}
        self.org = ""

    @property
    def all(self) -> list[Attempt]:
        """Those that run, and those whose results are not settled."""
        return list(self._all.values())

    @property
    def named(self) -> list[pb.Attempt]:
        """What a server is told of when the worker connects, what runs first.

        Results beyond what it looks at are said to it all the same.
        """
        by_need = sorted(self._all.values(), key=lambda each: each.result is not None)
        return [each.assignment.attempt for each in by_need[:MAX_NAMED]]

    @property
    def running(self) -> list[Attempt]:
        """Those that run."""
        return [each for each in self._all.values() if each.result is None]

    def start(self, assignment: pb.Assignment) -> None:
        """Run an attempt, unless it runs already; one that has ended is told of again."""
        known = self._all.get(key_of(assignment.attempt))
        if known is not None:
            if known.result is not None:
                self._say(known.result)
            return
        attempt = self._all[key_of(assignment.attempt)] = Attempt(assignment)
        attempt.task = asyncio.get_running_loop().create_task(self._run(attempt))
        self._changed()

    def cancel(self, told: pb.Attempt, *, is_unwanted: bool = False) -> None:
        """Stop an attempt; of one that is unwanted nothing more is said."""
        attempt = self._all.get(key_of(told))
        if attempt is None:
            return
        attempt.is_unwanted |= is_unwanted
        if attempt.result is not None:
            if is_unwanted:
                self._forget(attempt)
            return
        attempt.stop.set()
        if attempt.task is not None and self._functions[attempt.assignment.handler].is_async:
            attempt.task.cancel()

    def settled(self, told: pb.AttemptSettled) -> None:
        """Forget a result that is in the store, or that is refused."""
        attempt = self._all.get(key_of(told.attempt))
        if attempt is None:
            return
        if not told.is_recorded:
            log.warning("result of %s of execution %s refused: %s", *_named(attempt), told.message)
        if attempt.result is not None:
            self._forget(attempt)

    def close(self) -> None:
        """Wait for no thread."""
        self._threads.close()

    def _forget(self, attempt: Attempt) -> None:
        self._all.pop(attempt.key, None)
        self._changed()

    async def _run(self, attempt: Attempt) -> None:
        told = attempt.assignment.attempt
        try:
            function = self._functions[attempt.assignment.handler]
            output = await self._called(function, attempt)
            completed = pb.AttemptCompleted(attempt=told, output=output)
            self._end(attempt, pb.WorkRequest(completed=completed))
        except asyncio.CancelledError:
            failed = pb.AttemptFailed(attempt=told, code=CANCELLED, message="stopped as it was told to")
            self._end(attempt, pb.WorkRequest(failed=failed))
        except BaseException as error:  # neither sys.exit() nor KeyboardInterrupt of a handler may end the worker
            self._end(attempt, pb.WorkRequest(failed=_failed(told, error, attempt.assignment.handler)))

    async def _called(self, function: Function, attempt: Attempt) -> bytes:
        context = self._context(attempt)
        arguments = function.arguments(attempt.assignment.params, context)
        if function.is_async:
            result = function.call(**arguments)
        else:
            inside = contextvars.copy_context()
            is_whole, result = await self._threads.run(lambda: inside.run(_finished, function, arguments))
            if is_whole:
                return bytes(result)
        while inspect.isawaitable(result):
            result = await result
        return to_json(result)

    def _end(self, attempt: Attempt, result: pb.WorkRequest) -> None:
        if attempt.is_unwanted:
            self._forget(attempt)
            return
        said = result.completed if result.HasField("completed") else result.failed
        said.usage.CopyFrom(attempt.usage)
        attempt.result = result
        self._say(result)
        self._changed()

    def _context(self, attempt: Attempt) -> StepContext:
        said, loop = attempt.assignment, asyncio.get_running_loop()
        timeout = said.timeout.ToTimedelta().total_seconds()
        end = said.deadline_time.ToDatetime(UTC) if said.HasField("deadline_time") else datetime.now(UTC)
        lock, home = threading.Lock(), threading.get_ident()

        def progress(**fields: Any) -> None:
            request = pb.WorkRequest(progress=pb.AttemptProgress(attempt=said.attempt, **fields))
            if threading.get_ident() == home:
                self._say(request)  # at once: the result must not be said before it
            else:
                loop.call_soon_threadsafe(self._say, request)

        def use(input_tokens: int, output_tokens: int, cost_micros: int) -> None:
            with lock:
                attempt.usage.input_tokens += input_tokens
                attempt.usage.output_tokens += output_tokens
                attempt.usage.cost_micros += cost_micros

        return StepContext(
            execution_id=UUID(said.attempt.execution_id),
            org=self.org,
            owner=said.owner,
            workflow=said.workflow,
            step_path=said.attempt.step_path,
            iteration=said.attempt.iteration,
            attempt=said.attempt.attempt,
            idempotency_token=said.idempotency_token,
            timeout=timeout,
            now=end - timedelta(seconds=timeout),
            variables={},
            reporter=lambda percent, message: progress(progress_percent=percent, message=_sendable(message)[:256]),
            emitter=lambda text: progress(output=_sendable(text)[-MAX_OUTPUT:]),
            stop=attempt.stop,
            meter=use,
        )


def _finished(function: Function, arguments: dict[str, Any]) -> tuple[bool, Any]:
    """Return whether the result of a sync function is whole, and its JSON then; else what is to be awaited."""
    try:
        result = function.call(**arguments)
    except StopIteration as error:
        raise RuntimeError("the handler raised StopIteration") from error
    if inspect.isawaitable(result):
        return False, result
    return True, to_json(list(result) if inspect.isgenerator(result) else result)


def _failed(told: pb.Attempt, error: BaseException, handler: str) -> pb.AttemptFailed:
    """Return what the server is told of an error: of one that is no HandlerError only the stack trace has the text."""
    if isinstance(error, HandlerError):
        clean = rebuilt(error)
        failed = pb.AttemptFailed(
            attempt=told,
            code=_sendable(clean.code),
            message=_sendable(clean.message)[:LONGEST_MESSAGE],
            details=_details(clean.details),
            retryable=clean.retryable,
        )
        if clean.retry_after is not None:
            failed.retry_after.FromTimedelta(timedelta(seconds=min(clean.retry_after, 315_360_000)))
        return failed
    text = f"handler {handler!r} raised {type(error).__name__}; its stack trace tells more"
    try:
        trace = "".join(traceback.format_exception(error))
    except BaseException:  # of an exception that overrides how it is looked at
        trace = "the stack trace cannot be had"
    trace = _sendable(trace[-LONGEST_TRACE:])
    return pb.AttemptFailed(attempt=told, code=HANDLER_ERROR, message=text, retryable=True, stack_trace=trace)


def _details(details: Mapping[Any, Any]) -> bytes:
    if not details:
        return b""
    try:
        written = json.dumps({str(key): value for key, value in details.items()}, allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError):
        written = json.dumps({str(key): str(value)[:300] for key, value in list(details.items())[:100]})
    most = 64
    while len(written) > MAX_DETAILS:  # so many members, half of them at the next look: a character has up to 12 bytes
        written = json.dumps({str(key)[:64]: str(value)[:100] for key, value in list(details.items())[:most]})
        most //= 2
    return written.encode(errors="replace")


def _sendable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _named(attempt: Attempt) -> tuple[str, str]:
    told = attempt.assignment.attempt
    return f"attempt {told.attempt} of {told.step_path}", told.execution_id
