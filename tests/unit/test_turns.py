"""Turns of the event loop are shared: heavy work is spread over them, and who has little to do is not kept waiting."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from service.engine.expressions import Allowance
from service.engine.expressions.cost import MAX_WORK
from service.engine.turns import PER_TURN, SECONDS, SHARE, SMALL, Share, Turns, in_turn

HEAVY = 3 * PER_TURN


def share(turns: Turns, org: str = "org", workflow: int = 1) -> Share:
    return Share(turns, org, UUID(int=workflow))


async def turn() -> None:
    """Let the loop go round once."""
    await asyncio.sleep(0)


async def next_turn(turns: Turns) -> None:
    """Let others have the loop for as long as they are owed it for the last turn."""
    begun = asyncio.Event()
    share(turns, "last").put_off(begun.set)
    await begun.wait()


async def all_of(turns: Turns, *acts: tuple[Share, str, int]) -> list[list[str]]:
    """Put these off, and return what was done in each round of the loop, as long as something is to be done."""
    done: list[str] = []

    def act(of: Share, name: str, work: int) -> None:
        done.append(name)
        of.spend(work)

    for of, name, work in acts:
        of.put_off(lambda of=of, name=name, work=work: act(of, name, work))  # type: ignore[misc]
    rounds, seen = list[list[str]](), 0
    while seen < len(acts):
        await turn()
        if len(done) > seen:
            rounds.append(done[seen:])
            seen = len(done)
    return rounds


async def test_small_work_costs_no_turn() -> None:
    turns = Turns()
    for _ in range(1_000):
        share(turns).spend(SMALL)
    assert share(turns).is_open


async def test_a_turn_is_over_when_its_work_is_done_and_others_have_the_loop_before_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns, pauses, loop = Turns(lambda: True), list[float](), asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(seconds: float, *call: Any) -> asyncio.TimerHandle:
        pauses.append(seconds)
        return call_later(seconds, *call)

    monkeypatch.setattr(loop, "call_later", noted)
    share(turns).spend(PER_TURN)
    assert not share(turns).is_open
    await next_turn(turns)
    assert share(turns).is_open
    assert pauses == [PER_TURN * SECONDS]


async def test_the_next_turn_begins_in_the_next_round_when_nobody_else_has_use_for_the_loop() -> None:
    turns = Turns(lambda: False)
    share(turns).spend(PER_TURN)
    assert not share(turns).is_open
    await turn()
    assert share(turns).is_open


async def test_heavy_work_has_rounds_of_its_own() -> None:
    turns = Turns()
    one = share(turns)
    assert await all_of(turns, (one, "a", HEAVY), (one, "b", HEAVY), (one, "c", 0)) == [["a"], ["b"], ["c"]]


async def test_light_work_is_done_together_but_not_all_of_any_number() -> None:
    turns = Turns()
    rounds = await all_of(turns, *((share(turns), str(n), 0) for n in range(120)))
    assert [len(done) for done in rounds] == [25, 25, 25, 25, 20]


async def test_each_workflow_has_its_turn_and_each_org() -> None:
    turns = Turns()
    flood, other, stranger = share(turns), share(turns, workflow=2), share(turns, "else", 3)
    rounds = await all_of(
        turns, *((flood, f"flood {n}", HEAVY) for n in range(3)), (other, "other", HEAVY), (stranger, "stranger", HEAVY)
    )
    assert [name for done in rounds for name in done] == ["flood 0", "stranger", "other", "flood 1", "flood 2"]


async def test_a_light_one_passes_by_until_another_turns_out_to_be_heavy() -> None:
    turns = Turns()
    flood, light, heavy = share(turns), share(turns, workflow=2), share(turns, workflow=3)
    flood.spend(HEAVY)
    flood.put_off(lambda: None)
    await turn()
    assert not flood.is_open and light.is_open
    heavy.spend(HEAVY)
    assert not light.is_open
    await turn()
    assert light.is_open and not heavy.is_open


async def test_what_has_its_turn_at_once_needs_no_round() -> None:
    turns = Turns()
    coroutine = share(turns).take(lambda: 7)
    with pytest.raises(StopIteration) as answer:
        coroutine.send(None)
    assert answer.value.value == 7


async def test_a_mistake_of_one_takes_no_turn_from_the_others() -> None:
    turns = Turns()

    def fail() -> None:
        raise ValueError("no")

    share(turns).put_off(fail)
    assert await all_of(turns, (share(turns), "after", 0)) == [["after"]]


async def test_what_waits_for_its_turn_gets_its_answer_or_error() -> None:
    turns = Turns()
    share(turns).spend(PER_TURN)

    def fail() -> None:
        raise ValueError("no")

    answers = await asyncio.gather(share(turns).take(lambda: 7), share(turns).take(fail), return_exceptions=True)
    assert answers[0] == 7 and str(answers[1]) == "no"


async def test_what_nobody_waits_for_any_more_is_not_done() -> None:
    turns = Turns()
    share(turns).spend(HEAVY)
    share(turns).put_off(lambda: share(turns).spend(HEAVY))
    done: list[int] = []
    waiting = asyncio.create_task(share(turns).take(lambda: done.append(1)))
    await turn()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await all_of(turns, (share(turns), "after", 0))
    assert not done


async def test_the_work_of_a_handler_is_counted() -> None:
    turns = Turns()
    SHARE.set(share(turns))

    def work(allowance: Allowance) -> str:
        allowance.take(MAX_WORK)
        return "done"

    assert await in_turn(work) == "done"
    assert not share(turns).is_open
