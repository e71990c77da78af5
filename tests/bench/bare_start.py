"""The baseline of Execute: a gRPC server whose one method writes an execution and its first event, and nothing else.

    python -m tests.bench.bare_start DSN

Requests that arrive within the same few milliseconds share a statement, as they do in our committer.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import uvloop
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import aio, method_handlers_generic_handler, unary_unary_rpc_method_handler

DDL = """
CREATE TABLE bare_run (
    run_id uuid PRIMARY KEY, namespace text, request_id text, state jsonb, created timestamptz DEFAULT now()
);
CREATE UNIQUE INDEX ON bare_run (namespace, request_id);
CREATE TABLE bare_run_event (run_id uuid, seq bigint, body jsonb, PRIMARY KEY (run_id, seq))
"""
INSERT = """
WITH input AS (SELECT * FROM unnest($1::uuid[], $2::text[], $3::jsonb[]) AS t (run_id, request_id, body)),
run AS (
    INSERT INTO bare_run (run_id, namespace, request_id, state) SELECT run_id, 'org', request_id, body FROM input
    ON CONFLICT (namespace, request_id) DO NOTHING RETURNING run_id, state
)
INSERT INTO bare_run_event SELECT run_id, 1, state FROM run RETURNING run_id
"""
METHOD = "/bare.Starter/Start"
STATE = '{"input": {"a": 1, "b": "text", "list": [1, 2, 3]}}'
LARGEST_BATCH = 500


class Batcher:
    """Writes what is pending in one statement, then what gathered meanwhile."""

    def __init__(self, pool: asyncpg.Pool, writers: int = 2) -> None:
        self._pool = pool
        self._pending: list[tuple[tuple[UUID, str, str], asyncio.Future[bool]]] = []
        self._wake = asyncio.Event()
        self._tasks = [asyncio.create_task(self._write_for_ever()) for _ in range(writers)]

    async def put(self, *row: Any) -> bool:
        """Return whether the row is new, when it is committed."""
        committed = asyncio.get_running_loop().create_future()
        self._pending.append((row, committed))
        self._wake.set()
        return bool(await committed)

    async def _write_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            batch, self._pending = self._pending[:LARGEST_BATCH], self._pending[LARGEST_BATCH:]
            if not self._pending:
                self._wake.clear()
            if batch:
                columns = [list(column) for column in zip(*(row for row, _ in batch), strict=True)]
                new = {record[0] for record in await self._pool.fetch(INSERT, *columns)}
                for row, committed in batch:
                    committed.set_result(row[0] in new)


async def serve(dsn: str) -> None:
    """Serve on a free port, which is printed."""
    pool = await asyncpg.create_pool(dsn, min_size=8, max_size=8)
    await pool.execute(DDL)
    batcher = Batcher(pool)

    async def start(request: BytesValue, context: Any) -> BytesValue:
        run_id = uuid4()
        assert await batcher.put(run_id, request.value.decode(), STATE)
        return BytesValue(value=run_id.bytes)

    handler = unary_unary_rpc_method_handler(start, BytesValue.FromString, BytesValue.SerializeToString)
    server = aio.server()
    _, service, method = METHOD.split("/")
    server.add_generic_rpc_handlers((method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
