"""Texts of files and of standard input, and the documents in them."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from pathlib import Path

from service.cli.reading.document import Document, TextError, UnreadableError
from service.cli.reading.json_text import parse_json
from service.cli.reading.yaml_text import parse_yaml

# What one call to the service may hold.
MAX_BYTES = 4 << 20

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(source: str) -> str:
    """Return the text of a file, or of standard input for `-`, without a byte order mark.

    Raises TextError for what cannot be read, is no text in UTF-8 or has more than 4 MiB.
    """
    name = "standard input" if source == "-" else source
    try:
        if source == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise TextError(f"{source} is a folder; name a file in it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TextError(f"cannot read {source}: {reason}") from None
    if len(data) > MAX_BYTES:
        raise TextError(f"{name} has more than {MAX_BYTES >> 20} MiB")
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise TextError(f"{name} is in {encoding}; save it as UTF-8")
    if b"\0" in data:
        raise TextError(f"{name} is no text in UTF-8: it holds the character NUL")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise TextError(f"{name} is no text in UTF-8: line {line} holds the byte 0x{byte:02X}") from None


def parse_documents(text: str, name: str = "") -> Iterator[Document]:
    """Yield the documents of a text: JSON where it begins as JSON and is JSON, else YAML.

    In a file named `*.json` only JSON is looked for. Raises UnreadableError behind the last document that can be read.
    """
    only_json = name.lower().endswith(".json")
    begins = text.lstrip(" \t\r\n")[:1]
    if not only_json and begins not in ("{", "[", '"'):
        yield from parse_yaml(text)
        return
    try:
        yield from parse_json(text)
        return
    except UnreadableError as error:
        if only_json or error.is_certain:
            raise
        refusal = error
    try:
        documents = list(parse_yaml(text))
    except UnreadableError as error:
        # Of two refusals that of the language that was probably meant.
        raise (refusal if _is_probably_json(text) and not error.is_certain else error) from None
    yield from documents


def _is_probably_json(text: str) -> bool:
    bare = "".join(text[:1000].split())
    return bare.startswith(('{"', "[{", '["', "{}", "[]", "{//", "{/*"))
