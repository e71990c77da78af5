"""What is read of an execution that another process takes over (CONTRACT 2.5): not what nothing refers to any more."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from msgspec import structs

from persistence.model import ExecutionOutcome, Scope, Step, StepCounts, StepState
from persistence.postgres.connection import Database
from persistence.transition import CommitResult
from tests.conformance.builders import after, execution, new, now, parking, transition, until
from tests.integration.stage import made, step

SCOPE = Scope("development")
STEPS, LARGE = 50, 2 << 20


class Counting:
    """A session that counts the characters of the texts that it reads."""

    read = 0

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def fetch(self, *asked: Any) -> Sequence[Any]:
        rows: Sequence[Any] = await self._session.fetch(*asked)
        Counting.read += sum(len(value) for row in rows for value in row.values() if isinstance(value, str))
        return rows


def large(number: int) -> dict[str, Any]:
    """An output that no store can make much smaller."""
    return {"of": number, "body": random.Random(number).randbytes(LARGE // 2).hex()}


def completed(number: int) -> Step:
    """A step with a large output."""
    return structs.replace(
        Step(path=f"s{number}", handler="count", state=StepState.COMPLETED, attempt=1, position=number + 1),
        input={"by": 1},
        output=large(number),
        start_time=now(),
        attempt_time=now(),
        end_time=now(),
        end_seq=number + 2,
    )


async def test_of_an_execution_with_100_mb_no_more_is_read_than_what_is_left_of_it_refers_to(
    serve: Any, open_repository: Any, monkeypatch: Any
) -> None:
    first = await serve()
    steps = [step(f"s{number}", "count") for number in range(STEPS)]
    last = step("last", "transform", expression="[steps.s7.output.of, steps.s8.state]")
    name = await made(first.client, *steps, last, output="${ [steps.last.output, steps.s9.output.of] }")
    await first.stop()
    async with open_repository() as repository:
        execution_id = await left_behind(repository, name)

        @asynccontextmanager
        async def counted(database: Database) -> AsyncIterator[Any]:
            async with session(database) as lent:
                yield Counting(lent)

        session = Database.session
        monkeypatch.setattr(Database, "session", counted)
        await serve(claim_interval=0.1)

        async def outcome() -> ExecutionOutcome | None:
            found: ExecutionOutcome = await repository.get_outcome(SCOPE, execution_id)
            return found if found.execution.state.is_end else None

        assert (await until(outcome)).result == [[7, "COMPLETED"], 9]
    # A busy machine may lose the execution once, and read it again.
    assert 2 * LARGE < Counting.read < 10 * LARGE


async def left_behind(repository: Any, workflow: str) -> UUID:
    """An execution of which all but the last step has completed, and that nobody drives."""
    process, kept = uuid4(), await repository.get_workflow(SCOPE, workflow)
    await repository.register(process, "gone", 300)
    row = execution(kept, process, counts=StepCounts(total=STEPS + 1), owner="development")
    assert (await repository.create(new(row))).created
    times: dict[str, Any] = {"start_time": now(), "deadline_time": now() + timedelta(hours=1)}
    for number in range(STEPS):
        counts = StepCounts(total=STEPS + 1, completed=number + 1)
        make = parking if number == STEPS - 1 else transition
        more: dict[str, Any] = {"wake_time": None} if make is parking else {}
        written = make(row, steps=[completed(number)], counts=counts, **times, **more)
        assert await repository.submit(written) is CommitResult.COMMITTED
        row = after(row, written)
    return row.id
