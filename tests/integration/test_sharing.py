"""Large payloads of an execution are kept once, and come back as they were."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from persistence.model import UNREAD, Event, StepState, Wanted
from persistence.postgres import PostgresRepository
from persistence.postgres.layout import LETTERS
from persistence.transition import CommitResult
from tests.conformance.builders import MOMENT, SCOPE, new, step
from tests.faults.harness.collection import EVENTS
from tests.integration.postgres_store import PostgresStore, move, settled

LARGE: dict[str, Any] = {"ä": "x" * 10_000, "n": [1, 1.5, None, True, {"k": "v"}]}
OTHER = {"o": "y" * 9_000}
MESSAGE = bytes(range(256)) * 40


def event(seq: int, message: bytes = MESSAGE) -> Event:
    """An event that holds a large payload between what is its own."""
    body = f"before {seq}".encode() + message + b"behind"
    begin = len(f"before {seq}")
    return Event(seq, seq, "step_completed", MOMENT, body, (begin, begin + len(message)))


async def kept(store: PostgresStore) -> int:
    """How many large payloads are kept."""
    return int(await store.admin.fetchval("SELECT count(*) FROM shared_payloads"))


async def fill(store: PostgresStore, count: int = 6) -> tuple[Any, list[Event]]:
    """An execution with steps that hold the same, in one flush and in several; and its events."""
    row = await store.put()
    moves = [
        move(row, n, steps=[step(f"s{n}", input=LARGE, output=OTHER, assigned=LARGE)], events=[event(n + 1)])
        for n in range(1, count)
    ]
    assert await settled(*map(store.repository.submit, moves[:-2])) == [CommitResult.COMMITTED] * (count - 3)
    for each in moves[-2:]:
        assert await store.repository.submit(each) is CommitResult.COMMITTED
    return row, [each for one in moves for each in one.events]


async def check(store: PostgresStore, row: Any, events: list[Event]) -> None:
    """It comes back as it was: steps, and the events byte for byte, also from the middle."""
    detail = await store.repository.get_detail(SCOPE, row.id)
    assert detail.unreadable == ()
    assert [(s.input, s.output, s.assigned) for s in detail.steps] == [(LARGE, OTHER, LARGE)] * len(events)
    assert list((await store.repository.read_events(SCOPE, row.id, 0, 100))[1:]) == events
    assert list(await store.repository.read_events(SCOPE, row.id, 3, 2)) == events[2:4]
    loaded = await store.repository.load(row.incarnation, row.id)
    assert loaded is not None
    whole = await store.repository.load_payloads(loaded, Wanted(loaded.omitted, loaded.omitted))
    assert list(whole.steps) == [replace(each, input=UNREAD) for each in detail.steps]


async def test_equal_payloads_are_kept_once_and_come_back_as_they_were(store: PostgresStore):
    row, events = await fill(store)
    await check(store, row, events)
    assert await kept(store) == 3
    assert await store.admin.fetchval("SELECT sum(pg_column_size(s.*)) FROM steps s") < 4_000
    assert await store.admin.fetchval("SELECT sum(pg_column_size(t.*)) FROM transitions t") < 4_000


async def test_people_see_each_event_with_what_it_refers_to(store: PostgresStore):
    _, events = await fill(store)
    shown = await store.admin.fetch(
        """
        SELECT v.seq, v.transition_seq, v.kind, v.time, substr(body, 1, at) || message || substr(body, 1 + at) AS body
        FROM (SELECT *, (shared->>'at')::int AS at FROM events) v
        JOIN shared_payloads p ON (p.org_id, p.execution_id, p.digest) = (v.org_id, v.execution_id, v.shared->>'digest')
        ORDER BY v.seq"""
    )
    assert [Event(*each) for each in shown] == events


async def test_the_checks_of_a_chaos_run_see_whole_events(store: PostgresStore):
    row, events = await fill(store)
    collected = await store.admin.fetch(EVENTS, [row.id])
    assert [each["body"] for each in collected][-len(events) :] == [each.body for each in events]


async def test_people_see_the_events_of_transitions_that_were_written_at_once(store: PostgresStore):
    row = store.new(last_seq=4).execution
    odd = [(1, 1, b""), (2, 4, b"two"), (3, 4, b"x"), (4, 4, bytes(range(256)))]
    told = tuple(Event(seq, last, f"kind_{seq}", MOMENT, body) for seq, last, body in odd)
    await store.repository.create(new(row, events=told))
    await store.repository.submit(move(row, 4, events=[event(5, b"")]))
    shown = await store.admin.fetch("SELECT seq, transition_seq, kind, time, body FROM events ORDER BY seq")
    assert [Event(*each) for each in shown] == [*told, event(5, b"")]


async def test_people_see_the_kind_of_each_event(store: PostgresStore):
    row = store.new(last_seq=len(LETTERS) + 2).execution
    kinds = [*LETTERS, *"cX"]
    told = tuple(Event(seq, seq, kind, MOMENT, b"") for seq, kind in enumerate(kinds, start=1))
    await store.repository.create(new(row, events=told))
    shown = await store.admin.fetch("SELECT kind FROM events ORDER BY seq")
    assert [each["kind"] for each in shown] == kinds
    assert [each.kind for each in await store.repository.read_events(SCOPE, row.id, 0, 100)] == kinds


async def test_what_is_small_stays_where_it_belongs(store: PostgresStore):
    row = await store.put()
    small = step("s", input={"a": "x" * 8_000}, output=None, assigned={})
    assert await store.repository.submit(move(row, 1, steps=[small])) is CommitResult.COMMITTED
    assert await kept(store) == 0
    assert await store.admin.fetchval("SELECT count(*) FROM steps WHERE shared IS NULL AND input IS NOT NULL") == 1


async def test_another_process_and_a_new_connection_go_on_with_it(store: PostgresStore, database_dsn: str):
    row, events = await fill(store)
    await store.kill()
    last = step("s9", input=LARGE, output=OTHER, assigned=LARGE)
    assert await store.repository.submit(move(row, 6, steps=[last], events=[event(7)])) is CommitResult.COMMITTED
    other = await PostgresRepository.open(database_dsn, pool_size=2)
    again = step("t", input=LARGE, output=OTHER, assigned=LARGE)
    assert await other.submit(move(row, 7, steps=[again], events=[event(8)])) is CommitResult.COMMITTED
    await other.close()
    await check(store, row, [*events, event(7), event(8)])
    assert await kept(store) == 3


async def test_nothing_is_left_of_what_was_refused(store: PostgresStore):
    row = await store.put()
    large = [step("s", input=LARGE)]
    assert await store.repository.submit(move(replace(row, epoch=7), 1, steps=large)) is CommitResult.FENCED
    assert await kept(store) == 0
    assert await store.repository.submit(move(row, 1, steps=large)) is CommitResult.COMMITTED
    assert (await store.repository.get_detail(SCOPE, row.id)).steps[0].input == LARGE


async def test_what_waits_is_ended_without_its_output(store: PostgresStore):
    row = await store.put()
    waiting = step("s", StepState.WAITING, input=LARGE, output=OTHER)
    assert await store.repository.submit(move(row, 1, steps=[waiting])) is CommitResult.COMMITTED

    def end(closing: Any) -> tuple[Any, Event]:
        return {"code": "X", "message": ""}, Event(closing.seq, closing.seq, "finished", closing.time, b"end")

    await store.repository.condemn(store.incarnation, row.id, end)
    (found,) = (await store.repository.get_detail(SCOPE, row.id)).steps
    assert (found.state, found.input, found.output) == (StepState.CANCELLED, LARGE, None)


async def test_it_goes_with_its_execution(store: PostgresStore):
    row, _ = await fill(store)
    await store.admin.execute(
        "UPDATE executions SET state = 'FAILED', end_time = now(), incarnation = NULL WHERE id = $1", row.id
    )
    await store.repository.delete_workflow(SCOPE, store.workflow.name, "", True, "ann")
    assert await store.repository.reap(10) == 1
    assert await kept(store) == 0
