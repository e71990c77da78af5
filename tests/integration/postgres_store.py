"""A Postgres store with a workflow and an owner, and a look behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
from msgspec.structs import replace

from persistence.model import Execution
from persistence.postgres import PostgresRepository
from persistence.transition import NewExecution, Transition
from service.engine.ids import uuid7
from tests.conformance.builders import ORG, SCOPE, Keeper, document, execution, new, step, transition


@dataclass(frozen=True)
class PostgresStore(Keeper):
    """A repository with a workflow and an owner, and a look behind it."""

    repository: PostgresRepository
    admin: asyncpg.Connection

    def new(self, **changes: Any) -> NewExecution:
        """What creates an execution that the owner has."""
        return new(execution(self.workflow, self.incarnation, **changes))

    async def put_many(self, count: int) -> list[Execution]:
        """Keep so many executions that the owner has, created at once."""
        created = await asyncio.gather(*(self.repository.create(self.new()) for _ in range(count)))
        return [made.execution for made in created]

    async def kill(self) -> int:
        """End the committer's backend from outside."""
        return int(
            await self.admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'flowkeep committer' AND datname = current_database()"
            )
        )

    async def check(self, row: Execution, last_seq: int) -> None:
        """The history has no gap and nothing twice, and the row says the same."""
        seqs = await self.admin.fetch("SELECT seq FROM events WHERE execution_id = $1 ORDER BY seq", row.id)
        assert [seq["seq"] for seq in seqs] == list(range(1, last_seq + 1))
        assert (await self.repository.get_execution(SCOPE, row.id)).last_seq == last_seq


def move(row: Execution, base_seq: int, **changes: Any) -> Transition:
    """A transition of one event and one step, behind `base_seq`."""
    return transition(replace(row, last_seq=base_seq), **{"steps": [step(f"s{base_seq}")], **changes})


@asynccontextmanager
async def opened(dsn: str, admin: asyncpg.Connection, **settings: Any) -> AsyncIterator[PostgresStore]:
    """A store over an empty database, closed at the end."""
    repository = await PostgresRepository.open(dsn, pool_size=2, **settings)
    owner = uuid4()
    await repository.register(owner, "test", 300)
    workflow = await repository.create_workflow(ORG, uuid7(), document(), "ann")
    yield PostgresStore(repository, workflow, owner, admin)
    await repository.close()


async def settled(*futures: asyncio.Future[Any]) -> list[Any]:
    """The answers, and the errors in their place."""
    return await asyncio.gather(*futures, return_exceptions=True)
