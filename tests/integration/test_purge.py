"""What a watcher is told when events before its position are removed while it watches: W8."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from flowkeep.errors import from_rpc_error
from flowkeep.v1 import execution_service_pb2 as pb
from persistence.errors import CursorExpiredError
from persistence.postgres import events
from tests.integration.stage import Store, ended, eventually, made, step
from tests.patience import PATIENCE

BEFORE, SAME, AFTER = -1, 0, 1
"""Where the last removed transition stands by the position of the watcher."""


class Reads:
    """Reads of the history that wait while they are held."""

    def __init__(self):
        self._open = asyncio.Event()
        self._open.set()
        self._under_way = 0

    def of(self, repository):
        """The repository, with its reads held or not."""

        async def read_events(*arguments):
            await self._open.wait()
            self._under_way += 1
            try:
                return await repository.read_events(*arguments)
            finally:
                self._under_way -= 1

        return Store(repository, read_events=read_events)

    @asynccontextmanager
    async def held(self):
        """Inside nothing is read."""
        self._open.clear()

        async def is_quiet():
            return not self._under_way

        await eventually(is_quiet)
        try:
            yield
        finally:
            self._open.set()


class Watcher:
    """One stream of events, and how it ended."""

    def __init__(self, served, execution_id, after_seq=0):
        self.seqs = []
        self.code, self.reason, self.oldest = grpc.StatusCode.OK, "", ""
        self._arrived = asyncio.Condition()
        request = pb.WatchExecutionRequest(execution_id=execution_id, after_seq=after_seq)
        self._call = served.executions.WatchExecution(request)
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        try:
            async for response in self._call:
                async with self._arrived:
                    self.seqs += [event.seq for event in response.events.events]
                    self._arrived.notify_all()
        except grpc.aio.AioRpcError as error:
            refusal = from_rpc_error(error)
            self.code, self.reason = refusal.code, refusal.reason
            self.oldest = refusal.metadata.get("oldest_seq", "")

    async def at(self, seq):
        """Return when this event has arrived."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: self.seqs and self.seqs[-1] >= seq)
        assert self.seqs[-1] == seq

    async def end(self):
        """Return when the stream has ended."""
        async with asyncio.timeout(PATIENCE):
            await self._reading


@pytest.fixture
def m11(monkeypatch):
    """M11: at the boundary one transition is skipped."""

    def check_cursor(last_seq, oldest, after_seq):
        try:
            before(last_seq, oldest, after_seq)
        except CursorExpiredError:
            if oldest > after_seq + 3:
                raise

    before = events._check_cursor
    monkeypatch.setattr(events, "_check_cursor", check_cursor)


async def purged_beside(serve, stage, admin, distance):
    """Remove the transitions up to `distance` from a watcher's position while it watches; return what broke W8."""
    reads = Reads()
    driving = await serve()
    watching = await serve(wrap=reads.of)  # it has no events at hand: it did not write them
    execution = await driving.client.execute(await made(driving.client, step("before"), step("a", "gate"), step("b")))
    await stage.called("a")
    position = (await driving.client.get_execution(execution.execution_id)).last_seq
    watcher = Watcher(watching, execution.execution_id)
    await watcher.at(position)
    async with reads.held():
        stage.open("gate")
        last = (await ended(driving.client, execution.execution_id)).last_seq
        ends = [row[0] for row in await admin.fetch("SELECT seq FROM transitions ORDER BY seq")]
        purged = ends[ends.index(position) + distance]
        await admin.execute("DELETE FROM transitions WHERE seq <= $1", purged)
    await watcher.end()
    late = Watcher(watching, execution.execution_id, position)
    await late.end()
    found = _violations("who was watching", watcher, position, purged, last, list(range(1, position + 1)))
    return found + _violations("who came later", late, position, purged, last, [])


def _violations(who, watcher, position, purged, last, seen):
    found = []
    if purged > position:
        due, told = seen, (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED", str(purged + 1))
    else:
        due, told = [*seen, *range(position + 1, last + 1)], (grpc.StatusCode.OK, "", "")
    if watcher.seqs != due:
        found.append(f"W8: {who} at {position} got {watcher.seqs} when all up to {purged} were removed, and not {due}")
    if (watcher.code, watcher.reason, watcher.oldest) != told:
        found.append(f"W8: {who} at {position} was told {watcher.code} {watcher.reason} {watcher.oldest}")
    return found


@pytest.mark.parametrize("distance", [BEFORE, SAME, AFTER])
async def test_a_watcher_is_told_of_what_it_can_no_longer_get(serve, stage, admin, distance):
    assert not await purged_beside(serve, stage, admin, distance)


@pytest.mark.usefixtures("m11")
async def test_m11_turns_its_oracle_red(serve, stage, admin):
    assert len(await purged_beside(serve, stage, admin, AFTER)) == 4
