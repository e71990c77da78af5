"""How the client reaches a server: proxies, targets, tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import flowkeep
from tests.integration.stage import Served
from tests.patience import PATIENCE


class Proxy:
    """Refuses to connect anybody, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode().strip())
        self.was_asked.set()
        writer.close()


@pytest_asyncio.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """A proxy that every variable names."""
    proxy = Proxy()
    async with await asyncio.start_server(proxy.answer, "127.0.0.1", 0) as listener:
        address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield proxy


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "dns:///localhost:{}", "ipv4:127.0.0.1:{}"])
async def test_no_proxy_is_asked_for_this_machine(served: Served, proxy: Proxy, form: str) -> None:
    target = form.format(served.target.rpartition(":")[2])
    async with flowkeep.Client(target, timeout=PATIENCE) as client:
        assert await client.list_handlers()
    assert proxy.asked == []


@pytest.mark.parametrize(
    "target",
    [
        "[::1]:{}",
        "::1",
        "ipv6:%5B::1%5D:{}",
        "[::ffff:127.0.0.1]:{}",
        "0.0.0.0:{}",
        "a.LOCALHOST.:{}",
        "127.1:{}",
        "unix:/no",
    ],
)
async def test_no_proxy_is_asked_for_what_can_only_be_this_machine(proxy: Proxy, target: str) -> None:
    async with flowkeep.Client(target.format(1), timeout=0.2) as client:
        with pytest.raises(flowkeep.FlowkeepError):
            await client.list_handlers()
    assert proxy.asked == []


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
async def test_a_proxy_is_asked_for_others_unless_they_are_excepted(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "other.example, .excepted.invalid")
    async with flowkeep.Client("flowkeep.excepted.invalid:50051", timeout=0.2) as client:
        with pytest.raises(flowkeep.FlowkeepError):
            await client.list_handlers()
    async with asyncio.timeout(PATIENCE), flowkeep.Client("flowkeep.invalid:50051", timeout=PATIENCE) as client:
        calling = asyncio.create_task(client.list_handlers())
        await proxy.was_asked.wait()
        calling.cancel()
        await asyncio.wait([calling])
    assert {each.split()[1] for each in proxy.asked} == {"flowkeep.invalid:50051"}


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("", "must be host:port or unix:/path, not ''"),
        ("two words:1", "must be host:port"),
        ("unix:", "names no socket"),
        ("unix://", "names no socket"),
        ("unix-abstract:", "names no socket"),
        ("http://localhost:50051", "is a URL: it must be host:port"),
    ],
)
def test_a_target_that_is_no_address_is_refused(target: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        flowkeep.Client(target)


async def test_white_space_around_a_target_and_a_token_is_left_out(served: Served) -> None:
    async with flowkeep.Client(f" {served.target}\n", token="secret\r\n") as client:
        assert await client.list_handlers()
    async with flowkeep.Client(served.target, token=lambda: "secret\r\n") as client:
        assert await client.list_handlers()


@pytest.mark.parametrize(("token", "code"), [("hush\rhush", "U[+]000D, as its character 5"), ("hüsh", "U[+]00FC")])
async def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: str, code: str) -> None:
    with pytest.raises(ValueError, match=code) as refused:
        flowkeep.Client(token=token)
    assert "sh" not in str(refused.value).split(":", 1)[1]
    async with flowkeep.Client(token=lambda: token) as client:
        with pytest.raises(ValueError, match=code):
            await client.list_handlers()
