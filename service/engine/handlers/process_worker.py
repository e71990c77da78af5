"""A process that runs handlers for a server, one call at a time: `python -m service.engine.handlers.process_worker FD`.

It reads requests from the socket FD and answers each. Whatever handlers print goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from service.engine.failure import INVALID_OUTPUT
from service.engine.handlers.failures import failure_of
from service.engine.handlers.functions import finished
from service.engine.handlers.loading import load, load_entry_points
from service.engine.handlers.model import HandlerError, StepContext, Suspend
from service.engine.handlers.process_http import Ask, ProcessClients
from service.engine.handlers.processes import framed
from service.engine.handlers.signature import Signature, read

LONGEST = 64 << 10
"""Characters of a text that a handler shows; the server keeps less of it."""

_LENGTH = struct.Struct("!I")

Send = Callable[[Mapping[str, Any]], None]


def main(descriptor: int) -> None:
    """Serve calls until the server ends, or kills this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    server = socket.socket(fileno=descriptor)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_receive, args=(server, requests, answers), daemon=True).start()
    line = _Line(server, answers)
    while True:
        request = requests.get()
        send = partial(line.send, request["call"])
        answer = _answer(request, send, partial(line.ask, request["call"]))
        try:
            send(answer)
        except ValueError as error:
            send(_failed(HandlerError(INVALID_OUTPUT, f"output {error}", retryable=False), request["name"]))


class _Line:
    """The socket to the server, on which each message says which call it is of. Any thread may use it."""

    def __init__(self, server: socket.socket, answers: SimpleQueue[dict[str, Any]]) -> None:
        self._server = server
        self._answers = answers
        self._sending = threading.Lock()
        self._asking = threading.Lock()

    def send(self, call: int, message: Mapping[str, Any]) -> None:
        """Send a message. Raises ValueError when it is too large."""
        frame = framed({"call": call, **message})
        with self._sending:
            self._server.sendall(frame)

    def ask(self, call: int, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the server says of a request of HTTP; it does one at a time."""
        with self._asking:
            self.send(call, {"kind": "http", **request})
            return self._answers.get()


def _receive(
    server: socket.socket, requests: SimpleQueue[dict[str, Any]], answers: SimpleQueue[dict[str, Any]]
) -> None:
    """Hand requests and answers over as they come; with the server all ends at once, whatever a handler is about."""
    stream = server.makefile("rb")
    try:
        while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            if len(text := stream.read(length)) < length:
                break
            message = json.loads(text)
            if "http" in message:
                answers.put(message["http"])
            else:
                requests.put(message)
    finally:
        os._exit(0)


def _answer(request: Mapping[str, Any], send: Send, ask: Ask) -> dict[str, Any]:
    name = request["name"]
    try:
        call, signature = _handler(request["place"], name)
        context: Any = _context(request, send, ask) if "context" in request else None
        is_whole, result = finished(call(**signature.arguments(request["params"], context)))
        if not is_whole:
            raise HandlerError(INVALID_OUTPUT, "it returns what is to be awaited", retryable=False)
    except BaseException as error:  # neither sys.exit() nor KeyboardInterrupt of a handler is for this process
        return _failed(error, name)
    if isinstance(result, Suspend):
        until = result.until.isoformat()
        return {"kind": "suspended", "until": until, "output": result.output, "reason": result.reason}
    return {"kind": "given", "output": result}


def _failed(error: BaseException, name: str) -> dict[str, Any]:
    failure, retry_after = failure_of(error, name)
    told = {field: getattr(failure, field) for field in ("code", "message", "details", "retryable", "stack_trace")}
    return {"kind": "failed", "failure": told, "retry_after": retry_after}


@cache
def _handler(place: str, name: str) -> tuple[Callable[..., Any], Signature]:
    """Return the function of a handler, found as the server has found it."""
    groups = [load(place)] if place else load_entry_points()
    for group in groups:
        for found in group:
            if found.declaration.name == name:
                return found.function, read(found.function)
    raise LookupError(f"{place or 'no entry point'} has no handler {name!r} any more")


def _context(request: Mapping[str, Any], send: Send, ask: Ask) -> StepContext:
    given = dict(request["context"])
    given["execution_id"] = UUID(given["execution_id"])
    given["now"] = datetime.fromisoformat(given["now"])
    context = StepContext(
        **given,
        reporter=lambda percent, said: send({"kind": "report", "percent": percent, "message": said[:LONGEST]}),
        emitter=lambda text: send({"kind": "emit", "text": text[-LONGEST:]}),
        meter=lambda *used: send({"kind": "usage", "used": used}),
        teller=lambda level, text: send({"kind": "log", "level": level, "text": text[:LONGEST]}),
        began=time.monotonic() - request["age"],
    )
    return replace(context, connector=ProcessClients(ask, context))


if __name__ == "__main__":
    main(int(sys.argv[1]))
