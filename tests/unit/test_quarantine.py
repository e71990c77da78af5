"""Executions whose owners died are driven apart, then alone, and then no more (ST7)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from persistence.model import SUSPECT_DEATHS
from service.engine.failure import POISONED
from service.engine.running.quarantine import POISONOUS_DEATHS, Quarantine
from tests.patience import PATIENCE

SECONDS = 100.0
LAST = POISONOUS_DEATHS - 1


def run(deaths: int = 0, *, age: float = 0.0) -> Any:
    """A run that began so many seconds ago, after so many deaths."""
    vouched = asyncio.Event()
    return SimpleNamespace(
        id=uuid4(),
        execution=SimpleNamespace(deaths=deaths),
        begun=asyncio.get_running_loop().time() - age,
        vouch=vouched.set,
        vouched=vouched,
    )


async def test_no_two_suspects_are_driven_at_a_time() -> None:
    quarantine, suspect = Quarantine(SECONDS), run(SUSPECT_DEATHS)
    assert quarantine.room([]) == 1
    assert quarantine.admit(run(SUSPECT_DEATHS - 1)) is None
    assert quarantine.room([]) == 1
    assert quarantine.admit(suspect) is None
    assert (quarantine.room([]), quarantine.is_exclusive) == (0, False)
    assert quarantine.release(suspect)
    assert quarantine.room([]) == 1


async def test_what_had_no_deaths_makes_no_room_when_it_goes() -> None:
    quarantine = Quarantine(SECONDS)
    assert not quarantine.release(run())
    assert quarantine.release(run(1))


async def test_before_its_last_death_an_execution_is_tried_when_all_else_has_been_driven_for_long() -> None:
    quarantine, young, old = Quarantine(SECONDS), run(), run(age=SECONDS)
    on_trial = run(LAST)
    assert not quarantine.defers(run(LAST - 1).execution, [young])
    assert not quarantine.defers(on_trial.execution, [old])
    assert not quarantine.is_exclusive
    assert quarantine.defers(on_trial.execution, [old, young])
    assert (quarantine.is_exclusive, quarantine.room([old, young]), quarantine.room([old])) == (True, 0, 1)
    quarantine.conclude([old, young])
    assert quarantine.is_exclusive
    quarantine.conclude([old])  # another process took it
    assert not quarantine.is_exclusive

    assert quarantine.admit(on_trial) is None
    assert quarantine.is_exclusive
    assert quarantine.release(run())  # of whatever goes: there may be room for a suspect
    assert quarantine.is_exclusive
    assert quarantine.release(on_trial)
    assert not quarantine.is_exclusive


async def test_after_too_many_deaths_an_execution_does_not_go_on() -> None:
    failure = Quarantine(SECONDS).admit(run(POISONOUS_DEATHS))
    assert failure is not None and failure.code == POISONED
    assert failure.message.startswith(f"{POISONOUS_DEATHS} servers in a row")


async def test_what_was_driven_for_long_is_vouched_for() -> None:
    quarantine, after_one, unharmed = Quarantine(0.0), run(1), run()
    quarantine.admit(unharmed)
    quarantine.admit(after_one)
    async with asyncio.timeout(PATIENCE):
        await after_one.vouched.wait()
    assert not unharmed.vouched.is_set()


async def test_a_process_that_drops_all_forgets_its_suspects() -> None:
    quarantine = Quarantine(SECONDS)
    quarantine.admit(run(LAST))
    quarantine.defers(run(LAST).execution, [run()])
    quarantine.clear()
    assert (quarantine.is_exclusive, quarantine.room([run()])) == (False, 1)
