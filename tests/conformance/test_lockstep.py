"""Both stores in lockstep: whatever is asked of them, in whatever order, they answer the same and hold the same.

They go by one clock that only the machine moves, so leases lapse when it wants, and even times are compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule, run_state_machine_as_test
from msgspec.structs import replace

from persistence.errors import PersistenceError
from persistence.listing import ExecutionFilter, ExecutionOrder, StepFilter, StepPlace, WorkflowFilter
from persistence.memory import MemoryRepository
from persistence.model import (
    SUSPECT_DEATHS,
    Execution,
    ExecutionDetail,
    ExecutionState,
    Message,
    MessageKind,
    Scope,
    StepState,
    Workflow,
)
from persistence.postgres import PostgresRepository
from persistence.postgres.tables import metadata
from persistence.repository import Repository
from persistence.requests import Method, Request
from persistence.transition import Created, Letter, Transition
from persistence.usage import Usage
from service.engine.ids import uuid7
from tests.conformance.builders import (
    CANCELLED,
    FOREIGN_ORG,
    ORG,
    OWNER,
    document,
    execution,
    new,
    now,
    outcome,
    step,
    transition,
)
from tests.conformance.test_lists import walk
from tests.patience import PATIENCE

# Without shrinking, which would outlast the timeout of a test: add Phase.shrink to look at a failure.
SETTINGS = settings(
    max_examples=40, stateful_step_count=60, derandomize=True, database=None,
    phases=(Phase.generate,), suppress_health_check=list(HealthCheck),
)  # fmt: skip

PROCESSES = (UUID(int=1), UUID(int=2), UUID(int=3))
LATER = UUID(int=4)
EARLIER = {"mistake": ("last_seq", -1)}

# Hides the one of Postgres: the store names no schema.
CLOCK = """
CREATE TABLE clock (time timestamptz NOT NULL);
INSERT INTO clock VALUES (now());
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT time FROM public.clock';
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$"""

Server: TypeAlias = "tuple[asyncio.Runner, asyncpg.Connection[asyncpg.Record], Repository]"
Columns: TypeAlias = dict[str, Any]
Use: TypeAlias = tuple[str, bytes] | None
Key: TypeAlias = tuple[str, UUID]  # org and id of an execution


@pytest.fixture
def server(database_dsn: str) -> Iterator[Server]:
    """A Postgres that goes by our clock, with a loop of its own: the machine is not asynchronous."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as loop:
        admin = loop.run(asyncpg.connect(database_dsn))
        loop.run(admin.execute(CLOCK))
        patient = partial(PostgresRepository.open, command_timeout=PATIENCE, acquire_timeout=PATIENCE)
        repository = loop.run(patient(database_dsn, unknown_timeout=PATIENCE))
        yield loop, admin, repository
        loop.run(repository.close())
        loop.run(admin.close())


def test_whatever_is_asked_both_stores_answer_the_same(server: Server) -> None:
    run_state_machine_as_test(partial(Lockstep, server), settings=SETTINGS)  # type: ignore[arg-type]  # takes functions


def written(row: Execution, change: Columns, time: datetime) -> Transition:
    """Return what somebody submits at this time who takes the row for the current one, or errs as the change says."""
    given = dict(change)
    name, distance = given.pop("mistake")
    row = replace(row, **{name: getattr(row, name) + distance}, **given.pop("stranger"))
    given["wake_time"] = None if (wake := given.pop("wake")) is None else time + timedelta(seconds=wake)
    given["end_time"] = time if given["state"].is_end else None
    given["usage"] = Usage(given["bytes"], 1) if given["bytes"] else None
    given["ending"] = CANCELLED if given["state"] is ExecutionState.CANCELLING else None
    return transition(row, **given, start_time=row.start_time or time)


def asked(method: Method, use: Use) -> Request | None:
    """Return the request of a call that uses a request id so."""
    return None if use is None else Request(use[0], method, use[1])


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """The usual value, or in one of five cases another."""
    return st.sampled_from((*(usual,) * 4 * len(others), *others))


orgs, people = mostly(ORG, FOREIGN_ORG.org), mostly(OWNER, "bob")
scopes = st.builds(Scope, orgs, st.none() | people)
processes, seconds = st.sampled_from(PROCESSES), st.sampled_from((-10, 0, 5, 40, 3600))
filters = st.builds(ExecutionFilter, states=st.lists(st.sampled_from(ExecutionState), max_size=3))
steps = st.builds(step, st.sampled_from("ab"), mostly(StepState.RUNNING, *StepState), iteration=mostly(1, 2))
request_ids, hashes = st.sampled_from(("", "r1", "r2")), mostly(b"first", b"other")
uses = st.none() | st.tuples(st.sampled_from(("r1", "r2", "r3", "r4")), hashes)  # of a request id, with its content
columns = st.fixed_dictionaries({
    "incarnation": st.none() | processes, "wake_time": seconds, "owner": people,
    "state": mostly(ExecutionState.RUNNING, *ExecutionState), "priority": mostly(0, 5, -1), "request_id": request_ids,
})  # fmt: skip
changes = st.fixed_dictionaries({
    "mistake": mostly(("epoch", 0), ("epoch", -1), ("epoch", 1), ("last_seq", 1)),
    "stranger": mostly({}, {"incarnation": LATER}, {"org": "x"}),
    "count": st.integers(1, 3), "steps": st.lists(steps, max_size=1), "progress": st.sampled_from((0, 50)),
    "state": st.sampled_from((ExecutionState.RUNNING,) * 8 + tuple(ExecutionState)), "survived": mostly(False, True),
    "result": st.none() | st.just({"a": 1}), "mail_seen": mostly(0, 1),
    "reads": st.booleans(), "writes": mostly(None, 0, 1), "release": st.booleans(),
    "wake": st.none() | seconds, "bytes": mostly(0, 2**40),
})  # fmt: skip


class Lockstep(RuleBasedStateMachine):
    """Asks both stores the same, one after the other."""

    workflows: Bundle[Workflow] = Bundle("workflows")
    executions: Bundle[Key] = Bundle("executions")

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.loop, self.admin, self.postgres = server
        self.loop.run(self.admin.execute("; ".join(f"DELETE FROM {table}" for table in metadata.tables)))  # noqa: S608
        self.memory = MemoryRepository(lambda: self.time)
        self.time = now()
        self.pass_time(0)
        self.ids = [uuid7() for _ in range(3 * SETTINGS.stateful_step_count)]
        self.first: Any = self.keep_workflow(ORG, "research", "")
        for process in PROCESSES:
            self.renew(process, 300, False, "")

    def both(self, ask: Callable[[Repository], Awaitable[Any]]) -> Any:
        """Return the answer of both."""

        async def answer(store: Repository) -> Any:
            return comparable(await outcome(ask(store)))

        self.agree = False
        expected = self.loop.run(answer(self.memory))
        found = self.loop.run(answer(self.postgres))
        assert found == expected
        self.agree = True
        return expected

    def at(self, second: float) -> datetime:
        """Return the time in so many seconds."""
        return self.time + timedelta(seconds=second)

    def row(self, key: Key) -> Execution:
        """Return the execution as it is, or as one that is not there might be."""
        row = self.loop.run(outcome(self.memory.get_execution(Scope(key[0]), key[1])))
        return row if isinstance(row, Execution) else execution(self.first, PROCESSES[0], id=key[1])

    def unseen(self, key: Key) -> Sequence[Message]:
        """Return the messages of an execution that nobody has seen."""
        row = self.memory._tables.executions.get(key[1])
        return self.memory._tables.unseen(row) if row is not None else ()

    def letter(self, to: Key) -> Letter:
        """Return a message to an execution."""
        return Letter(to[1], Message(uuid7(), MessageKind.CHILD_ENDED, self.time, "child", {"well": True}))

    def teardown(self) -> None:
        """All that they hold is the same, and so is what a later process takes over when all have died."""
        if self.agree:
            self.both(everything)
            self.take_over(LATER, 100, 100)
            self.both(everything)

    @initialize(target=workflows)
    def begin(self) -> Any:
        return self.first

    @rule(target=workflows, org=orgs, name=st.sampled_from(("research", "other")), etag=mostly("", "stale"),
          created=uses, updated=uses)  # fmt: skip
    def keep_workflow(self, org: str, name: str, etag: str, created: Use = None, updated: Use = None) -> Any:
        workflow_id, newer = self.ids.pop(), document(name, tags=["new"])
        create, update = asked(Method.CREATE_WORKFLOW, created), asked(Method.UPDATE_WORKFLOW, updated)
        made = self.both(lambda store: store.create_workflow(org, workflow_id, document(name), OWNER, create))
        if not isinstance(made, Workflow) or made.id != workflow_id:
            self.both(lambda store: store.update_workflow(Scope(org), name, newer, etag, OWNER, update))
        found = self.both(lambda store: store.get_workflow(Scope(org), name))
        return found if isinstance(found, Workflow) else multiple()

    @rule(target=workflows, org=orgs, names=st.permutations(("research", "other")), text=st.text("ab", max_size=1),
          dry_run=st.booleans(), use=uses)  # fmt: skip
    def apply_workflows(self, org: str, names: Sequence[str], text: str, dry_run: bool, use: Use) -> Any:
        given = [(self.ids.pop(), document(name, description=text)) for name in names]
        request = asked(Method.APPLY_WORKFLOWS, use)
        self.both(lambda store: store.apply_workflows(org, given, OWNER, request, dry_run=dry_run))
        if request is not None:
            self.both(lambda store: store.find_change(org, request))
        found = self.both(lambda store: store.get_workflow(Scope(org), names[0]))
        return found if isinstance(found, Workflow) else multiple()

    @rule(workflow=workflows, scope=scopes, force=mostly(False, True), use=uses)
    def delete_workflow(self, workflow: Workflow, scope: Scope, force: bool, use: Use) -> None:
        request = asked(Method.DELETE_WORKFLOW, use)
        self.both(lambda store: store.delete_workflow(scope, str(workflow.id), "", force, "eve", request))
        self.both(lambda store: store.get_workflow(scope, str(workflow.id), 2))
        # All of it: which ones a lower limit leaves is open.
        self.both(lambda store: store.reap(1_000))

    @rule(second=st.sampled_from((1, 20, 120)))
    def pass_time(self, second: int) -> None:
        self.time = self.at(second)
        self.loop.run(self.admin.execute("UPDATE clock SET time = $1", self.time))

    @rule(by=processes, ttl=st.sampled_from((100, 300)), lapsed=st.booleans(), end=mostly("", "own", "others"))
    def renew(self, by: UUID, ttl: float, lapsed: bool, end: str) -> None:
        if self.both(lambda store: store.renew(by, ttl, lapsed=lapsed)) is None:
            self.both(lambda store: store.register(by, "replica", ttl))
        if end:
            self.both(lambda store: store.retire(by) if end == "own" else store.retire_others(by))

    @initialize(target=executions, owners=st.permutations((None, None, *PROCESSES)))
    def begin_executions(self, owners: Sequence[UUID | None]) -> Any:
        row = {"wake_time": 0, "state": ExecutionState.RUNNING}
        made = [self.create(self.first, 0, row | {"incarnation": by}, b"") for by in owners]
        return multiple((ORG, self.ids.pop()), *made)  # the first was never created

    @rule(target=executions, workflow=workflows, place=st.integers(0, 5), row=columns, content=hashes)
    def create(self, workflow: Workflow, place: int, row: Columns, content: bytes) -> Any:
        # Not always the next id: what is created later may have a lower one. And never one that is in use.
        row = row | {"id": self.ids.pop(place), "create_time": self.time}
        row["wake_time"] = None if row["incarnation"] else self.at(row["wake_time"])
        row["end_time"] = self.at(1) if row["state"].is_end else None
        asked = new(execution(workflow, **row), content_hash=content, steps=[step("a")])
        made = self.both(lambda store: store.create(asked))
        return (workflow.org, row["id"]) if isinstance(made, Created) and made.created else multiple()

    @rule(by=processes, limit=st.integers(0, 4), suspects=st.integers(0, 2))
    def claim(self, by: UUID, limit: int, suspects: int) -> None:
        async def claimed(store: Repository) -> list[ExecutionDetail]:
            taken = await store.claim(by, limit, suspects)
            # Suspects last: where they stand among the others is open.
            return sorted(taken, key=lambda each: each.execution.deaths >= SUSPECT_DEATHS and each.execution.id.int)

        self.both(claimed)

    @rule(by=processes, key=executions, org=orgs)
    def claim_one(self, by: UUID, key: Key, org: str) -> None:
        self.both(lambda store: store.claim_one(by, org, key[1]))

    @rule(by=processes, limit=st.integers(2, 6), suspects=st.integers(0, 2))
    def take_over(self, by: UUID, limit: int, suspects: int) -> None:
        """All processes die, and one claims what they drove."""
        self.pass_time(400)
        self.renew(by, 300, False, "")
        self.claim(by, limit, suspects)

    @rule(by=processes, flight=st.lists(st.tuples(executions, changes), min_size=1, max_size=4), wish=st.booleans())
    def submit(self, by: UUID, flight: Sequence[tuple[Key, Columns]], wish: bool) -> None:
        """All in flight at once; of one execution each follows those before it, whatever becomes of them."""
        self.renew(by, 300, False, "")
        for key in dict(flight):
            self.claim_one(by, key, key[0])
            if wish:
                self.request_cancel(key, Scope(key[0]), OWNER)
        rows = {key: self.row(key) for key, _ in flight}
        pending: list[Transition] = []
        for key, drawn in flight:
            change = dict(drawn)
            reads, to = change.pop("reads"), change.pop("writes")
            change["consumed"] = [each.id for each in self.unseen(key)] if reads else []
            change["letters"] = [] if to is None else [self.letter(flight[to % len(flight)][0])]
            pending.append(written(rows[key], change, self.time))
            rows[key] = replace(rows[key], last_seq=rows[key].last_seq + change["count"])
        self.both(lambda store: asyncio.gather(*(outcome(store.submit(each)) for each in pending)))

    @rule(by=processes, key=executions, first=changes, second=changes, rescued=st.booleans())
    def submit_pair(self, by: UUID, key: Key, first: Columns, second: Columns, rescued: bool) -> None:
        """Two of one execution, of which the first is sound, so that they are written as one where they can be."""
        if rescued:
            self.take_over(by, 6, 2)
        sound = {"mistake": ("epoch", 0), "stranger": {}, "state": ExecutionState.RUNNING, "release": False}
        sound["survived"] = rescued
        self.submit(by, [(key, first | sound), (key, second)], False)

    @rule(by=processes, key=executions, change=changes, more=st.sampled_from(({"count": 0}, EARLIER)))
    def submit_alone(self, by: UUID, key: Key, change: Columns, more: Columns) -> None:
        # Behind one that is refused it could fit, and whether it is fenced depends on when that one was answered.
        self.submit(by, [(key, change | more)], False)

    @rule(by=processes, some=st.none() | st.lists(executions, max_size=3))
    def release(self, by: UUID, some: Sequence[Key] | None) -> None:
        self.both(lambda store: store.release(by, None if some is None else [key[1] for key in some]))

    @rule(by=processes, key=executions, mistake=mostly(0, 1))
    def disown(self, by: UUID, key: Key, mistake: int) -> None:
        epoch = self.row(key).epoch + mistake
        self.both(lambda store: store.disown(by, key[1], epoch))

    @rule(by=processes, driven=st.lists(executions, max_size=5), org=orgs, request_id=request_ids, content=hashes)
    def look(self, by: UUID, driven: Sequence[Key], org: str, request_id: str, content: bytes) -> None:
        self.both(lambda store: store.undriven(by, [key[1] for key in driven]))
        self.both(lambda store: store.deliver(by))
        self.both(lambda store: store.next_wake_time())
        self.both(lambda store: store.find_request(org, request_id, [content]))

    @rule(key=executions, by=processes, scope=scopes, after_seq=st.integers(0, 4), limit=st.integers(1, 4))
    def read(self, key: Key, by: UUID, scope: Scope, after_seq: int, limit: int) -> None:
        self.both(lambda store: store.get_execution(scope, key[1]))
        self.both(lambda store: store.get_detail(scope, key[1]))
        self.both(lambda store: store.get_outcome(scope, key[1]))
        self.both(lambda store: store.get_steps(scope, key[1], ["b", "c", "a"], 1 << 20))
        self.both(lambda store: store.list_item_steps(scope, key[1], StepFilter(), StepPlace(after_seq), limit))
        self.both(lambda store: store.read_events(scope, key[1], after_seq, limit))
        self.both(lambda store: store.load(by, key[1]))

    @rule(key=executions, scope=scopes, by=people, use=uses)
    def request_cancel(self, key: Key, scope: Scope, by: str, use: Use = None) -> None:
        request = asked(Method.CANCEL, use)
        self.both(lambda store: store.request_cancel(scope, key[1], by, "enough", request))

    @rule(order=st.sampled_from(ExecutionOrder), size=st.integers(1, 4), where=filters, scope=scopes)
    def list_executions(self, order: ExecutionOrder, size: int, where: ExecutionFilter, scope: Scope) -> None:
        self.both(lambda store: walk(store, order, size, where, scope))
        self.both(lambda store: store.count_executions(scope, where, order, size))


def comparable(answer: Any) -> Any:
    """Return the answer; in place of an error its class and what it is about, without the text."""
    if isinstance(answer, list):
        return [comparable(each) for each in answer]
    return (type(answer), vars(answer)) if isinstance(answer, PersistenceError) else answer


async def everything(store: Repository) -> list[Any]:
    """Return all that a store holds. Takes up leases that have run out."""
    held: list[Any] = [await store.next_wake_time()]
    for scope in (Scope(ORG), FOREIGN_ORG):
        held.append(await store.list_workflows(scope, WorkflowFilter(), None, 100))
        for row in await store.list_executions(scope, ExecutionFilter(), ExecutionOrder.NEWEST, None, 100):
            held += [row, await store.get_detail(scope, row.id), await store.read_events(scope, row.id, 0, 999)]
    for process in PROCESSES:
        held += [await store.undriven(process, []), await store.deliver(process)]
        held.append(await store.renew(process, 300, lapsed=True))
    return held
