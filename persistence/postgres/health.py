"""Finds out whether the database can write again."""

from __future__ import annotations

import os
from uuid import UUID

from persistence.postgres.connection import Session

_SIZE = 256 << 10
"""Bytes: more than the gaps of a table have room for, so that its file has to grow."""

_TRY = """
INSERT INTO transitions (org_id, execution_id, seq, time, layout, body)
VALUES ('', $1, 1, clock_timestamp(), '', $2)"""


async def try_to_write(session: Session) -> None:
    """Write where everything is written, and take it back. Raises UnavailableError when that cannot be."""
    transaction = session.transaction()
    await transaction.start()
    try:
        await session.execute(_TRY, UUID(int=0), os.urandom(_SIZE))
    finally:
        await transaction.rollback()
