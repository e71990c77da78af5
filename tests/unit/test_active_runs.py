"""Which executions a process drives, and how many places are left beside them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from persistence.model import Mail
from service.engine.held import Held
from service.engine.running.active_runs import ActiveRuns
from service.engine.running.wakeups import Wakeup


class Scene:
    """Runs of a process that has ten places, and what decides about places beside them."""

    def __init__(self) -> None:
        self.ownership = SimpleNamespace(may_take=True, generation=5)
        self.quarantine = SimpleNamespace(is_exclusive=False)
        self.stuck: list[object] = []
        self.held = Held(100)
        self.pokes = 0
        self.mail = Wakeup()
        context = SimpleNamespace(
            ownership=self.ownership,
            stuck=self.stuck,
            work=self,
            mail=self.mail,
            settings=SimpleNamespace(max_running=10),
        )
        self.runs = ActiveRuns(cast(Any, context), cast(Any, self.quarantine), self.held)

    def poke(self) -> None:
        self.pokes += 1


class Received:
    """A run that keeps what it is sent."""

    def __init__(self, number: int, org: str = "acme", owner: str = "ann") -> None:
        self.id = UUID(int=number)
        self.execution: Any = SimpleNamespace(id=self.id, org=org, owner=owner, epoch=3)
        self.standing: list[UUID] = []
        self.has_gap = False

    def lacks(self, _: Mail) -> bool:
        return self.has_gap

    def receive(self, messages: Any) -> int:
        self.standing += messages
        return len(messages)


def run(number: int, **of: str) -> Any:
    return Received(number, **of)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_was_let_go_since_the_store_was_asked_is_known_while_answers_may_come(scene: Scene) -> None:
    runs, one, other = scene.runs, run(1), run(2)
    runs.add(one)
    with runs.looking() as early:
        runs.remove(one)
        with runs.looking() as late:
            assert [runs.was_let_go(one.execution, look) for look in (early, late)] == [True, False]
            newer: Any = SimpleNamespace(id=one.id, epoch=4)
            assert [runs.was_let_go(each, early) for each in (newer, other.execution)] == [False, False]
        assert early.generation == 5
    with runs.looking() as later:
        assert not runs.was_let_go(one.execution, later)
    runs.add(other)
    runs.remove(other)  # nobody has asked
    with runs.looking() as look:
        assert not runs.was_let_go(other.execution, look)


def test_what_runs_is_known_by_its_id_and_takes_a_place(scene: Scene) -> None:
    runs, one, other = scene.runs, run(1), run(2, org="globex")
    runs.add(one)
    runs.add(other)
    assert (len(runs), list(runs.all), list(runs.ids)) == (2, [one, other], [one.id, other.id])
    assert one.id in runs and [runs.get(each) for each in (one.id, UUID(int=9))] == [one, None]
    assert (runs.room, runs.shares.held_by("acme"), runs.shares.held_by("globex")) == (8, 1, 1)
    runs.remove(run(1))  # one that another has replaced
    assert runs.room == 8
    runs.remove(one)
    assert (runs.room, runs.shares.orgs) == (9, ["globex"])
    runs.add(one)
    assert runs.remove_all() == [other, one]
    assert (len(runs), runs.room, runs.shares.orgs) == (0, 10, [])


def test_messages_are_for_the_owner_of_their_epoch(scene: Scene) -> None:
    runs, one = scene.runs, run(1)
    runs.add(one)
    message: Any = UUID(int=7)
    assert runs.deliver(Mail(one.id, 3, (message,))) == 1
    assert runs.deliver(Mail(one.id, 2, (message,))) == 0
    assert runs.deliver(Mail(UUID(int=9), 3, (message,))) == 0
    assert runs.taken == {(one.id, message)}


def test_only_the_owner_of_their_epoch_lacks_what_was_sent_before(scene: Scene) -> None:
    runs, one = scene.runs, run(1)
    one.has_gap = True
    runs.add(one)
    mail = [Mail(one.id, 3, ()), Mail(one.id, 2, ()), Mail(UUID(int=9), 3, ())]
    assert [runs.lacks(each) for each in mail] == [True, False, False]


def test_nothing_is_taken_without_the_lease_nor_beside_a_trial(scene: Scene) -> None:
    assert scene.runs.room == 10 and scene.runs.has_place("acme", "ann")
    scene.ownership.may_take = False
    assert scene.runs.room == 0 and not scene.runs.has_place("acme", "ann")
    scene.ownership.may_take, scene.quarantine.is_exclusive = True, True
    assert scene.runs.room == 0


def test_stuck_attempts_and_what_a_claim_may_bring_take_places(scene: Scene) -> None:
    runs = scene.runs
    scene.stuck.append(object())
    with runs.claiming(5):
        assert runs.room == 4
        runs.claimed(2)
        assert runs.room == 7
        runs.claimed(9)
        assert runs.room == 0 and not runs.has_place("acme", "ann")
    assert runs.room == 9
    scene.stuck += [object()] * 20
    assert runs.room == 0


def test_an_org_whose_definitions_fill_the_memory_has_no_place(scene: Scene) -> None:
    definition = type("Definition", (), {})()
    scene.held.hold("acme", definition, 95)
    assert list(scene.runs.full) == ["acme"]
    assert not scene.runs.has_place("acme", "ann") and scene.runs.has_place("globex", "ann")


async def test_what_is_being_created_has_a_place_until_it_is_known(scene: Scene) -> None:
    runs = scene.runs
    creation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    execution = run(1).execution
    runs.expect(execution, creation)
    assert (set(runs.coming), runs.room, runs.shares.held_by("acme")) == ({execution.id}, 9, 1)
    creation.set_result(None)
    await asyncio.sleep(0)
    assert (set(runs.coming), runs.room, runs.shares.orgs) == (set(), 10, [])


def test_what_is_coming_is_told_once_of_each_message_until_it_has_arrived_for_all(scene: Scene) -> None:
    runs, one, other = scene.runs, UUID(int=1), UUID(int=2)
    mail = Mail(one, 3, (cast(Any, SimpleNamespace(id=UUID(int=7))),))
    runs.hear([one])
    runs.deliver(mail)
    assert runs.told(one) == 0
    runs.announce([one, other])
    runs.announce([one])
    for _ in range(3):
        assert runs.deliver(mail) == 0
    assert runs.told(one) == 1
    runs.hear([one, UUID(int=9)])
    assert (runs.told(one), runs.told(other)) == (2, 0)
    runs.hear(None)
    assert (runs.told(one), runs.told(other), runs.told(UUID(int=9))) == (3, 1, 0)
    runs.arrived(one)
    assert (set(runs.coming), runs.told(one), scene.mail.pokes) == ({one, other}, 3, 0)
    runs.arrived(one)
    assert (set(runs.coming), runs.told(one), scene.mail.pokes) == ({other}, 0, 1)
    runs.arrived(other)
    runs.announce([other])
    runs.arrived(other)
    assert (set(runs.coming), scene.mail.pokes) == (set(), 2)


def test_an_end_is_a_reason_to_claim_where_something_had_no_place(scene: Scene) -> None:
    scene.runs.ended()
    assert scene.pokes == 0
    scene.runs.is_short = True
    scene.runs.ended()
    assert scene.pokes == 1
