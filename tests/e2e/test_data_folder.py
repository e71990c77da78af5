"""What a server does not serve on: a folder or an address that another one has, and data that it cannot read."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from flowkeep import Client
from persistence.embedded import EmbeddedPostgres
from tests.e2e.process import ServerProcess, copy_data, flowkeep

WORKFLOW = {"name": "one", "steps": [{"id": "one", "handler": "transform", "params": {"value": 1}}]}


async def test_a_second_server_on_a_data_folder_refuses(server: ServerProcess, client: Client) -> None:
    await client.create_workflow(WORKFLOW)
    second = await flowkeep("serve", "--listen", "127.0.0.1:0", "--data-dir", str(server.data_dir))
    assert second.code == 2
    assert second.out == ""
    assert len(second.err.splitlines()) == 1
    assert str(server.data_dir) in second.err
    assert f"in use by process {server.pid}" in second.err

    assert await client.run("one") == 1
    await server.kill9()
    await server.restart()
    assert await client.run("one") == 1


async def test_a_second_server_on_an_address_refuses(prepared: Path, folder: Path) -> None:
    first = ServerProcess(folder, listen="127.0.0.1:0")
    for data_dir in (first.data_dir, folder / "second"):
        await copy_data(prepared, data_dir)
    await first.start()
    try:
        second = await flowkeep("serve", "--listen", first.target, "--data-dir", str(folder / "second"))
        assert second.code == 2
        assert second.out == ""
        assert first.target in second.err
        assert "Traceback" not in second.err
        async with Client(first.target) as client:
            await client.create_workflow(WORKFLOW)
            assert await client.run("one") == 1
    finally:
        await first.close()


@pytest.mark.parametrize("command", [("serve", "--listen", "127.0.0.1:0"), ("migrate", "--to", "base", "--yes")])
async def test_data_of_an_earlier_release_are_refused_and_left_alone(folder: Path, command: tuple[str, ...]) -> None:
    data_dir = folder / "data"
    with EmbeddedPostgres(data_dir) as postgres:
        connection = await asyncpg.connect(postgres.dsn())
        await connection.execute((Path(__file__).parents[1] / "schema_0005.sql").read_text())
        await connection.close()
    refused = await flowkeep(*command, "--data-dir", str(data_dir))
    assert (refused.code, refused.out, len(refused.err.splitlines())) == (2, "", 1)
    doctor = await flowkeep("doctor", "--data-dir", str(data_dir))
    assert doctor.code == 1
    (found,) = [line for line in doctor.out.splitlines() if line.startswith("FAIL")]
    for said in (refused.err, found):
        assert "data of an earlier release, at schema revision 0005, which this version cannot read" in said
        assert "a new database or data folder, or go on with the earlier release" in said
    with EmbeddedPostgres(data_dir) as postgres:
        connection = await asyncpg.connect(postgres.dsn())
        assert await connection.fetchval("SELECT body FROM events") == b"old"
        await connection.close()
