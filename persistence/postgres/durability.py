"""What a crash of the database may take with it."""

from __future__ import annotations

import logging

from persistence.postgres.connection import Session

_log = logging.getLogger(__name__)

_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")


async def tell_durability(session: Session) -> None:
    """Log which settings decide over it, for this kind of connection; as a warning when a crash loses executions."""
    values = await session.fetchval(
        "SELECT array_agg(current_setting(name)) FROM unnest($1::text[]) AS name", _SETTINGS
    )
    held = ", ".join(f"{name} = {value or 'none'}" for name, value in zip(_SETTINGS, values, strict=True))
    if "off" in values[:3]:
        _log.warning("NOT DURABLE: a crash of the database loses executions that were acknowledged: %s", held)
    else:
        _log.info("durability of the database: %s", held)
