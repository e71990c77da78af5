"""Leases of replica processes, by the clock of the database."""

from __future__ import annotations

from uuid import UUID

from persistence.postgres.claims import release
from persistence.postgres.connection import Database

_REGISTER = """
INSERT INTO replicas (incarnation, name, register_time, lease_until)
VALUES ($1, $2, clock_timestamp(), clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (incarnation) DO UPDATE SET lease_until = excluded.lease_until"""
# Long after anything could have referred to them.
_FORGET = "DELETE FROM replicas WHERE lease_until < clock_timestamp() - interval '7 days'"
_RENEW = """
UPDATE replicas SET lease_until = clock_timestamp() + make_interval(secs => $2)
WHERE incarnation = $1 AND lease_until > clock_timestamp()"""
_END = "UPDATE replicas SET lease_until = clock_timestamp() WHERE incarnation = $1 AND lease_until > clock_timestamp()"
_END_OTHERS = """
UPDATE replicas SET lease_until = clock_timestamp() WHERE incarnation <> $1 AND lease_until > clock_timestamp()"""


class PostgresReplicas:
    """Implements ReplicaRepository."""

    _database: Database

    async def register(self, incarnation: UUID, name: str, ttl: float) -> None:
        """See ReplicaRepository."""
        async with self._database.session() as session:
            await session.execute(_REGISTER, incarnation, name, ttl)
            await session.execute(_FORGET)

    async def renew(self, incarnation: UUID, ttl: float) -> bool:
        """See ReplicaRepository. Runs on a connection of its own, which no other work can hold up."""
        return await self._database.reserved(_RENEW, incarnation, ttl) == "UPDATE 1"

    async def retire(self, incarnation: UUID) -> None:
        """See ReplicaRepository."""
        async with self._database.session() as session, session.transaction():
            await session.execute(_END, incarnation)
            await release(session, incarnation, None)

    async def retire_others(self, incarnation: UUID) -> None:
        """See ReplicaRepository."""
        async with self._database.session() as session:
            await session.execute(_END_OTHERS, incarnation)
