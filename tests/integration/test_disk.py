"""A disk that is full and pages that are damaged are told as what they are, and health follows.

Holds CONTRACT 2.5 "disk full": definite errors, nothing lost, and it goes on within 10 s after space is back.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import flowkeep
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_service_pb2_grpc import ExecutionServiceStub
from persistence.embedded import EmbeddedPostgres
from persistence.postgres import PostgresRepository, migrate
from service import app
from tests.folders import new_folder
from tests.integration.stage import ended, made, refusal, serving, step
from tests.patience import PATIENCE

Code = grpc.StatusCode
Health = health_pb2.HealthCheckResponse
SMALL = {"fsync": "off", "shared_buffers": "16MB", "min_wal_size": "32MB", "max_wal_size": "48MB"}


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system with an end. Only root can have one of its own."""
    with new_folder() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=160m,mode=711", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("no file system of its own can be mounted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def health(channel: grpc.aio.Channel, wanted: int) -> None:
    """Return when health says so."""
    stub = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(PATIENCE):
        while (await stub.Check(health_pb2.HealthCheckRequest())).status != wanted:  # noqa: ASYNC110 - probes ask, too
            await asyncio.sleep(0.05)


async def test_a_full_disk_is_told_and_passes(disk, stage, monkeypatch):
    monkeypatch.setattr(app, "READINESS_INTERVAL", 0.1)
    with EmbeddedPostgres(disk / "fk", settings=SMALL) as postgres:
        await migrate(postgres.dsn())
        repository = await PostgresRepository.open(postgres.dsn(), pool_size=4)
        async with (
            serving(repository, stage.handlers()) as target,
            flowkeep.Client(target) as client,
            grpc.aio.insecure_channel(target) as channel,
        ):
            execute = ExecutionServiceStub(channel).Execute
            name = await made(client, step("a", "gate"), step("b"))
            kept = (await client.execute(name)).execution_id
            await stage.called("a")
            ballast = disk / "ballast"
            # Already its opening may take more than there is.
            with pytest.raises(OSError, match="No space"), ballast.open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()

            error, refused = None, ""
            for n in range(2_000):  # until the gaps in the files are filled
                refused = f"r{n}"
                request = execute_request(name, {"text": "x" * 2_000, "n": n}, request_id=refused)
                try:
                    await execute(request)
                except grpc.aio.AioRpcError:
                    error = await refusal(execute(request))
                    break
            assert error is not None
            assert (error.code, error.reason, error.retry_after) == (Code.RESOURCE_EXHAUSTED, "STORAGE_FULL", 2.0)
            assert "disk of the database is full" in error.message
            await health(channel, Health.NOT_SERVING)
            assert (await client.get_execution(kept)).execution_id == kept
            stage.open("gate")  # what it gives is kept in memory until there is space

            ballast.unlink()
            await health(channel, Health.SERVING)
            assert (await execute(execute_request(name, request_id=refused))).created
            assert (await ended(client, kept)).state == flowkeep.Execution.STATE_COMPLETED
        await repository.close()


async def test_damaged_pages_are_told(stage, mistakes):
    """Of a table whose first page is garbage what lies on it cannot be had, and all else can."""
    with new_folder() as folder:
        postgres = EmbeddedPostgres(folder / "fk", settings={"fsync": "off"})
        with postgres:
            await migrate(postgres.dsn())
            repository = await PostgresRepository.open(postgres.dsn(), pool_size=4)
            async with serving(repository, stage.handlers()) as target, flowkeep.Client(target) as client:
                name = await made(client, step("a"))
                spoilt = (await client.execute(name, wait=True)).execution_id
                admin = await asyncpg.connect(postgres.dsn())
                path = await admin.fetchval(
                    "SELECT pg_relation_filepath(tableoid) FROM executions WHERE id = $1", UUID(spoilt)
                )
                await admin.close()
            await repository.close()
        with (folder / "fk" / "data" / path).open("r+b") as file:
            file.seek(512)
            file.write(os.urandom(4_096))
        with postgres:
            repository = await PostgresRepository.open(postgres.dsn(), pool_size=4)
            async with (
                serving(repository, stage.handlers()) as target,
                flowkeep.Client(target) as client,
                grpc.aio.insecure_channel(target) as channel,
            ):
                stub = ExecutionServiceStub(channel)
                error = await refusal(stub.GetExecution(pb.GetExecutionRequest(execution_id=spoilt)))
                assert (error.code, error.reason) == (Code.DATA_LOSS, "DATABASE_DAMAGED")
                assert "found its files damaged" in error.message
                error = await refusal(stub.ListExecutions(pb.ListExecutionsRequest()))
                assert (error.code, error.reason) == (Code.DATA_LOSS, "DATABASE_DAMAGED")
                assert (await client.get_workflow(name)).name == name
            await repository.close()
    mistakes.clear()  # no claim comes past the page
