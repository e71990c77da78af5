"""Executions read back as they were written, whole, and only by those who may see them."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs

from persistence.errors import ExecutionNotFoundError
from persistence.listing import ExecutionFilter, ExecutionOrder, StepFilter, StepPlace
from persistence.model import (
    Ending,
    ExecutionOutcome,
    ExecutionState,
    Scope,
    StepCounts,
    StepKey,
    StepState,
    Wait,
    WaitKind,
)
from persistence.repository import Repository
from tests.conformance.builders import (
    FOREIGN_ORG,
    FOREIGN_OWNER,
    MOMENT,
    ORG,
    OWNER,
    SCOPE,
    Keeper,
    after,
    ending,
    execution,
    new,
    outcome,
    step,
    transition,
)


def nested(depth: int) -> Any:
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


PAYLOADS: list[Any] = [
    {},
    {"": ""},
    {"nothing": None, "yes": True, "no": False, "none": [], "empty": {}},
    {"whole": [0, -1, 2**31, 2**53 - 1, 1 - 2**53, 2**53], "real": [0.1, -2.5e-7, 4503599627370495.5, 5e-324]},
    {"zero": -0.0, "three": 3.0, "third": 1 / 3},
    {"ключ 🗝": ["日本", "🐳", "e\u0301 é", "\u202eright to left", "\ufeff", "\x7f\x01\t\n\\\"'/"]},
    {"$ref": "#", "a.b": {"a": {"b": 1}}, "__proto__": [], "%s :x $1 {}": "'; DROP TABLE executions; --"},
    {"deep": nested(23)},
    {"long": "x" * (256 * 1024 - 11)},
    {"wide": list(range(10_240 - 2))},
    {f"key {n}": n for n in range(10_239)},
]


async def test_every_field_comes_back(repository: Repository, keeper: Keeper) -> None:
    row = execution(
        keeper.workflow,
        keeper.incarnation,
        state=ExecutionState.PAUSED,
        create_time=MOMENT,
        timeout=0.25,
        counts=StepCounts(total=21, completed=1, failed=2, skipped=3, running=4, cancelled=5),
        priority=-7,
        tags=("b", "a", "ü"),
        labels={"team": "🐳", "": "", "a.b": "c"},
        correlation_id="ci/1234",
        request_id="r",
        scheduled_time=MOMENT + timedelta(microseconds=1),
        start_time=MOMENT + timedelta(microseconds=2),
        deadline_time=MOMENT + timedelta(microseconds=3),
        progress=42,
        last_seq=3,
        failure={"code": "X", "details": {"a": [None]}},
        ending=Ending(ExecutionState.TIMED_OUT, {"code": "Y", "details": {"b": [None, 1e300]}}),
        epoch=1,
        run=2,
    )
    created = await repository.create(new(row))
    assert created.execution == row
    assert await repository.get_execution(SCOPE, row.id) == row
    assert (await repository.get_detail(SCOPE, row.id)).execution == row


async def test_times_keep_microseconds_whatever_their_zone(repository: Repository, keeper: Keeper) -> None:
    times = [
        datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2040, 1, 1, 0, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=-9))),
    ]
    for moment in times:
        row = await keeper.put(create_time=moment, start_time=moment, deadline_time=moment)
        read = await repository.get_execution(SCOPE, row.id)
        assert (read.create_time, read.start_time, read.deadline_time) == (moment, moment, moment)
        assert read.create_time.tzinfo is not None


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: next(iter(payload), "empty")[:6] or "blank")
async def test_payloads_come_back_as_they_were(repository: Repository, keeper: Keeper, payload: Any) -> None:
    done = step(state=StepState.COMPLETED, input=payload, output=payload, assigned=payload)
    row = execution(keeper.workflow, keeper.incarnation)
    await repository.create(new(row, input=payload, steps=(done,)))
    await keeper.commit(ending(row, result=payload))
    detail = await repository.get_detail(SCOPE, row.id)
    assert await repository.get_outcome(SCOPE, row.id) == ExecutionOutcome(detail.execution, payload)
    assert (detail.input, detail.result) == (payload, payload)
    assert detail.steps == (done,)
    assert {key: type(value) for key, value in detail.input.items()} == {
        key: type(value) for key, value in payload.items()
    }


@pytest.mark.parametrize(("most", "omitted"), [(800_000, ""), (400_000, "abBd"), (200_000, "abBcd"), (0, "abBcd")])
async def test_payloads_are_read_in_order_up_to_a_limit(
    repository: Repository, keeper: Keeper, most: int, omitted: str
) -> None:
    """The steps that are left are there all the same, without payloads, and named."""
    large, failure = secrets.token_hex(150_000), {"code": "X", "message": "m", "details": {"d": "e"}}
    steps = {
        "c": step("c", position=1, state=StepState.COMPLETED, output=large, assigned={"v": 1}),
        "b": step("b", position=2, state=StepState.COMPLETED, input={"i": large}, output="z"),
        "a": step("a", position=3, state=StepState.FAILED, failure=failure, failed_attempts=({"attempt": 1},)),
        "d": step("d", position=4, state=StepState.RUNNING, input={}),
        "B": step("b", iteration=2, position=2, state=StepState.COMPLETED, output="y"),
    }
    row = execution(keeper.workflow, keeper.incarnation)
    await repository.create(new(row, input={"a": 1}, steps=tuple(steps.values())))
    detail = await repository.get_detail(SCOPE, row.id, most)
    assert (detail.execution, detail.input) == (row, {"a": 1})
    assert detail.omitted == {steps[name].key for name in omitted}
    nothing = {"input": None, "output": None, "assigned": None, "failed_attempts": ()}
    for found, name in zip(detail.steps, "abBcd", strict=True):
        before = steps[name]
        told = before.failure and {"code": "X", "message": "m"}
        bare = structs.replace(before, failure=told, **nothing)
        assert found == (bare if name in omitted else before)


@pytest.mark.parametrize(("most", "omitted"), [(800_000, ""), (400_000, "ca"), (200_000, "bca"), (0, "bca")])
async def test_steps_are_read_by_path_in_the_order_asked_for_up_to_a_limit(
    repository: Repository, keeper: Keeper, most: int, omitted: str
) -> None:
    large, failure = secrets.token_hex(150_000), {"code": "X", "message": "m", "details": {"d": "e"}}
    steps = {
        "a": step("a", position=1, state=StepState.COMPLETED, output="a", assigned={"v": 1}),
        "b": step("b", position=2, iteration=2, state=StepState.COMPLETED, input={"i": large}, output="z"),
        "earlier b": step("b", position=2, state=StepState.COMPLETED, output=large),
        "c": step("c", position=3, state=StepState.FAILED, failure={**failure, "details": {"d": large}}),
        "d": step("d", position=4, state=StepState.COMPLETED, output=large),
    }
    row = execution(keeper.workflow, keeper.incarnation)
    await repository.create(new(row, steps=tuple(steps.values())))
    found = await repository.get_steps(SCOPE, row.id, ["b", "none", "c", "a"], most)
    assert (found.execution, found.unreadable) == (row, ())
    assert found.omitted == {steps[path].key for path in omitted}
    nothing = {"input": None, "output": None, "assigned": None, "failed_attempts": ()}
    for read, before in zip(found.steps, (steps[path] for path in "bca"), strict=True):
        told = before.failure and {"code": "X", "message": "m"}
        bare = structs.replace(before, failure=told, **nothing)
        assert read == (bare if before.path in omitted else before)
    assert (await repository.get_steps(SCOPE, row.id, [], most)).steps == ()


@pytest.mark.parametrize(("iteration", "found"), [(0, "Ab"), (1, "ab"), (2, "A"), (3, "")])
async def test_steps_are_read_in_the_iteration_asked_for(
    repository: Repository, keeper: Keeper, iteration: int, found: str
) -> None:
    steps = {
        "a": step("a", position=1, state=StepState.COMPLETED, output="first"),
        "A": step("a", position=1, iteration=2, state=StepState.FAILED, failure={"code": "X", "message": "m"}),
        "b": step("b", position=2, state=StepState.COMPLETED, output="only"),
    }
    row = execution(keeper.workflow, keeper.incarnation)
    await repository.create(new(row, steps=tuple(steps.values())))
    read = await repository.get_steps(SCOPE, row.id, ["a", "b"], 9_000, iteration)
    assert (read.execution, list(read.steps)) == (row, [steps[name] for name in found])


async def test_steps_of_items_are_listed_item_by_item(repository: Repository, keeper: Keeper) -> None:
    work = [step(f"each[{n}].work", position=1, items=(n, 2), state=StepState.COMPLETED) for n in (10, 2, 0)]
    inner = [
        step(f"each[{n}].in[{m}].x", position=1, items=(n, 3, m, 4), state=state, iteration=iteration)
        for n, m, state, iteration in (
            (2, 10, StepState.COMPLETED, 1),
            (10, 2, StepState.COMPLETED, 1),
            (2, 9, StepState.COMPLETED, 1),
            (2, 9, StepState.RUNNING, 2),
        )
    ]
    others = [
        step("each", position=1, handler="for_each"),
        step("end", position=5, state=StepState.COMPLETED),
        step("last[0].x", position=6, items=(0, 7), handler="noop"),
    ]
    row = execution(keeper.workflow, keeper.incarnation)
    await repository.create(new(row, steps=(*work, *inner, *others)))
    paths = ["each[0].work", "each[2].work", "each[2].in[9].x", "each[2].in[10].x", "each[10].work", "each[10].in[2].x"]
    order = [*paths, "last[0].x"]
    places = {each.path: StepPlace(each.position, each.items) for each in (*work, *inner, *others)}

    async def listed(where: StepFilter, after: StepPlace | None, limit: int) -> list[str]:
        found = await repository.list_item_steps(SCOPE, row.id, where, after, limit)
        assert all(place == places[path] for place, path in found)
        return [path for _, path in found]

    assert await listed(StepFilter(), None, 100) == order
    for at, path in enumerate(order):
        assert await listed(StepFilter(), places[path], 2) == order[at + 1 : at + 3]
    assert await listed(StepFilter(), StepPlace(1), 1) == ["each[0].work"]
    assert await listed(StepFilter(), StepPlace(5), 9) == ["last[0].x"]
    assert await listed(StepFilter(), StepPlace(6, (0, 7)), 1) == []
    completed = StepFilter(frozenset({StepState.COMPLETED}))
    assert await listed(completed, StepPlace(1, (2, 2)), 9) == order[3:6]
    assert await listed(StepFilter(handler="noop"), None, 9) == ["last[0].x"]


async def test_of_an_execution_with_many_steps_the_first_are_shown_and_all_variables(
    repository: Repository, keeper: Keeper
) -> None:
    done: dict[str, Any] = {"position": 1, "state": StepState.COMPLETED}
    steps = [
        step("a", position=1, handler="for_each"),
        step("a[0].x", items=(0, 2), **done),
        step("a[1].x", items=(1, 2), assigned={"v": 1}, **done),
        step("a[1].x", items=(1, 2), iteration=2, **done),
        step("a[2].x", items=(2, 2), **done),
        step("a[10].x", items=(10, 2), **done),
        step("b", position=3, state=StepState.COMPLETED, assigned={"w": ["x" * 9_000]}),
    ]
    row = execution(keeper.workflow, keeper.incarnation, counts=StepCounts(total=7))
    await repository.create(new(row, steps=tuple(steps)))

    async def found(first: int | None, most: int = 32 << 20) -> list[StepKey]:
        return [each.key for each in (await repository.get_detail(SCOPE, row.id, most, first)).steps]

    keys = [each.key for each in steps]
    assert await found(None) == await found(7) == sorted(keys)
    assert await found(4) == sorted([*keys[:5], keys[6]])
    assert await found(2) == sorted([*keys[:3], keys[6]])
    assert await found(2, most=0) == sorted(keys[:2])  # no variable is shown


@pytest.mark.parametrize("value", [None, True, 0, -3, 0.5, "", "text", [], [None], {}])
async def test_a_result_is_any_json_value(repository: Repository, keeper: Keeper, value: Any) -> None:
    row = await keeper.put()
    assert await repository.get_outcome(SCOPE, row.id) == ExecutionOutcome(row, None)
    await keeper.commit(ending(row, result=value, steps=[step(state=StepState.COMPLETED, output=value)]))
    detail = await keeper.read(row)
    assert (detail.result, detail.steps[0].output) == (value, value)
    assert (type(detail.result), type(detail.steps[0].output)) == (type(value), type(value))


async def test_every_field_of_a_step_comes_back(repository: Repository, keeper: Keeper) -> None:
    full = step(
        path='fan_out[3]."ü"',
        state=StepState.CANCELLED,
        attempt=21,
        iteration=3,
        input={"a": 1},
        output=[1, None],
        failure={"code": "TIMEOUT", "message": "ü"},
        failed_attempts=tuple({"attempt": n, "failure": {"code": "X"}} for n in range(20)),
        assigned={"best": [1]},
        skip_reason="because",
        start_time=MOMENT,
        attempt_time=MOMENT + timedelta(microseconds=1),
        end_time=MOMENT + timedelta(microseconds=2),
        wait=Wait(WaitKind.RETRY, MOMENT, MOMENT + timedelta(microseconds=3), "ü", 2, "r", "h"),
        end_seq=2,
        worker="worker-1",
        failures=20,
        progress=99,
    )
    bare = step("bare", StepState.RUNNING, attempt=0, start_time=None, attempt_time=None)
    row = await keeper.put()
    await keeper.commit(transition(row, steps=[full, bare]))
    assert {each.path: each for each in (await keeper.read(row)).steps} == {full.path: full, "bare": bare}


async def test_what_a_caller_does_to_a_payload_stays_with_the_caller(repository: Repository, keeper: Keeper) -> None:
    mine: dict[str, Any] = {"list": [1]}
    row = execution(keeper.workflow, keeper.incarnation, labels={"a": "b"})
    await repository.create(new(row, input=mine, steps=[step(input=mine)]))
    mine["list"].append(2)
    detail = await keeper.read(row)
    detail.input["list"].append(3)
    detail.steps[0].input["list"].append(4)
    assert isinstance(detail.execution.labels, dict)
    detail.execution.labels["a"] = "c"
    again = await keeper.read(row)
    assert again.input == again.steps[0].input == {"list": [1]}
    assert again.execution.labels == {"a": "b"}


async def test_what_does_not_exist_is_not_found(repository: Repository, keeper: Keeper) -> None:
    await keeper.put()
    unknown = uuid4()
    for read in (
        repository.get_execution(SCOPE, unknown),
        repository.get_detail(SCOPE, unknown),
        repository.get_outcome(SCOPE, unknown),
        repository.get_steps(SCOPE, unknown, ["fetch"], 0),
        repository.get_steps(SCOPE, unknown, ["fetch"], 9),
        repository.list_item_steps(SCOPE, unknown, StepFilter(), None, 9),
        repository.read_events(SCOPE, unknown, 0, 10),
        repository.request_cancel(SCOPE, unknown, "ann", ""),
    ):
        with pytest.raises(ExecutionNotFoundError) as caught:
            await read
        assert caught.value.execution_id == unknown


@pytest.mark.parametrize("scope", [FOREIGN_ORG, FOREIGN_OWNER, Scope(FOREIGN_ORG.org, OWNER), Scope(ORG, "")])
async def test_a_foreign_execution_is_like_one_that_does_not_exist(
    repository: Repository, keeper: Keeper, scope: Scope
) -> None:
    row = await keeper.put(request_id="r")
    absent = uuid4()
    for target in (row.id, absent):
        errors = [
            await outcome(repository.get_execution(scope, target)),
            await outcome(repository.get_detail(scope, target)),
            await outcome(repository.get_outcome(scope, target)),
            await outcome(repository.get_steps(scope, target, [], 0)),
            await outcome(repository.list_item_steps(scope, target, StepFilter(), None, 9)),
            await outcome(repository.read_events(scope, target, 0, 10)),
            await outcome(repository.read_events(scope, target, 99, 10)),
            await outcome(repository.request_cancel(scope, target, "eve", "")),
        ]
        assert [(type(error), str(error)) for error in errors] == [
            (ExecutionNotFoundError, f"execution {target} not found")
        ] * 8
    for order in ExecutionOrder:
        assert not await repository.list_executions(scope, ExecutionFilter(), order, None, 10)
        assert await repository.count_executions(scope, ExecutionFilter(), order, 10) == 0
    assert await repository.get_execution(SCOPE, row.id) == row


async def test_an_owner_sees_what_the_owner_started(repository: Repository, keeper: Keeper) -> None:
    mine, theirs = await keeper.put(), await keeper.put(owner="bob")
    scope = Scope(ORG, OWNER)
    assert await repository.get_execution(scope, mine.id) == mine
    assert (await repository.get_detail(scope, mine.id)).execution == mine
    assert len(await repository.read_events(scope, mine.id, 0, 10)) == 1
    assert await repository.list_executions(scope, ExecutionFilter(), ExecutionOrder.NEWEST, None, 10) == [mine]
    assert not await repository.list_executions(scope, ExecutionFilter(owner="bob"), ExecutionOrder.NEWEST, None, 10)
    assert (await repository.request_cancel(scope, mine.id, OWNER, "")).message is not None
    with pytest.raises(ExecutionNotFoundError):
        await repository.get_execution(scope, theirs.id)


async def test_a_detail_is_never_torn(repository: Repository, keeper: Keeper) -> None:
    """Each transition adds one step and one event and sets progress: a reader sees all three or none."""
    row = await keeper.put()
    first = row

    async def write() -> None:
        nonlocal row
        for number in range(1, 60):
            written = transition(row, steps=[step(f"s{number}")], progress=number)
            await repository.submit(written)
            row = after(row, written)

    writing = asyncio.create_task(write())
    seen = set()
    while not writing.done():
        detail = await keeper.read(first)
        assert len(detail.steps) == detail.execution.progress == detail.execution.last_seq - 1
        seen.add(detail.execution.last_seq)
        await asyncio.sleep(0)
    await writing
    assert len((await keeper.read(first)).steps) == 59


async def test_ping_answers(repository: Repository) -> None:
    await repository.ping()
