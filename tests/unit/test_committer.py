"""Group commit over whatever brings batches to their outcomes: what shares a batch, what waits, who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from msgspec.structs import replace

from persistence.errors import PersistenceError, QueueFullError, UnavailableError
from persistence.model import Execution, ExecutionState, Message, Workflow
from persistence.postgres.commit.committer import Committer
from persistence.postgres.commit.units import Group, Outcome, Unit
from persistence.transition import CommitResult, Created, Letter, Transition
from tests.conformance.builders import MOMENT, after, document, events, execution, new, parking, step, transition
from tests.patience import PATIENCE

COMMITTED, FENCED, UNKNOWN = CommitResult.COMMITTED, CommitResult.FENCED, CommitResult.UNKNOWN
WORKFLOW = Workflow(UUID(int=1), "acme", "w", 1, "etag", document(), MOMENT, MOMENT, "ann")


class Batches:
    """Writes all batches, unless a test says otherwise, and keeps what they were."""

    def __init__(self) -> None:
        self.written: list[list[Unit]] = []
        self.forgotten: set[UUID] = set()
        self.obstructed: set[UUID] = set()
        self.error: Exception | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.trouble: UnavailableError | None = None
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    def recovered(self) -> None:
        self.trouble = None

    def forget(self, execution_ids: Iterable[UUID]) -> None:
        self.forgotten.update(execution_ids)

    async def write(self, units: Sequence[Unit]) -> Mapping[Unit, Outcome]:
        self.written.append(list(units))
        await self.may_go_on.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return {unit: self._outcome(unit) for unit in units if unit.execution_id not in self.obstructed}

    def _outcome(self, unit: Unit) -> Outcome:
        return COMMITTED if isinstance(unit, Group) else Created.anew(unit.new, unit.execution)

    @property
    def sizes(self) -> list[int]:
        """How many units each batch had."""
        return [len(batch) for batch in self.written]

    @property
    def orgs(self) -> list[str]:
        """Whose units each batch had, one letter each."""
        return ["".join(_org(unit) for unit in batch) for batch in self.written]


def _org(unit: Unit) -> str:
    return unit.last.org if isinstance(unit, Group) else unit.org


class Scene:
    """A committer, what writes for it, and what it has announced."""

    def __init__(self, **settings: Any) -> None:
        self.batches = Batches()
        self.announced: list[tuple[set[UUID], dict[str, bool]]] = []
        self.committer = Committer(self.batches, self._announce, **{"max_queue": 100, **settings})

    def _announce(self, executions: Iterable[UUID], **why: bool) -> None:
        self.announced.append((set(executions), why))

    def submit(self, *transitions: Transition) -> Any:
        """The results of transitions that are submitted in this turn."""
        return settled(*(self.committer.submit(each) for each in transitions))


async def settled(*futures: asyncio.Future[Any]) -> list[Any]:
    """The answers, and the errors in their place."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*futures, return_exceptions=True)


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Callable[..., Any]]:
    """Opens scenes, and closes their committers at the end."""
    scenes: list[Scene] = []

    async def start(**settings: Any) -> Scene:
        scenes.append(Scene(**settings))
        await scenes[-1].committer.open()
        return scenes[-1]

    yield start
    for scene in scenes:
        scene.batches.may_go_on.set()
        scene.batches.obstructed.clear()
        await scene.committer.close()
        assert not scene.batches.is_open


@pytest_asyncio.fixture
async def scene(opened: Callable[..., Any]) -> Scene:
    """A scene with the usual settings."""
    found: Scene = await opened()
    return found


def row(**changes: Any) -> Execution:
    return execution(WORKFLOW, uuid4(), **changes)


async def test_a_batch_has_no_more_than_a_thousand(scene: Scene) -> None:
    assert await scene.submit(*(transition(row()) for _ in range(1_001))) == [COMMITTED] * 1_001
    assert scene.batches.sizes == [1_000, 1]


async def test_a_batch_is_cut_where_it_has_become_large(scene: Scene) -> None:
    large = [transition(row(), events=events(1, size=1 << 20)) for _ in range(6)]
    assert await scene.submit(*large) == [COMMITTED] * 6
    assert scene.batches.sizes == [1] * 6
    created = [scene.committer.create(new(row(), input={"a": "x" * (600 << 10)})) for _ in range(3)]
    assert all(isinstance(each, Created) for each in await settled(*created))
    assert scene.batches.sizes == [1] * 6 + [2, 1]


async def test_many_usual_items_are_cut_where_they_have_become_large(scene: Scene) -> None:
    usual = [transition(row(), events=events(1, size=30 << 10)) for _ in range(120)]
    assert await scene.submit(*usual) == [COMMITTED] * 120
    assert scene.batches.sizes == [103, 17]  # a third more, as rows


async def test_what_is_small_waits_for_one_batch_of_what_is_large(scene: Scene) -> None:
    large = [transition(row(org="a"), events=events(1, size=1 << 20)) for _ in range(3)]
    small = [transition(row(org="b")) for _ in range(4)]
    assert await scene.submit(*large, *small) == [COMMITTED] * 7
    assert scene.batches.orgs == ["a", "bbbb", "a", "a"]


async def test_what_is_large_is_written_after_one_batch_of_what_is_small(scene: Scene) -> None:
    scene.batches.may_go_on.clear()
    first = asyncio.ensure_future(scene.submit(transition(row(org="b"))))
    while not scene.batches.written:  # noqa: ASYNC110 - it is written in one of the next turns
        await asyncio.sleep(0)
    small = [transition(row(org="b")) for _ in range(1_500)]
    large = [transition(row(org=org), events=events(1, size=1 << 20)) for org in "acac"]
    others = asyncio.ensure_future(scene.submit(*small, *large))
    await asyncio.sleep(0)
    scene.batches.may_go_on.set()
    assert await first + await others == [COMMITTED] * 1_505
    assert scene.batches.orgs == ["b", "b" * 1_000, "a", "b" * 500, "c", "a", "c"]


async def test_the_writes_of_an_org_keep_their_order_whatever_their_size(scene: Scene) -> None:
    moved = row(org="a")
    second = after(moved, transition(moved))
    third = after(second, transition(second))
    large = transition(second, events=events(second.last_seq, size=1 << 20))
    assert await scene.submit(transition(moved), large, transition(third)) == [COMMITTED] * 3


async def test_transitions_of_one_execution_are_one_unit_until_one_does_not_fit(scene: Scene) -> None:
    first = row()
    second = after(first, transition(first))
    done = step("s", output={"n": 1})
    answers = await scene.submit(
        transition(first, steps=[done]), transition(second, steps=[step("t")]), transition(row())
    )
    assert answers == [COMMITTED] * 3
    assert scene.batches.sizes == [2]


async def test_what_comes_while_a_batch_is_written_is_the_next_one(scene: Scene) -> None:
    scene.batches.may_go_on.clear()
    first = asyncio.ensure_future(scene.submit(transition(row())))
    while not scene.batches.written:  # noqa: ASYNC110 - it is written in one of the next turns
        await asyncio.sleep(0)
    others = asyncio.ensure_future(scene.submit(transition(row()), transition(row())))
    await asyncio.sleep(0)
    scene.batches.may_go_on.set()
    assert (await first, await others) == ([COMMITTED], [COMMITTED] * 2)
    assert scene.batches.sizes == [1, 2]


async def test_others_are_told_what_was_written_and_whom_it_concerns(scene: Scene) -> None:
    owned, freed, receiver = row(), row(), uuid4()
    await scene.submit(transition(owned))
    await scene.submit(transition(after(owned, transition(owned))), parking(freed, None))
    letter = Letter(receiver, Message(uuid4(), "note", MOMENT, "ann", {}))
    await scene.submit(transition(row(id=owned.id), letters=(letter,)))
    assert scene.announced == [
        ({owned.id}, {"has_work": False}),
        ({owned.id, freed.id}, {"has_work": True}),
        ({owned.id}, {"has_work": False}),
        ({receiver}, {"has_mail": True}),
    ]


async def test_what_something_is_in_the_way_of_is_tried_again_in_its_order_and_others_go_on(scene: Scene) -> None:
    blocked, other = row(), row()
    scene.batches.obstructed = {blocked.id}
    first = scene.committer.submit(transition(blocked))
    assert await scene.submit(transition(other)) == [COMMITTED]
    behind = scene.committer.submit(transition(after(blocked, transition(blocked))))
    assert await scene.submit(transition(row())) == [COMMITTED]
    assert not first.done() and not behind.done()
    scene.batches.obstructed.clear()
    assert await settled(first, behind) == [COMMITTED] * 2
    (last,) = scene.batches.written[-1]
    assert isinstance(last, Group) and [item.future for item in last.items] == [first, behind]


async def test_what_is_obstructed_for_long_is_unknown_once_others_were_written(opened: Callable[..., Any]) -> None:
    scene = await opened(unknown_timeout=0.0)
    blocked = row()
    scene.batches.obstructed = {blocked.id}
    first = scene.committer.submit(transition(blocked))
    behind = scene.committer.submit(transition(after(blocked, transition(blocked))))
    alone = scene.batches.written
    while len(alone) < 3:  # noqa: ASYNC110 - while nothing else is written, it waits
        await asyncio.sleep(0)
    assert not first.done()
    assert await scene.submit(transition(row())) == [COMMITTED]
    assert await settled(first, behind) == [UNKNOWN] * 2


async def test_a_creation_that_is_given_up_is_forgotten_and_leaves_its_place(opened: Callable[..., Any]) -> None:
    scene = await opened(max_queue=1, unknown_timeout=0.05)
    creation = new(row())
    scene.batches.obstructed = {creation.execution.id}
    (answer,) = await settled(scene.committer.create(creation))
    assert isinstance(answer, UnavailableError)
    while creation.execution.id not in scene.batches.forgotten:  # noqa: ASYNC110 - at its next turn
        await asyncio.sleep(0)
    await settled(scene.committer.create(new(row())))  # it is not refused
    assert await scene.submit(transition(row())) == [COMMITTED]


async def test_each_caller_is_told_when_its_own_time_is_over(opened: Callable[..., Any]) -> None:
    scene = await opened(unknown_timeout=0.1)
    one, other = new(row()), new(row())
    scene.batches.obstructed = {one.execution.id, other.execution.id}
    first = scene.committer.create(one)
    await asyncio.sleep(0.02)  # so that its time is over before that of the other
    answers = await settled(first, scene.committer.create(other))
    assert [type(answer) for answer in answers] == [UnavailableError] * 2


async def test_after_an_unforeseen_error_the_fate_of_a_batch_is_unknown_and_what_is_behind_is_fenced(
    scene: Scene,
) -> None:
    moved, other = row(), row()
    scene.batches.error = KeyError("unforeseen")
    scene.batches.may_go_on.clear()
    first, made = scene.committer.submit(transition(moved)), scene.committer.create(new(row()))
    while not scene.batches.written:  # noqa: ASYNC110 - it is written in one of the next turns
        await asyncio.sleep(0)
    behind = scene.committer.submit(transition(after(moved, transition(moved))))
    others = scene.committer.submit(transition(other))
    scene.batches.may_go_on.set()
    unknown, lost, fenced, fine = await settled(first, made, behind, others)
    assert (unknown, type(lost), fenced, fine) == (UNKNOWN, UnavailableError, FENCED, COMMITTED)


async def test_behind_what_does_not_follow_all_is_fenced_though_it_might_fit(scene: Scene) -> None:
    moved = row()
    second = after(moved, transition(moved))
    scene.batches.may_go_on.clear()
    first, misfit = (scene.committer.submit(transition(each)) for each in (moved, replace(second, last_seq=99)))
    while not scene.batches.written:  # noqa: ASYNC110 - it is written in one of the next turns
        await asyncio.sleep(0)
    behind = scene.committer.submit(transition(second))
    scene.batches.may_go_on.set()
    assert await settled(first, misfit, behind) == [COMMITTED, FENCED, FENCED]


async def test_what_cannot_be_written_at_all_is_refused_in_its_turn(scene: Scene) -> None:
    moved = row()
    contradiction = transition(after(moved, transition(moved)), state=ExecutionState.COMPLETED)
    behind = transition(after(moved, transition(moved)))
    committed, refused, fenced = await scene.submit(transition(moved), contradiction, behind)
    assert (committed, fenced) == (COMMITTED, FENCED)
    assert isinstance(refused, PersistenceError)
    (bad,) = await settled(scene.committer.create(new(row(), events=())))
    assert isinstance(bad, PersistenceError)


async def test_a_full_queue_refuses_creations_until_some_are_written(opened: Callable[..., Any]) -> None:
    scene = await opened(max_queue=2)
    made = [scene.committer.create(new(row())) for _ in range(2)]
    with pytest.raises(QueueFullError, match="2 writes wait"):
        scene.committer.create(new(row()))
    assert await scene.submit(transition(row())) == [COMMITTED]
    assert all(isinstance(each, Created) for each in await settled(*made))
    assert isinstance((await settled(scene.committer.create(new(row()))))[0], Created)


async def test_what_is_closed_writes_what_it_has_and_takes_no_more(opened: Callable[..., Any]) -> None:
    scene = await opened()
    submitted = [scene.committer.submit(transition(row())), scene.committer.create(new(row()))]
    await scene.committer.close()
    committed, made = await settled(*submitted)
    assert committed is COMMITTED and isinstance(made, Created)
    (late,) = await scene.submit(transition(row()))
    assert isinstance(late, UnavailableError)


async def test_what_cannot_be_written_before_the_end_is_unknown(opened: Callable[..., Any]) -> None:
    scene = await opened()
    scene.batches.may_go_on.clear()
    blocked = row()
    on_its_way = scene.committer.submit(transition(blocked))
    while not scene.batches.written:  # noqa: ASYNC110 - it is written in one of the next turns
        await asyncio.sleep(0)
    waiting = scene.committer.create(new(row()))
    await scene.committer.close(timeout=0.0)
    unknown, lost = await settled(on_its_way, waiting)
    assert (unknown, type(lost)) == (UNKNOWN, UnavailableError)


async def test_trouble_is_that_of_what_writes(scene: Scene) -> None:
    assert scene.committer.trouble is None
    scene.batches.trouble = UnavailableError("full")
    assert scene.committer.trouble is scene.batches.trouble
    scene.committer.recovered()
    assert scene.committer.trouble is None
