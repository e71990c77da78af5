"""Request ids of what is written outside of the committer, which keeps those of Execute.

A change begins with `keep`, in its own transaction: an equal one at the same time waits there until it is known whether
the first is written.
"""

from __future__ import annotations

from uuid import UUID

import asyncpg

from persistence.errors import RequestIdReusedError, UnavailableError
from persistence.postgres.connection import Session
from persistence.requests import Request

_KEEP = """
INSERT INTO requests (org_id, request_id, method, content_hash, execution_id, create_time)
VALUES ($1, $2, $3, $4, $5, clock_timestamp()) ON CONFLICT DO NOTHING"""
# What a lock finds is confirmed by the synchronous standbys before it is answered, as the write of a lock is.
_KNOWN = """
SELECT method, content_hash, workflow_ids, execution_id FROM requests
WHERE org_id = $1 AND request_id = $2 FOR KEY SHARE"""


async def keep(session: Session, org: str, request: Request | None, execution_id: UUID | None = None) -> Request | None:
    """Keep a request in the transaction that is to make the change; return it when it was kept, and made, before.

    Raises RequestIdReusedError when the first one was another.
    """
    if request is None:
        return None
    answer = await session.execute(_KEEP, org, request.id, request.method, request.content_hash, execution_id)
    if answer == "INSERT 0 1":
        return None
    if await known(session, org, request) is None:
        raise UnavailableError(f"request {request.id!r} was forgotten at this moment")
    return request


async def known(session: Session, org: str, request: Request) -> asyncpg.Record | None:
    """Return the row of a request, None when its id was never used. Raises RequestIdReusedError."""
    first = await session.fetchrow(_KNOWN, org, request.id)
    if first is not None and (first["method"], first["content_hash"]) != (request.method, request.content_hash):
        raise RequestIdReusedError(request.id)
    return first
