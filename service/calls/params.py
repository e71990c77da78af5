"""What a step may say to `call_grpc`: the schema of its params, and what a schema cannot say of them."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.calls.targets import Target, check_authority, target
from service.engine.durations import TEN_YEARS
from service.engine.handlers.credentials import of_fields, of_headers
from service.engine.handlers.http_fields import SCALAR, text_of
from service.engine.pauses import seconds
from service.engine.schema import Problem
from service.engine.schema_places import Path

DEFAULT_TIMEOUT = 30.0
DEFAULT_MESSAGES, MAX_MESSAGES = 100, 1_000
MAX_DESCRIPTOR_SET = 256 << 10
MAX_METADATA = 6 << 10
"""Bytes of names and values: servers take 8 KiB with what gRPC itself adds, unless they are told otherwise."""

_METHOD = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*/[A-Za-z_]\w*", re.ASCII)
_NAME = re.compile(r"[0-9a-z_.-]+", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]*")
# The call's identity and the framing of the message are not the workflow's to choose.
_RESERVED = frozenset(
    {
        "idempotency-key",
        "x-flowkeep-attempt",
        "content-type",
        "user-agent",
        "te",
        "host",
        "connection",
        "content-length",
    }
)

PARAMS = {
    "type": "object",
    "properties": {
        "target": {
            "description": (
                "The server: host:port or dns:///host:port; also https://host (port 443, TLS) and http://host (port "
                "80, plaintext)."
            ),
            "type": "string",
            "minLength": 1,
            "maxLength": 320,
        },
        "method": {
            "description": 'The method, as "package.Service/Method". Unary or server-streaming.',
            "type": "string",
            "minLength": 1,
            "maxLength": 512,
        },
        "message": {
            "description": "The request, by the JSON mapping of protobuf. Default {}. At most 262144 bytes encoded."
        },
        "metadata": {
            "description": (
                "Sent with the call, as headers are. Names and values in ASCII; a name that ends in -bin has its value "
                "in base64. idempotency-key and x-flowkeep-attempt are sent in any case. 6144 bytes in all."
            ),
            "type": "object",
            "additionalProperties": SCALAR,
            "maxProperties": 64,
        },
        "tls": {
            "description": (
                "Whether by TLS. Default true. The certificate must be of the host (or of `authority`), by one that "
                "the server trusts. false: plaintext. A text: by TLS with the certificates of this name in the "
                "server's setting FLOWKEEP_HTTP_TLS: whom to trust in place of the usual CAs, as whom to come, or both."
            ),
            "type": ["boolean", "string"],
            "minLength": 1,
            "maxLength": 64,
        },
        "authority": {
            "description": "The host to ask for, if not that of the target: with TLS the name in the certificate.",
            "type": "string",
            "minLength": 1,
            "maxLength": 260,
        },
        "timeout": {
            "description": (
                'For the whole call: seconds, or text such as "2s". Default 30 s. The other side sees it as deadline. '
                "The step's timeout holds in any case."
            ),
            "type": ["number", "string"],
            "exclusiveMinimum": 0,
            "maximum": TEN_YEARS,
        },
        "descriptor_set": {
            "description": (
                "What the method takes and gives, where the server has no reflection: a FileDescriptorSet with all "
                "imports (protoc --include_imports --descriptor_set_out), in base64. At most 262144 bytes."
            ),
            "type": "string",
            "minLength": 1,
        },
        "max_messages": {
            "description": (
                "Of a server-streaming method: after so many messages the call is ended and the step completes. "
                f"Default {DEFAULT_MESSAGES}."
            ),
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_MESSAGES,
        },
    },
    "required": ["target", "method"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What params ask for. `metadata` is without what Flowkeep adds; `descriptor_set` is empty for reflection."""

    target: Target
    service: str
    method: str
    message: Any
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout: float
    descriptor_set: bytes
    max_messages: int

    @property
    def path(self) -> str:
        """The method as params write it."""
        return f"{self.service}/{self.method}"


def asked(params: Mapping[str, Any]) -> Asked:
    """Return what params that `check` found right ask for."""
    service, _, method = params["method"].partition("/")
    return Asked(
        target=target(params["target"], params.get("tls"), params.get("authority")),
        service=service,
        method=method,
        message=params.get("message", {}),
        metadata=tuple(_entry(name.lower(), text_of(value)) for name, value in params.get("metadata", {}).items()),
        timeout=seconds(params.get("timeout", DEFAULT_TIMEOUT)),
        descriptor_set=b64decode(params.get("descriptor_set", "")),
        max_messages=params.get("max_messages", DEFAULT_MESSAGES),
    )


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say; a template stands for a string that may yet become right."""
    tls, authority = params.get("tls"), params.get("authority")
    try:
        target(params["target"], None if isinstance(tls, str) and "${" in tls else tls)
    except ValueError as error:
        yield Problem(("target",), str(error))
    if not _METHOD.fullmatch(params["method"]):
        yield Problem(("method",), 'must be a service and its method, as in "package.Service/Method"')
    try:
        if authority is not None:
            check_authority(authority)
    except ValueError as error:
        yield Problem(("authority",), str(error))
    try:
        if not seconds(params.get("timeout", DEFAULT_TIMEOUT)):
            yield Problem(("timeout",), "must be more than 0 s")
    except ValueError as error:
        yield Problem(("timeout",), str(error))
    metadata = params.get("metadata")
    yield from _check_metadata(metadata if isinstance(metadata, Mapping) else {})
    yield from _check_descriptor_set(params.get("descriptor_set"))


def credentials(params: Mapping[str, Any]) -> Iterator[Path]:
    """Return where a call has credentials: in metadata and fields that are named so."""
    yield from of_headers(params.get("metadata"), ("metadata",))
    yield from of_fields(params.get("message"), ("message",))


def _check_metadata(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, value in metadata.items():
        if fault := _fault_of_name(name) or _fault_of_value(name.lower(), text_of(value)):
            yield Problem(("metadata", name), fault)
        elif (other := seen.setdefault(name.lower(), name)) != name:
            yield Problem(("metadata", name), f"is {other} once more; upper and lower case are one")
    if sum(len(name) + len(text_of(value)) for name, value in metadata.items()) > MAX_METADATA:
        yield Problem(("metadata",), f"must have at most {MAX_METADATA} bytes in all")


def _fault_of_name(name: str) -> str:
    """Return why metadata cannot have a name, empty if it can."""
    if not _NAME.fullmatch(name.lower()):
        return "is no name of metadata: it has a character other than letters, digits, _ - and ."
    if name.lower() in _RESERVED or name.lower().startswith("grpc-"):
        return "is set by Flowkeep or by gRPC; remove it"
    return ""


def _fault_of_value(name: str, value: str) -> str:
    """Return why metadata of a name cannot have a value, empty if it can."""
    if name.endswith("-bin"):
        return "" if _decoded(value) is not None else "must be base64, since its name ends in -bin"
    if not _VALUE.fullmatch(value):
        return "has a value that metadata cannot carry: a control character or one beyond ASCII"
    return "has a value that begins or ends with a space" if value != value.strip() else ""


def _check_descriptor_set(text: Any) -> Iterator[Problem]:
    if not isinstance(text, str):
        return
    data = _decoded(text)
    if data is None:
        yield Problem(("descriptor_set",), "must be base64")
    elif len(data) > MAX_DESCRIPTOR_SET:
        yield Problem(("descriptor_set",), f"has {len(data)} bytes; at most {MAX_DESCRIPTOR_SET} are taken")


def _entry(name: str, value: str) -> tuple[str, str | bytes]:
    return name, b64decode(value) if name.endswith("-bin") else value


def _decoded(text: str) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
