"""Two servers that want the same thing: the second says so and ends, the first does not notice."""

from __future__ import annotations

from pathlib import Path

from flowkeep import Client
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
