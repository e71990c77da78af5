"""Calls of workflows: none reaches what is inside (H8), and no answer does harm (H4, H8)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import flowkeep
from flowkeep.handlers import HandlerError
from service.engine.egress.connecting import by_tcp
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.lookups import Lookups
from service.engine.handlers.call_api import call_api
from tests.hostile.attacked import Attacked
from tests.hostile.calls import ANSWERS, MIB, NAMES, PARAMS, URLS, pieces
from tests.hostile.cases import Case, each
from tests.integration.stage import step
from tests.integration.web import CONTEXT

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Canary:
    """Listens on all addresses of this machine, and nobody may connect."""

    port: int
    own: str
    connected: list[object] = field(default_factory=list)


@asynccontextmanager
async def canary() -> AsyncIterator[Canary]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connected.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(connected, None, 0)
    port = server.sockets[0].getsockname()[1]
    async with await asyncio.start_server(connected, "0.0.0.0", port) if len(server.sockets) < 2 else server:  # noqa: S104
        found = Canary(port, own_address())
        yield found


def own_address() -> str:
    """An address of this machine that others may know, else one of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.2"


def batched(urls: list[str], size: int) -> list[list[str]]:
    return [urls[n : n + size] for n in range(0, len(urls), size)]


async def failure(client: flowkeep.Client, url: str, workflow: str = "call") -> str:
    """The code that a call of a workflow fails with, empty where it completes."""
    done = await client.execute(workflow, {"url": url}, wait=True)
    return (await client.get_execution(done.execution_id)).steps[0].failure.code


async def test_no_url_leads_inside(attacked: Attacked) -> None:
    async with canary() as inside, attacked.client() as client:
        await client.apply([{"name": "call", "steps": [step("call", "call_api", url="${ input.url }")]}])
        urls = [case.given.format(port=inside.port, own=inside.own, server=attacked.target) for case in URLS]
        codes = [
            code for some in batched(urls, 10) for code in await asyncio.gather(*(failure(client, u) for u in some))
        ]
        wrong = {case.name: code for case, code in zip(URLS, codes, strict=True) if code != case.right}
        assert not wrong
        assert not inside.connected


async def test_no_url_of_a_model_leads_inside(attacked: Attacked) -> None:
    async with canary() as inside, attacked.client() as client:
        ask = step("ask", "ask_model", url="${ input.url }", model="m", prompt="?")
        await client.apply([{"name": "ask", "steps": [ask]}])
        urls = [case.given.format(port=inside.port, own=inside.own, server=attacked.target) for case in URLS]
        for some in batched(urls, 10):
            assert all(await asyncio.gather(*(failure(client, url, "ask") for url in some)))
        assert not inside.connected


@each(NAMES)
async def test_no_name_leads_inside(case: Case) -> None:
    answers: Iterator[str] = iter(case.given)

    def resolve(host: bytes, port: int) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in next(answers).split()]

    async def outside(address: str, port: int) -> socket.socket:
        return await by_tcp("127.0.0.1", web.sockets[0].getsockname()[1])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PLAIN)
        writer.close()

    web = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with canary() as inside, web:
        caller = call_api(Egress(Guard(lookups=Lookups(resolve)), outside))
        code = ""
        for _ in case.given:
            try:
                code = ""
                await caller.run({"url": f"http://name.example:{inside.port}/"}, CONTEXT)
            except HandlerError as error:
                code = error.code
        assert code == case.right
        assert not inside.connected


async def _answer(listener: socket.socket, sent: list[bytes]) -> None:
    """Answer one call, as long as anybody takes it."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    with connection, suppress(OSError):
        await loop.sock_recv(connection, 65_536)
        for piece in sent:
            await loop.sock_sendall(connection, piece)


async def test_no_answer_does_harm(attacked: Attacked, listener: socket.socket) -> None:
    wrong = {}
    async with attacked.beside("hostile answers"), attacked.client() as client:
        call = step("call", "call_api", url="${ input.url }", max_response_bytes=MIB, timeout="20s")
        await client.apply([{"name": "call", "steps": [call]}])
        for case in ANSWERS:
            async with attacked.case(case.name):
                if (code := await _answered(client, listener, pieces(case.given))) != case.right:
                    wrong[case.name] = code
    assert not wrong


async def test_no_params_do_harm(attacked: Attacked, listener: socket.socket) -> None:
    async with attacked.client() as client:
        for case in PARAMS:
            call = step("call", "call_api", url="${ input.url }", **case.given)
            async with attacked.case(case.name):
                await client.apply([{"name": "call", "steps": [call]}])
                assert await _answered(client, listener, [PLAIN]) == case.right


async def _answered(client: flowkeep.Client, listener: socket.socket, sent: list[bytes]) -> str:
    """The code that a call fails with that is answered so."""
    answering = asyncio.ensure_future(_answer(listener, sent))
    code = await failure(client, f"http://127.0.0.1:{listener.getsockname()[1]}/")
    answering.cancel()
    await asyncio.wait([answering])
    return code
