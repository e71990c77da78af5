"""Tells a repeated request from a request id that is used for something else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec
from msgspec.structs import replace

from persistence.breakpoints import Breakpoint
from persistence.dry_runs import DryRun
from persistence.model import Workflow
from persistence.requests import Method, Request
from service.engine.definition import Definition
from service.engine.slices import Work

_BYTES_A_MICROSECOND = 150
_KEPT = 16
"""Bytes of a hash, which are enough: a caller that found two requests with the same would only mislead itself."""


class StartRequest(msgspec.Struct, frozen=True):
    """What a caller asks to be executed; times in seconds."""

    workflow: str
    revision: int = 0
    input: Mapping[str, Any] = msgspec.field(default_factory=dict)
    request_id: str = ""
    tags: Sequence[str] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    priority: int | None = None
    correlation_id: str = ""
    start_delay: float = 0.0
    timeout: float | None = None
    breakpoints: Sequence[Breakpoint] = ()
    dry_run: DryRun | None = None


def asked(
    method: Method, request_id: str, by: str, documents: Sequence[Mapping[str, Any]] = (), **rest: Any
) -> Work[Request | None]:
    """Give the request of a call other than Execute, None when it has no id. `rest` is what else was asked for."""
    if not request_id:
        return None
    content = hashlib.sha256(_encoded({"by": by, **rest}))
    for document in documents:
        text = _encoded(document)
        content.update(hashlib.sha256(text).digest())
        yield len(text) // _BYTES_A_MICROSECOND
    return Request(request_id, method, content.digest()[:_KEPT])


def content_hash(owner: str, request: StartRequest, workflow: Workflow | None = None) -> bytes:
    """Return half the SHA-256 of all that was asked for: a repeated request has the same, a reused id another one.

    Tags are a set, and a workflow that is named by its id is the one of its name, which never changes.
    """
    content: dict[str, Any] = {
        "workflow": request.workflow if workflow is None else workflow.name,
        "owner": owner,
        "revision": request.revision,
        "input": request.input,
        "tags": sorted(set(request.tags)),
        "labels": request.labels,
        "priority": request.priority,
        "correlation_id": request.correlation_id,
        "start_delay": request.start_delay,
        "timeout": request.timeout,
    }
    if request.breakpoints:
        content["breakpoints"] = [[point.path, point.condition] for point in request.breakpoints]
    if request.dry_run is not None:
        content["dry_run"] = msgspec.to_builtins(request.dry_run)
    return hashlib.sha256(_encoded(content)).digest()[:_KEPT]


def equivalents(
    owner: str, request: StartRequest, workflow: Workflow | None, definition: Definition | None
) -> Iterator[bytes]:
    """Give the hashes under which the same request may have been kept, beside its own `content_hash`.

    What it leaves to the definition may have been said by the first one, and the other way round.
    """
    yield content_hash(owner, request)
    if definition is None:
        return
    priorities = _same(request.priority, definition.default_priority)
    timeouts = _same(request.timeout or None, definition.timeout)
    for priority, timeout in product(priorities, timeouts):
        yield content_hash(owner, replace(request, priority=priority, timeout=timeout), workflow)


def _same(asked: Any, default: Any) -> tuple[Any, ...]:
    return (None, default) if asked in (None, default) else (asked,)


def _encoded(content: Any) -> bytes:
    return msgspec.json.encode(content, order="sorted")
