"""Request ids that are known already, and what a creation under one of them is answered."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from persistence.errors import ExecutionNotFoundError, RequestIdReusedError, WorkflowNotFoundError
from persistence.model import Execution
from persistence.postgres.commit.statements import KNOWN_REQUESTS
from persistence.postgres.commit.units import Creation, Outcome, Unit
from persistence.postgres.connection import Session
from persistence.postgres.mending import execution
from persistence.requests import Method
from persistence.transition import Created


async def find_request(
    session: Session, org: str, request_id: str, content_hashes: Collection[bytes], method: Method = Method.EXECUTE
) -> Execution | None:
    """Return the execution that a request id started, by this method; else raises RequestIdReusedError.

    Raises ExecutionNotFoundError for one that was removed since.
    """
    known = await session.fetchrow(KNOWN_REQUESTS.text, [org], [request_id])
    if known is None:
        return None
    if known["method"] != method or known["content_hash"] not in content_hashes:
        raise RequestIdReusedError(request_id)
    if known["id"] is None:
        raise ExecutionNotFoundError(known["execution_id"])
    return execution(known)


async def repeated(connection: Session, creations: list[Creation]) -> dict[Unit, Outcome]:
    """Return the answers to creations whose request ids are known, or whose workflows are not there."""
    keys = [c.key for c in creations]
    found = await connection.fetch(KNOWN_REQUESTS.text, *zip(*keys, strict=True))
    known = {(row["request_org"], row["request"]): row for row in found}
    return {c: _answer(c, known.get(key)) for c, key in zip(creations, keys, strict=True)}


def _answer(creation: Creation, known: asyncpg.Record | None) -> Outcome:
    if known is None or not creation.execution.request_id:
        return WorkflowNotFoundError(str(creation.execution.workflow_id))
    if (known["method"], known["content_hash"]) != (creation.new.method, creation.new.content_hash):
        return RequestIdReusedError(creation.execution.request_id)
    if known["id"] is None:
        return ExecutionNotFoundError(known["execution_id"])
    is_ours = creation.in_doubt and known["execution_id"] == creation.execution.id
    return Created.anew(creation.new, execution(known)) if is_ours else Created(execution(known), False)
