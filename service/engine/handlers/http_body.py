"""What the bytes of an HTTP body stand for: content codings undone, charsets read, JSON parsed."""

from __future__ import annotations

import asyncio
import codecs
import encodings.aliases
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from service.engine import payload

ACCEPTED_CODINGS = "gzip, deflate"
_KNOWN_CODINGS = ("gzip", "x-gzip", "deflate")
_MOST_CODINGS = 4
# What one costs does not depend on its length.
_MOST_MEMBERS, _MEMBERS_A_TURN = 150_000, 500
_GZIP, _ZLIB, _RAW = 31, 15, -15
_PIECE = 4096
_ZEROS = re.compile(rb"\0*")

# What text on the web is written in. Of the rest that Python knows some are no charset of text, and some take time
# that grows with the square of the length.
_CHARSETS = frozenset(
    {
        *("ascii", "utf_8", "utf_8_sig", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"),
        *("latin_1", *(f"iso8859_{part}" for part in range(1, 17) if part != 12)),
        *(f"cp{page}" for page in (437, 850, 852, 855, 866, 874, 932, 949, 950, *range(1250, 1259))),
        *("koi8_r", "koi8_u", "mac_roman", "mac_cyrillic", "tis_620"),
        *("shift_jis", "euc_jp", "iso2022_jp", "euc_kr", "gb2312", "gbk", "gb18030", "big5", "big5hkscs"),
    }
)
_CODECS = {
    **{name: name for name in _CHARSETS},
    **{alias: codec for alias, codec in encodings.aliases.aliases.items() if codec in _CHARSETS},
    **{"x_sjis": "cp932", "x_gbk": "gbk", "iso_8859_8_i": "iso8859_8"},
}
_CHARSET = re.compile(r';\s*charset\s*=\s*(?:"([^"]*)"|([^\s;,]*))', re.IGNORECASE)
_LONGEST_TYPE = 1024
# Bits, more than those of the largest double; writing out a number takes time that grows with the square of them.
_LONGEST_NUMBER = 1_100


# What stands before a value or behind the last.
_JSON_PIECE = re.compile(r"[,\[{\]}]")
# Two of each string. Half of the strings may be keys; before each value is a comma, or the beginning of a container.
_MOST_QUOTES = 9 * payload.MAX_NODES
# From where on msgspec refuses JSON by itself.
_DEPTH_OF_DECODER = 2_000


class UnreadableError(ValueError):
    """A body is not what its headers say or what was asked for; the text tells what is wrong, and what would help."""


class TooManyValuesError(UnreadableError):
    """A body is JSON of more values than a payload may have."""


async def uncompressed(
    body: bytes, content_encodings: Sequence[str], limit: int, *, partly: bool
) -> tuple[bytes, bool]:
    """Return at most `limit` bytes of what was compressed, and whether that is all. Memory stays near the limit,
    and the event loop goes on.

    Raises UnreadableError when it cannot be read, or is cut off; `partly` takes what there is before the cut.
    """
    codings = [coding.strip().lower() for line in content_encodings for coding in line.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if len(codings) > _MOST_CODINGS:
        raise UnreadableError(f"the body is compressed {len(codings)} times; {_MOST_CODINGS} can be undone")
    if unknown := next((coding for coding in codings if coding not in _KNOWN_CODINGS), None):
        raise UnreadableError(
            f"the body is compressed as {unknown[:32]!r}, which was not asked for; {ACCEPTED_CODINGS} can be read"
        )
    is_whole = True
    for coding in reversed(codings):
        body, is_whole = await _inflated(body, coding, limit, partly) if body else (body, True)
        if not is_whole:
            break
    return body[:limit], is_whole and len(body) <= limit


async def _inflated(body: bytes, coding: str, limit: int, partly: bool) -> tuple[bytes, bool]:
    try:
        if coding != "deflate":
            return await _members(body, _GZIP, limit, partly)
        try:
            return await _members(body, _ZLIB, limit, partly)
        except zlib.error:  # many servers leave the wrapper out
            return await _members(body, _RAW, limit, partly)
    except zlib.error:
        raise UnreadableError(f"the body is not compressed as its header content-encoding says: {coding}") from None


async def _members(body: bytes, form: int, limit: int, partly: bool) -> tuple[bytes, bool]:
    """Read member after member: a gzip file may be several, one behind the other, and be padded with zeros."""
    plain, at, members = bytearray(), 0, 0
    while at < len(body):
        members += 1
        if members > _MOST_MEMBERS:
            raise UnreadableError(f"the body is compressed in more than {_MOST_MEMBERS:,} members")
        if members % _MEMBERS_A_TURN == 0:
            await asyncio.sleep(0)
        member = zlib.decompressobj(form)
        while at < len(body) and not member.eof:
            # In pieces: what is left behind the end of each member is copied.
            piece = body[at : at + _PIECE]
            plain += member.decompress(piece, limit + 1 - len(plain))
            if len(plain) > limit:
                return bytes(plain[:limit]), False
            at += len(piece) - len(member.unused_data)
        if not (member.eof or partly):
            raise UnreadableError("the body is cut off: its compressed data has no end")
        at = _ZEROS.match(body, at).end()  # type: ignore[union-attr]  # it matches everywhere
    return bytes(plain), True


def media_type(content_type: str) -> str:
    """Return the type of a body, such as `text/plain`, without its parameters."""
    return content_type[:_LONGEST_TYPE].partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Return whether a media type is one of JSON."""
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def as_text(body: bytes, content_type: str) -> str:
    """Return the text of a body, without a byte order mark. Raises UnreadableError when it is none."""
    text = _decoded(body, content_type).removeprefix("\ufeff")
    if "\0" in text:
        raise UnreadableError("the body is binary; take it with response: base64")
    return text


def _decoded(body: bytes, content_type: str) -> str:
    charset = _charset(content_type)
    codec = _codec(charset) if charset else "utf_8"
    try:
        return body.decode("utf_8" if body.startswith(codecs.BOM_UTF8) else codec)
    except UnicodeError:
        if charset or not media_type(content_type).startswith("text/"):
            raise UnreadableError(
                f"the body is not text in {charset or 'UTF-8'}; take it with response: base64"
            ) from None
    # Western pages of old say nothing of their charset; browsers take them for this one, too.
    try:
        return body.decode("utf_16" if body[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252")
    except UnicodeError:
        raise _no_text("UTF-8") from None


def _no_text(charset: str) -> UnreadableError:
    return UnreadableError(f"the body is not text in {charset[:32]}; take it with response: base64")


def _charset(content_type: str) -> str:
    found = _CHARSET.search(content_type[:_LONGEST_TYPE])
    return (found[1] or found[2] or "").strip() if found else ""


def _codec(charset: str) -> str:
    # Not through codecs.lookup, which takes "-punycode" for punycode and remembers each name that it does not know.
    codec = _CODECS.get(re.sub(r"[^a-z0-9]+", "_", charset.lower()))
    if codec is None:
        raise UnreadableError(f"the body has an unknown charset, {charset[:32]!r}; take it with response: base64")
    return codec


def as_json(body: bytes, content_type: str) -> Any:
    """Return the value of a body in JSON. Raises UnreadableError when it is none."""
    if not body.strip():
        raise UnreadableError("the body is empty and should be JSON")
    try:
        text = _json_text(body, content_type)
        if _has_too_many_values(text):
            raise TooManyValuesError(payload.TOO_MANY_VALUES)
        return msgspec.json.decode(text)
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError("the body is JSON that is nested too deep") from None
    except ValueError as error:
        reason = str(error)  # a place and what is wrong there, nothing of the body
        hint = "; for one value per line ask for response: text" if "trailing characters" in reason else ""
        raise UnreadableError(f"the body is not JSON: {reason}{hint}") from None


def _has_too_many_values(text: str) -> bool:
    """Return whether JSON has surely more values than a payload may have, without making them."""
    if sum(map(text.count, ",[{")) <= payload.MAX_NODES:
        return False
    commas = containers = depth = 0
    for piece in _JSON_PIECE.finditer(_without_strings(text)):
        match piece[0]:
            case ",":
                commas += 1
            case "[" | "{":
                containers += 1
                depth += 1
            case "]" | "}":
                depth -= 1
        if not 0 <= depth <= _DEPTH_OF_DECODER:  # the decoder refuses what closes more than it opens, too
            return False
        if max(commas, containers) > payload.MAX_NODES:
            return True
    return False


def _without_strings(text: str) -> str:
    """Return JSON without its strings, up to where so many have been that there are too many values.

    Not by a pattern of a string: the last may have no end, and would be searched for from each quote in it.
    """
    pieces = text.replace("\\\\", "").replace('\\"', "").split('"', _MOST_QUOTES)
    return "".join(pieces[:_MOST_QUOTES:2])


def _json_text(body: bytes, content_type: str) -> str:
    """Return JSON as text: UTF-8, 16 or 32 by its first bytes, else in the charset that its type gives."""
    try:
        return body.decode(json.detect_encoding(body)).removeprefix("\ufeff")
    except UnicodeError:
        if not _charset(content_type):
            raise UnreadableError("the body is not JSON: it is not in UTF-8, and its type gives no charset") from None
    return as_text(body, content_type)


def big_as_text(value: Any) -> Any:
    """Return a value in which each whole number that a payload cannot hold is the text of its digits."""
    match value:
        case dict():
            return {name: big_as_text(member) for name, member in value.items()}
        case list():
            return [big_as_text(member) for member in value]
        case int() | float() if abs(value) > payload.MAX_INTEGER and payload.check(value):
            number = int(value)
            return str(number) if number.bit_length() <= _LONGEST_NUMBER else value
        case _:
            return value
