"""Does the proxy spoil connections as it is told, and only so?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from tests.conformance.builders import until
from tests.faults.harness.proxy import BLACKHOLE, CLEAR, Proxy, Weather, _Link, fault_proxy
from tests.patience import PATIENCE


@asynccontextmanager
async def echo(*, answers: bytes = b"") -> AsyncIterator[tuple[str, int]]:
    """A server that gives back what it gets, or always the same."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(answers or data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def connection(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def said(reader: asyncio.StreamReader, count: int, patience: float = PATIENCE) -> bytes:
    async with asyncio.timeout(patience):
        return await reader.readexactly(count)


def place(dsn: str) -> tuple[Path, str]:
    """The socket of Postgres and the name of the database."""
    folder = dsn.partition("host=")[2].partition("&")[0].replace("%2F", "/")
    return Path(folder) / ".s.PGSQL.5432", dsn.partition("@/")[2].partition("?")[0]


async def test_bytes_pass() -> None:
    async with echo() as target, fault_proxy(target, random.Random(1)) as proxy, connection(proxy) as (reader, writer):
        writer.write(b"x" * 200_000)
        assert await said(reader, 200_000) == b"x" * 200_000


async def test_the_end_of_either_side_is_passed_on() -> None:
    async with echo() as target, fault_proxy(target, random.Random(1)) as proxy, connection(proxy) as (reader, writer):
        writer.write(b"bye")
        assert await said(reader, 3) == b"bye"
        assert proxy.connections == 1
        writer.write_eof()
        assert await reader.read() == b""
        await asyncio.sleep(0)
        assert proxy.connections == 0


@pytest.mark.parametrize("weather", [BLACKHOLE, Weather(holds_up=True), Weather(holds_down=True)])
async def test_held_bytes_arrive_when_the_weather_clears(weather: Weather) -> None:
    async with echo() as target, fault_proxy(target, random.Random(1)) as proxy, connection(proxy) as (reader, writer):
        writer.write(b"one")
        assert await said(reader, 3) == b"one"
        proxy.turn(weather)
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await said(reader, 3, patience=0.1)
        proxy.turn(CLEAR)
        assert await said(reader, 3) == b"two"


async def test_a_new_connection_hangs_in_a_blackhole() -> None:
    async with echo() as target, fault_proxy(target, random.Random(1)) as proxy:
        proxy.turn(BLACKHOLE)
        async with connection(proxy) as (reader, writer):
            writer.write(b"hello")
            with pytest.raises(TimeoutError):
                await said(reader, 5, patience=0.1)
            proxy.turn(CLEAR)
            assert await said(reader, 5) == b"hello"


async def test_a_reset_is_a_reset() -> None:
    async with echo() as target, fault_proxy(target, random.Random(1)) as proxy, connection(proxy) as (reader, writer):
        writer.write(b"one")
        await said(reader, 3)
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


async def test_a_cut_comes_after_exactly_so_many_bytes() -> None:
    async with (
        echo(answers=b"0123456789") as target,
        fault_proxy(target, random.Random(1)) as proxy,
        connection(proxy) as (reader, writer),
    ):
        writer.write(b"?")
        assert await said(reader, 10) == b"0123456789"
        proxy.cut_after(4)
        writer.write(b"?")
        # The reset may overtake the bytes before it, as on a real network.
        with suppress(ConnectionResetError):
            assert b"0123".startswith(await reader.read())


def test_nothing_comes_behind_a_cut() -> None:
    """In the middle of a frame, a GOAWAY that is taken for its rest can end the client's process."""
    sent: Any = SimpleNamespace(write=pytest.fail)
    link = _Link(Proxy(("127.0.0.1", 1), random.Random(1)), sent, sent)
    link.bytes_left = 5
    settings = b"\0\0\0\4\0\0\0\0\0"
    assert link._passed(settings, upwards=False) == settings[:5]
    link.send_away()


async def test_the_delay_is_drawn_from_the_seed() -> None:
    pauses: list[list[float]] = []
    for seed in (1, 1, 2):
        proxy = Proxy(("127.0.0.1", 1), random.Random(seed))
        proxy.turn(Weather(delay=0.001, jitter=0.001))
        state = proxy._draw.getstate()
        await proxy.travel(10)
        assert proxy._draw.getstate() != state
        pauses.append([proxy._draw.random()])
    assert pauses[0] == pauses[1] != pauses[2]


async def test_a_lost_commit_is_committed(database_dsn: str, admin: asyncpg.Connection) -> None:
    await admin.execute("CREATE TABLE things (number int)")
    socket, name = place(database_dsn)
    async with fault_proxy(socket, random.Random(1), follows=True) as proxy:
        proxy.turn(Weather(lost_commits=1.0, session="writer"))
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}?sslmode=disable"
        for application, statement, arguments in (
            ("writer", "INSERT INTO things VALUES ($1)", (1,)),
            ("writer", "WITH made AS (INSERT INTO things VALUES ($1) RETURNING 1) SELECT count(*) FROM made", (2,)),
        ):
            connection = await asyncpg.connect(url, server_settings={"application_name": application})
            assert await connection.fetchval("SELECT 1 + $1::int", 1) == 2
            with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
                await connection.execute(statement, *arguments)
            connection.terminate()
        other = await asyncpg.connect(url, server_settings={"application_name": "reader"})
        await other.execute("INSERT INTO things VALUES ($1)", 3)
        await other.close()
        assert proxy.lost == 2
        in_steps = await asyncpg.connect(url, server_settings={"application_name": "writer"})
        await in_steps.execute("BEGIN")
        with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
            await in_steps.execute("INSERT INTO things VALUES (4)")
            await in_steps.execute("COMMIT")
        in_steps.terminate()
        assert proxy.lost == 3
    assert [row["number"] for row in await admin.fetch("SELECT number FROM things ORDER BY 1")] == [1, 2, 3, 4]


async def test_the_reply_of_one_commit_is_held(database_dsn: str, admin: asyncpg.Connection) -> None:
    """The second of the writes is committed at once, and answered when the weather clears; nothing else waits."""
    await admin.execute("CREATE TABLE things (number int)")
    socket, name = place(database_dsn)
    async with fault_proxy(socket, random.Random(1), follows=True) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}?sslmode=disable"
        writer = await asyncpg.connect(url, server_settings={"application_name": "writer"})
        other = await asyncpg.connect(url, server_settings={"application_name": "writer"})
        proxy.turn(Weather(held_commit=2, session="writer"))
        insert = "INSERT INTO things VALUES ($1)"
        await writer.execute(insert, 1)
        held = asyncio.create_task(writer.execute(insert, 2))

        async def is_held() -> bool:
            return proxy.held == 1

        await until(is_held)
        assert await other.fetchval("SELECT count(*) FROM things") == 2
        await other.execute(insert, 3)
        assert not held.done()
        proxy.turn(CLEAR)
        assert await held == "INSERT 0 1"
        assert await writer.fetchval("SELECT count(*) FROM things") == 3
        await writer.close()
        await other.close()
