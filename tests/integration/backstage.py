"""A Postgres store with a workflow and an owner, and a look behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from persistence.model import Execution, NewExecution, Transition, Workflow
from persistence.postgres import PostgresRepository
from service.engine.ids import uuid7
from tests.conformance.builders import ORG, SCOPE, document, events, execution, step


class Store:
    """A repository with a workflow and an owner, and a look behind it."""

    def __init__(self, repository: PostgresRepository, admin: asyncpg.Connection, workflow: Workflow, owner: UUID):
        self.repository = repository
        self.admin = admin
        self.workflow = workflow
        self.owner = owner

    def new(self, **changes: object) -> NewExecution:
        row = execution(self.workflow, self.owner, last_seq=1, **changes)
        return NewExecution(row, {"topic": "trends"}, b"h" * 32, events=events(0))

    async def put(self, count: int = 1) -> list[Execution]:
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


def move(row: Execution, base_seq: int, **changes: object) -> Transition:
    """A transition of one event and one step."""
    plain = Transition(
        ORG,
        row.id,
        row.incarnation or uuid4(),
        row.epoch,
        base_seq,
        row.state,
        row.counts,
        0,
        steps=[step(f"s{base_seq}")],
        events=events(base_seq),
        start_time=row.start_time,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # names of its fields


@asynccontextmanager
async def opened(dsn: str, **settings: Any) -> AsyncIterator[Store]:
    """A store over an empty database, closed at the end."""
    repository = await PostgresRepository.open(dsn, **{"pool_size": 2, **settings})
    admin = await asyncpg.connect(dsn)
    owner = uuid4()
    await repository.register(owner, "test", 300)
    yield Store(repository, admin, await repository.create_workflow(ORG, uuid7(), document(), "ann"), owner)
    await admin.close()
    await repository.close()


async def settled(*futures: asyncio.Future[Any]) -> list[Any]:
    """The answers, and the errors in their place."""
    return await asyncio.gather(*futures, return_exceptions=True)
