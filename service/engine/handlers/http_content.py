"""The body that a call sends: the schema of its forms, what is wrong with one, and the bytes that it becomes."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2
import msgspec

from service.engine.handlers.http_fields import FIELDS, SCALAR, fault_of_value, listed, text_of
from service.engine.schema import Problem
from service.engine.schema_places import Path

FORMS = ("json", "text", "form", "bytes", "multipart")
MOST_PARTS = 100
BYTES_TYPE, TEXT_TYPE = "application/octet-stream", "text/plain; charset=utf-8"

_BASE64 = {"description": "Base64, which may be broken into lines.", "type": "string"}
_TYPE = {"type": "string", "minLength": 1, "maxLength": 256}
_PART = {
    "type": "object",
    "properties": {
        "name": {"description": "The name of the field.", "type": "string", "minLength": 1, "maxLength": 256},
        "text": {"description": "What is sent, as UTF-8.", **SCALAR},
        "base64": {**_BASE64, "description": "What is sent, bytes as base64, which may be broken into lines."},
        "filename": {"description": "Makes the part a file.", "type": "string", "minLength": 1, "maxLength": 1024},
        "content_type": {
            "description": f"Default of a file: {TEXT_TYPE} with text, {BYTES_TYPE} with base64. Fields have none.",
            **_TYPE,
        },
    },
    "required": ["name"],
    "oneOf": [{"required": ["text"]}, {"required": ["base64"]}],
    "additionalProperties": False,
}
SCHEMA = {
    "json": {"description": f"Body, sent as JSON. A call has at most one of {', '.join(FORMS)}."},
    "text": {"description": "Body, sent as UTF-8 text.", "type": "string"},
    "form": {"description": "Body, sent as a web form; lists repeat the name.", **FIELDS},
    "bytes": {
        "description": "Body, sent as the bytes that the base64 stands for.",
        "type": "object",
        "properties": {
            "base64": _BASE64,
            "content_type": {"description": f"Default {BYTES_TYPE}.", **_TYPE},
        },
        "required": ["base64"],
        "additionalProperties": False,
    },
    "multipart": {
        "description": (
            "Body, sent as multipart/form-data: fields and files in this order; a name may come again. It is the same "
            "in each attempt of a step, byte for byte."
        ),
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_PARTS,
        "items": _PART,
    },
}


def check(params: Mapping[str, Any], headers: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say of the body."""
    given = [name for name in FORMS if name in params]
    for name in given[1:]:
        yield Problem((name,), f"cannot be given beside {given[0]}; a call has one body")
    typed = next((name for name in headers if name.lower() == "content-type"), "")
    if isinstance(body := params.get("bytes"), Mapping):
        yield from _check_bytes(body, ("bytes",))
        if typed and "content_type" in body:
            yield Problem(("headers", typed), "cannot be given beside bytes.content_type; remove one of them")
    if "multipart" in params and typed:
        yield Problem(("headers", typed), "is set by multipart, since it names what stands between parts; remove it")
    parts = params.get("multipart")
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, Mapping):
            yield from _check_bytes(part, ("multipart", index))


def _check_bytes(given: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    if isinstance(text := given.get("base64"), str):
        try:
            _bytes(text)
        except ValueError:
            yield Problem((*path, "base64"), "is no base64: letters, digits, + and /, with = at the end to four")
    if isinstance(kind := given.get("content_type"), str) and (fault := fault_of_value(kind)):
        yield Problem((*path, "content_type"), fault)


def content(params: Mapping[str, Any], headers: httpx2.Headers, token: str) -> bytes | None:
    """Return the body, None for none, and put its type into the headers. `token` is one for all attempts of a step."""
    if "json" in params:
        headers.setdefault("Content-Type", "application/json")
        return msgspec.json.encode(params["json"])
    if "text" in params:
        headers.setdefault("Content-Type", TEXT_TYPE)
        return str(params["text"]).encode()
    if "form" in params:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        return str(httpx2.QueryParams(listed(params["form"]))).encode()
    if "bytes" in params:
        headers.setdefault("Content-Type", params["bytes"].get("content_type", BYTES_TYPE))
        return _bytes(params["bytes"]["base64"])
    if "multipart" in params:
        return _multipart(params["multipart"], headers, token)
    return None


def _multipart(parts: Sequence[Mapping[str, Any]], headers: httpx2.Headers, token: str) -> bytes:
    written = [(_head(part), _bytes(part["base64"]) if "base64" in part else _utf8(part["text"])) for part in parts]
    # Made of all that stands between, so that none of it can hold it; and not drawn, so that a server which compares
    # bodies under one Idempotency-Key finds them equal.
    found = hashlib.sha256(token.encode())
    for head, body in written:
        found.update(b"%b\r\n%b" % (head, body))
    boundary = found.hexdigest()[:48]
    headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
    between = b"--" + boundary.encode()
    return b"".join(b"%b\r\n%b\r\n%b\r\n" % (between, head, body) for head, body in written) + between + b"--\r\n"


def _head(part: Mapping[str, Any]) -> bytes:
    """Return the lines above a part, with a line end behind the last."""
    head = f'Content-Disposition: form-data; name="{_quoted(part["name"])}"'
    is_file = "filename" in part
    if is_file:
        head += f'; filename="{_quoted(part["filename"])}"'
    default = (BYTES_TYPE if "base64" in part else TEXT_TYPE) if is_file else ""
    if kind := part.get("content_type", default):
        head += f"\r\nContent-Type: {kind}"
    return f"{head}\r\n".encode()


def _quoted(name: str) -> str:
    """Return a name as browsers write it between quotes."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _utf8(value: Any) -> bytes:
    return text_of(value).encode()


def _bytes(text: str) -> bytes:
    """Return what base64 stands for. Raises ValueError."""
    return b64decode("".join(text.split()), validate=True)
