"""Divides what was seen of many executions into parts that can be judged one after the other."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from tests.faults.harness.database import Postgres
from tests.faults.harness.records import Record


@dataclass(frozen=True)
class Division:
    """Executions by part. Those of one request id, which should be one, and of one correlation id are in one part."""

    parts: Sequence[Set[str]]
    requests: Mapping[str, str]
    """The request id of each execution, or its correlation id where it has one."""

    def part_of(self, record: Record, number: int) -> Record:
        """Return a record in which clients and the world outside saw only what belongs to the part of this number."""

        def is_here(execution_id: str, request_id: str = "") -> bool:
            return self._number(request_id or self.requests.get(execution_id, "")) == number

        return replace(
            record,
            calls=tuple(call for call in record.calls if is_here(call.execution_id, call.request_id)),
            streams=tuple(stream for stream in record.streams if is_here(stream.execution_id)),
            effects=tuple(effect for effect in record.effects if is_here(effect.execution_id)),
        )

    def _number(self, request_id: str) -> int:
        return number_of(request_id, len(self.parts))


def number_of(request_id: str, parts: int) -> int:
    """Return the number of the part that a request id belongs to; of executions that are not known, the first."""
    return zlib.crc32(request_id.encode()) % parts if request_id else 0


async def divide(postgres: Postgres, count: int) -> Division:
    """Return all executions that Postgres knows of in `count` parts."""
    parts: list[set[str]] = [set() for _ in range(count)]
    requests: dict[str, str] = {}
    for row in await postgres.query(
        "SELECT id, coalesce(nullif(correlation_id, ''), request_id) AS request_id FROM executions "
        "UNION SELECT execution_id, request_id FROM requests WHERE method = 'EXECUTE'"
    ):
        execution_id, request_id = str(row["id"]), row["request_id"] or ""
        requests.setdefault(execution_id, request_id)
        parts[number_of(requests[execution_id], count)].add(execution_id)
    return Division(parts, requests)
