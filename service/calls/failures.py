"""Why a gRPC call failed: codes, what may be tried again, and what is told of the call."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from service.calls.messages import TooManyValuesError, UnreadableMessageError, decoded
from service.engine.handlers.http_answer import CONNECTION_FAILED, MAX_RETRY_AFTER, RESPONSE_TOO_LARGE
from service.engine.handlers.http_secrets import HIDDEN, names_secret
from service.engine.handlers.model import HandlerError

METHOD_NOT_FOUND = "METHOD_NOT_FOUND"

RETRIED = frozenset(
    {
        grpc.StatusCode.CANCELLED,  # nobody here has: a server that is overloaded or stops says so
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
    }
)
"""Statuses after which another attempt may help, as after 5XX, 408 and 429 of HTTP."""

MAX_TEXT = 1_024
_MOST_DETAILS = 20
# The shortest secret of which other texts are cleared: shorter ones stand in too many by chance.
_SHORTEST_HIDDEN = 6
_DETAILS = "grpc-status-details-bin"
_KNOWN_DETAILS = frozenset(error_details_pb2.DESCRIPTOR.message_types_by_name)
# What gRPC says itself where no status of the other side came.
_BROKEN_OFF = re.compile(
    r"failed to connect|socket closed|connection (reset|refused|aborted)|broken pipe|recvmsg|sendmsg|goaway"
    r"|stream removed|endpoint closing|transport closed|keepalive|ipv[46]:",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"ipv[46]:[^\s,;]+?(?=:?\s|[,;]|$)")
# The other side says SERVER of what it was sent.
_TOO_LARGE = re.compile(r"(Stream removed \()?(CLIENT: Received|Decompressed) message larger than max")


def status_code(status: grpc.StatusCode) -> str:
    """Return the code of the failure of a call that ended with a status."""
    return f"GRPC_{status.name}"


@dataclass(frozen=True, slots=True)
class Told:
    """How messages and details name a call: method and target, without secrets of its metadata."""

    method: str
    target: str
    secrets: tuple[str, ...] = ()

    def error(
        self, code: str, text: str, *, retryable: bool = False, retry_after: float | None = None, **details: Any
    ) -> HandlerError:
        """Return the error of this call."""
        details = {"method": self.method, "target": self.target, **details}
        return HandlerError(code, f"{self.method} at {self.target}: {text}", details, retryable, retry_after)

    def hide(self, value: Any) -> Any:
        """Return texts of the other side without the secrets of the call, which some servers repeat."""
        match value:
            case str():
                for secret in self.secrets:
                    value = value.replace(secret, HIDDEN)
                return value
            case dict():
                return {name: self.hide(member) for name, member in value.items()}
            case list():
                return [self.hide(member) for member in value]
            case _:
                return value


def secrets_of(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, ...]:
    """Return the values of metadata whose names say that they are secret, also without a scheme as of Bearer."""
    found: set[str] = set()
    for name, value in metadata:
        if isinstance(value, str) and names_secret(name):
            found |= {value, value.partition(" ")[2]}
    return tuple(sorted((each for each in found if len(each) >= _SHORTEST_HIDDEN), key=len, reverse=True))


async def error_of(error: grpc.aio.AioRpcError, told: Told) -> HandlerError:
    """Return what the failure of a call is to its step."""
    status, said = error.code(), _plain(error.details())
    if status is grpc.StatusCode.UNAVAILABLE and _BROKEN_OFF.match(said):
        return told.error(CONNECTION_FAILED, _reason(said), retryable=True)
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.match(said):
        return told.error(RESPONSE_TOO_LARGE, "the answer has a message of more than 1048576 bytes")
    details, retry_after = await _details(error.trailing_metadata())
    more: dict[str, Any] = {"status": status.name, "status_message": told.hide(said)[:MAX_TEXT]}
    if details:
        more["error_details"] = told.hide(details)
    text = f"answered {status.name}" + (f": {told.hide(said)[:MAX_TEXT]}" if said else "")
    retryable = status in RETRIED
    return told.error(
        status_code(status), text, retryable=retryable, retry_after=retry_after if retryable else None, **more
    )


async def _details(metadata: Any) -> tuple[list[Any], float | None]:
    """Return what of google.rpc the other side says more of an error, and the pause in seconds that it asks for.

    Of other types the name is told alone.
    """
    data = next((value for name, value in metadata or () if name == _DETAILS and isinstance(value, bytes)), b"")
    try:
        found = status_pb2.Status.FromString(data).details
    except DecodeError:
        return [], None
    told: list[Any] = []
    pause: float | None = None
    for each in found[:_MOST_DETAILS]:
        detail = await _detail(each)
        told.append(detail)
        if detail["@type"].endswith("/google.rpc.RetryInfo") and len(detail) > 1:
            pause = _pause(each.value)
    return told, pause


async def _detail(packed: Any) -> dict[str, Any]:
    name = {"@type": _plain(packed.type_url)[:256]}
    package, _, kind = packed.type_url.rpartition("/")[2].rpartition(".")
    if package != "google.rpc" or kind not in _KNOWN_DETAILS:
        return name
    try:
        value = await decoded(packed.value, getattr(error_details_pb2, kind), descriptor_pool.Default())
    except (UnreadableMessageError, TooManyValuesError):
        return name
    return {**name, **value}


def _pause(data: bytes) -> float:
    delay = error_details_pb2.RetryInfo.FromString(data).retry_delay
    return min(max(float(delay.seconds + delay.nanos / 1e9), 0.0), MAX_RETRY_AFTER)


def _reason(said: str) -> str:
    """Return why there is no connection, or none any more, from the system that knows, without addresses."""
    _, is_unmade, last = said.rpartition("last error: ")
    text = re.sub(r"\s+", " ", _ADDRESS.sub("", last)).strip(" :")
    text = re.sub(r"^(UNKNOWN|UNAVAILABLE|UNIMPLEMENTED)[: ]+|^Stream removed \((.*)\)$", r"\2", text)
    return f"{'no connection' if is_unmade else 'the connection broke off'}: {text}"[:300]


def _plain(text: str | None) -> str:
    return (text or "").replace("\0", "\N{REPLACEMENT CHARACTER}")
