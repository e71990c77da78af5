"""Starting executions by requests that stand in a file, one on a line: how they are read, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flowkeep.errors import FlowkeepError
from flowkeep.requests import ExecuteOptions, execute_request
from flowkeep.v1.execution_service_pb2 import ExecuteRequest, ExecuteResponse
from service.cli.error_view import error_form
from service.cli.following import started_text
from service.cli.json_form import json_form
from service.cli.reading import TextError, UnreadableError, parse_json, read_text
from service.cli.rendering import plain, show, show_json
from service.cli.session import Session
from service.cli.tables import ended_early, state_name

_MOST, _MOST_BYTES = 500, 2 << 20
"""Requests and bytes of one call: a part of what it may have, so that each is answered soon."""

_FIELDS = {"workflow", "input", *ExecuteOptions.__annotations__} - {"wait", "view", "dry_run"}
_FAULTS_SHOWN = 5


def read_requests(source: str, workflow: str) -> list[tuple[int, ExecuteRequest]]:
    """Return the requests of a file or of standard input, with their lines; `workflow` is for those that name none.

    Raises TextError for lines that are none.
    """
    name = "standard input" if source == "-" else source
    requests, faults = list[tuple[int, ExecuteRequest]](), list[str]()
    for number, line in enumerate(read_text(source).splitlines(), 1):
        if not line.strip():
            continue
        try:
            requests.append((number, _request(line, workflow)))
        except (ValueError, TypeError, UnreadableError) as error:
            said = error.description if isinstance(error, UnreadableError) else error
            faults.append(f"{name}:{number}: {said}")
    if more := len(faults) - _FAULTS_SHOWN:
        faults[_FAULTS_SHOWN:] = [f"and {more} more"] if more > 0 else []
    if faults:
        raise TextError("\n".join(faults))
    if not requests:
        raise TextError(f"{name} holds no requests")
    return requests


def _request(line: str, workflow: str) -> ExecuteRequest:
    documents = parse_json(line)
    if len(documents) != 1 or not isinstance(fields := documents[0].value, dict):
        raise ValueError("a line must be one JSON object")
    for fault in documents[0].faults:
        raise ValueError(fault.description)
    if unknown := sorted(fields.keys() - _FIELDS):
        raise ValueError(f"{unknown[0]} is unknown; known are: {', '.join(sorted(_FIELDS))}")
    given: dict[str, Any] = {"workflow": workflow, **fields}
    if not given["workflow"]:
        raise ValueError("workflow is required, on the line or as --workflow")
    return execute_request(**given)


async def execute_all(session: Session, requests: Sequence[tuple[int, ExecuteRequest]]) -> int:
    """Start what is asked for, print a line for each in their order, and return the exit code: 1 if any was refused."""
    code = 0
    for part in _parts(requests):
        outcomes = await session.client.batch_execute(request for _, request in part)
        for index, ((number, request), outcome) in enumerate(zip(part, outcomes, strict=True)):
            if isinstance(outcome, FlowkeepError):
                # Its words for where the request stood in the call would mislead: a file is sent in parts.
                _show_refused(session, number, request, outcome.moved(f"requests[{index}].", ""))
            else:
                _show_started(session, number, outcome)
            if isinstance(outcome, FlowkeepError) or ended_early(outcome.execution):
                code = 1
    return code


def _parts(requests: Sequence[tuple[int, ExecuteRequest]]) -> Iterator[Sequence[tuple[int, ExecuteRequest]]]:
    part, size = list[tuple[int, ExecuteRequest]](), 0
    for each in requests:
        more = each[1].ByteSize()
        if part and (len(part) == _MOST or size + more > _MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(each)
        size += more
    if part:
        yield part


def _show_started(session: Session, number: int, started: ExecuteResponse) -> None:
    execution = started.execution
    if session.json:
        show_json({"line": number} | json_form(execution) | {"created": started.created}, line=True)
    else:
        show(plain(f"{started_text(started)}, {state_name(execution)}: {execution.execution_id}"))


def _show_refused(session: Session, number: int, request: ExecuteRequest, error: FlowkeepError) -> None:
    if session.json:
        show_json({"line": number, "request_id": request.request_id, "error": error_form(error)}, line=True)
    else:
        show(plain(f"Line {number} was refused: {error.message} ({error.reason or error.code.name})"))
