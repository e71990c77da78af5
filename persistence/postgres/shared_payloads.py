"""Reads large payloads, which are kept once for each execution, and to which rows refer by digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from persistence.postgres.connection import Session
from persistence.postgres.records import NotReadableError, document

COLUMNS = ("input", "output", "assigned")
"""Columns of a step whose payload may be kept apart."""

# Key by key (OFFSET 0 keeps it so), as details are read.
_READ = """
SELECT p.* FROM unnest($1::text[], $2::uuid[], $3::text[]) AS u(org_id, id, digest), LATERAL (
    SELECT p.execution_id, p.digest, p.document, p.message FROM shared_payloads p
    WHERE p.org_id = u.org_id AND p.execution_id = u.id AND p.digest = u.digest OFFSET 0) p"""


class Cut(msgspec.Struct, frozen=True):
    """What was cut out of an event: its digest, from which byte on it belongs there, and its size."""

    seq: int
    digest: str
    at: int
    size: int


_decode_cuts = msgspec.json.Decoder(list[Cut]).decode

PayloadKey = tuple[UUID, str]
"""Execution and digest."""


async def read(session: Session, wanted: Sequence[tuple[str, UUID, str]]) -> dict[PayloadKey, Any]:
    """Return the rows of shared payloads, by execution and digest; some may not be there."""
    if not wanted:
        return {}
    rows = await session.fetch(_READ, *map(list, zip(*dict.fromkeys(wanted), strict=True)))
    return {(row["execution_id"], row["digest"]): row for row in rows}


def references(text: str | None) -> dict[str, str]:
    """Return which columns of a step are kept apart, with their digests. Raises NotReadableError."""
    if text is None or text == "null":
        return {}
    found = {name: digest for name, digest in document(text).items() if name in COLUMNS}
    if any(type(digest) is not str for digest in found.values()):
        raise NotReadableError("no digest")
    return found


def cuts(text: str | None) -> dict[int, Cut]:
    """Return what was cut out of the events of a row, by their numbers, as far as anybody can tell."""
    if text is None:
        return {}
    try:
        return {cut.seq: cut for cut in _decode_cuts(text)}
    except Exception:  # written by hand: the bodies are then no messages, which is told where they are sent
        return {}
