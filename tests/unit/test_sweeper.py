"""Sweeps: all messages that there are, page by page."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from persistence.journal import MessageKey
from persistence.model import Mail, Message, MessageKind
from service.engine import finds
from service.engine.finds import Finds
from service.engine.running import sweeper
from service.engine.running.sweeper import Sweeper
from service.engine.running.wakeups import Wakeup
from tests.patience import judged

PAGE = 2


class Paged:
    """A journal whose messages come in pages; `asked` is what each call left out."""

    def __init__(self, *executions: UUID) -> None:
        self.messages = [
            Mail(each, 1, (Message(each, MessageKind.CANCEL, datetime(2026, 1, 1, tzinfo=UTC), "ann", {}),))
            for each in executions
        ]
        self.asked: list[set[MessageKey]] = []
        self.undriven_ids: list[UUID] = []

    async def deliver(self, incarnation: UUID, taken: Collection[MessageKey]) -> Sequence[Mail]:
        self.asked.append(set(taken))
        return [mail for mail in self.messages if (mail.execution_id, mail.execution_id) not in taken][:PAGE]

    async def undriven(self, incarnation: UUID, driven: Sequence[UUID]) -> Sequence[UUID]:
        return self.undriven_ids


class Runs:
    """Runs of some executions, which take every message once."""

    def __init__(self, *executions: UUID) -> None:
        self.ids = set(executions)
        self.coming: set[UUID] = set()
        self.is_claiming = False
        self.taken: set[MessageKey] = set()

    def __contains__(self, execution_id: UUID) -> bool:
        return execution_id in self.ids

    def deliver(self, mail: Mail) -> int:
        if mail.execution_id not in self.ids:
            return 0
        self.taken.update((mail.execution_id, message.id) for message in mail.messages)
        return len(mail.messages)


def swept(journal: Paged, runs: Runs) -> Sweeper:
    ownership = SimpleNamespace(incarnation=uuid4(), may_take=True)
    context = SimpleNamespace(journal=journal, ownership=ownership, work=Wakeup(), finds=Finds())
    driver = SimpleNamespace(recovery=SimpleNamespace(under_way=set(), look_for=journal.undriven_ids.remove))
    return Sweeper(cast(Any, context), cast(Any, runs), cast(Any, driver))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "MAIL_AT_ONCE", PAGE)


async def test_one_sweep_delivers_all_pages() -> None:
    executions = [UUID(int=number) for number in range(1, 6)]
    journal, runs = Paged(*executions), Runs(*executions)
    assert await swept(journal, runs).sweep() == 5
    assert len(journal.asked) == 3


@pytest.mark.parametrize(("is_claiming", "counted"), [(False, 1), (True, 0)])
async def test_what_nobody_drives_is_looked_for_and_counted_unless_a_claim_may_be_bringing_it(
    monkeypatch: pytest.MonkeyPatch, is_claiming: bool, counted: int
) -> None:
    monkeypatch.setattr(finds, "PATIENCE", 0.0)
    journal, runs = Paged(), Runs()
    journal.undriven_ids.append(uuid4())
    runs.is_claiming = is_claiming
    sweeping = swept(journal, runs)
    await sweeping.sweep()
    assert journal.undriven_ids  # it may have been created just now
    await sweeping.sweep()
    assert not journal.undriven_ids
    await judged(sweeping._context.finds)
    assert sweeping._context.finds.counts.total() == counted


async def test_what_does_not_run_here_keeps_nothing_back() -> None:
    executions = [UUID(int=number) for number in range(1, 6)]
    journal, runs = Paged(*executions), Runs(executions[-1])
    assert await swept(journal, runs).sweep() == 1


async def test_what_was_taken_is_not_asked_for_again() -> None:
    one, other = UUID(int=1), UUID(int=2)
    journal, runs = Paged(one, other), Runs(one, other)
    sweeping = swept(journal, runs)
    await sweeping.sweep()
    assert await sweeping.sweep() == 0
    assert journal.asked[-1] == {(one, one), (other, other)}
