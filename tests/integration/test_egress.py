"""Calls for workflows reach no address that they may not, and nothing of one org's calls reaches another's."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.api.claims import KNOWN_PERMISSIONS
from service.engine.egress import egress as egress_module
from service.engine.egress.allowed import Allowed
from service.engine.egress.connecting import by_tcp
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.lookups import AT_ONCE, OF_ONE_ORG, Lookups
from service.engine.handlers import http_line
from service.engine.handlers.call_api import call_api
from service.engine.handlers.model import Handler
from tests.integration.certificates import Authority
from tests.integration.conftest import Log, Serve
from tests.integration.stage import ended, eventually, made, step
from tests.integration.web import CONTEXT, Web, call, failure
from tests.patience import PATIENCE
from tests.tokens import claims, signed

PUBLIC = "93.184.215.14"
OTHERS = replace(CONTEXT, org="umbrella")


@dataclass
class Names:
    """A resolver that tells one answer after the other, and connections that reach this machine wherever they go."""

    answers: list[list[str]]
    asked: int = 0
    connected: list[str] = field(default_factory=list)

    def resolve(self, host: bytes, port: int) -> list[tuple[Any, ...]]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [(0, 0, 0, "", (address, port)) for address in answer]

    async def connect(self, address: str, port: int) -> socket.socket:
        self.connected.append(address)
        return await by_tcp("127.0.0.1", port)

    def egress(self, *allowed: str) -> Egress:
        return Egress(Guard(Allowed(allowed), lookups=Lookups(self.resolve)), self.connect)


Open = Callable[..., Handler]


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Open]:
    """Gives call_api over a way out, by default one that a developer has; closed at the end."""
    ways: list[Egress] = []

    def made(egress: Egress | None = None) -> Handler:
        ways.append(egress or Egress(Guard(has_loopback=True)))
        return call_api(ways[-1])

    yield made
    for egress in ways:
        await egress.close()


@contextmanager
def scripted(*answers: bytes, before: bytes = b"") -> Iterator[tuple[str, list[bytes]]]:
    """A server whose connections each give these answers to one request after the other; gives its URL and requests."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []
    opened: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        number = len(opened)
        try:
            connection.sendall(before)
            for answer in answers:
                request = connection.recv(65536)
                if not request:
                    break
                requests.append(b"%d " % number + request)
                connection.sendall(answer)
            connection.recv(65536)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            opened.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/", requests
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in opened:
        connection.close()


def answer(body: bytes, *headers: bytes) -> bytes:
    head = b"".join(each + b"\r\n" for each in (b"Content-Length: %d" % len(body), *headers))
    return b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body


# Where to


async def test_the_address_that_was_looked_at_is_connected_to_with_the_name_of_the_url(opened: Open, web: Web) -> None:
    names = Names([[PUBLIC], ["127.0.0.1"]])
    caller = opened(names.egress())
    url = web.answer("/a").replace("127.0.0.1", "api.example")
    assert (await call(caller, url=url))["status"] == 200
    assert names.connected == [PUBLIC]
    assert web.calls[0].headers["host"] == url.split("/")[2]
    assert caller.close is not None
    await caller.close()
    # The name leads inside now, as one does that is made for that.
    error = await failure(caller, url=url)
    assert (error.code, error.retryable) == ("ADDRESS_NOT_ALLOWED", False)
    assert "'api.example'" in error.message
    assert "FLOWKEEP_HTTP_ALLOW" in error.message
    assert "127.0.0.1" not in f"{error} {error.details}"
    assert (names.asked, names.connected, len(web.calls)) == (2, [PUBLIC], 1)


async def test_an_open_connection_goes_on_where_it_was_made_to(opened: Open, web: Web) -> None:
    names = Names([[PUBLIC], ["127.0.0.1"]])
    caller = opened(names.egress())
    for _ in range(3):
        await call(caller, url=web.answer("/a").replace("127.0.0.1", "api.example"))
    assert (names.asked, names.connected) == (1, [PUBLIC])


async def test_a_name_that_a_rule_names_may_lead_inside(opened: Open, web: Web) -> None:
    caller = opened(Names([["127.0.0.1"]]).egress("*.internal"))
    assert (await call(caller, url=web.answer("/a").replace("127.0.0.1", "api.internal")))["status"] == 200


async def test_the_next_address_is_tried_beside_one_that_does_not_answer(opened: Open, web: Web) -> None:
    names = Names([[PUBLIC, "93.184.215.15"]])
    hangs = asyncio.Event()
    tried: list[str] = []

    async def connect(address: str, port: int) -> socket.socket:
        tried.append(address)
        if address == PUBLIC:
            await hangs.wait()
        return await by_tcp("127.0.0.1", port)

    caller = opened(Egress(Guard(lookups=Lookups(names.resolve)), connect))
    assert (await call(caller, url=web.answer("/a").replace("127.0.0.1", "api.example")))["status"] == 200
    assert tried == [PUBLIC, "93.184.215.15"]


async def test_sni_and_certificate_are_those_of_the_name(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.pair("api", "api.example"))
    shown: list[Any] = []
    context.sni_callback = lambda made, name, _: shown.append(name)
    body = b"x" * 100_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer(body))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    names = Names([[PUBLIC]])
    caller = opened(names.egress())
    for _ in range(2):
        assert (await call(caller, url=f"https://api.example:{port}/"))["body"] == body.decode()
    assert (shown, names.connected) == (["api.example"], [PUBLIC])  # one connection
    error = await failure(caller, url=f"https://other.example:{port}/")
    assert error.code == "CONNECTION_FAILED"
    assert "certificate" in error.message
    server.close()


async def test_names_that_are_never_answered_keep_no_other_org_waiting(opened: Open, web: Web) -> None:
    release = threading.Event()
    hanging = threading.Semaphore(0)

    def resolve(host: bytes, port: int) -> list[tuple[Any, ...]]:
        if host == b"tarpit.example":
            hanging.release()
            release.wait(PATIENCE)
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    lookups = Lookups(resolve)
    caller = opened(Egress(Guard(has_loopback=True, lookups=lookups)))
    stuck = [asyncio.ensure_future(failure(caller, url="http://tarpit.example/")) for _ in range(AT_ONCE)]
    for _ in range(OF_ONE_ORG):
        await asyncio.to_thread(hanging.acquire)
    url = web.answer("/a").replace("127.0.0.1", "api.example")
    assert (await call(caller, OTHERS, url=url))["status"] == 200
    for each in stuck:  # those that have no thread, too
        assert "was not found within 5 s" in (await each).message
    release.set()
    assert (await call(caller, url=url))["status"] == 200


# What comes back


async def test_bytes_behind_an_answer_are_nobodys_answer(opened: Open) -> None:
    with scripted(answer(b"mine") + answer(b"poison"), answer(b"second")) as (url, requests):
        caller = opened()
        assert [(await call(caller, url=url))["body"] for _ in range(3)] == ["mine"] * 3
    assert [each[:2] for each in requests] == [b"1 ", b"2 ", b"3 "]  # a connection for each


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_a_body_of_an_answer_that_has_none_is_nobodys_answer(opened: Open, status: bytes) -> None:
    bare = b"HTTP/1.1 " + status + b"\r\n\r\n" + answer(b"poison")
    with scripted(bare, answer(b"poison")) as (url, requests):
        caller = opened()
        for _ in range(2):
            assert (await call(caller, url=url, success_codes=["2xx", "3xx"]))["body"] is None
    assert [each[:2] for each in requests] == [b"1 ", b"2 "]


async def test_a_body_of_head_is_nobodys_answer(opened: Open) -> None:
    with scripted(answer(b"poison"), answer(b"poison")) as (url, requests):
        caller = opened()
        await call(caller, url=url, method="HEAD")
        await call(caller, url=url, method="HEAD")
    assert [each[:2] for each in requests] == [b"1 ", b"2 "]


async def test_an_answer_before_the_call_is_the_last_of_its_connection(opened: Open) -> None:
    with scripted(answer(b"real"), answer(b"real"), before=answer(b"early")) as (url, requests):
        caller = opened(Egress(Guard(has_loopback=True), _after_a_moment))
        assert [(await call(caller, url=url))["body"] for _ in range(2)] == ["early"] * 2
    assert {each[:2] for each in requests} <= {b"1 ", b"2 "}


async def _after_a_moment(address: str, port: int) -> socket.socket:
    made = await by_tcp(address, port)
    while True:
        try:
            made.recv(1, socket.MSG_PEEK)
            return made
        except BlockingIOError:
            await asyncio.sleep(0.001)


async def test_a_connection_is_used_again_by_its_org_alone(opened: Open) -> None:
    with scripted(*[answer(b"x")] * 9) as (url, requests):
        caller = opened()
        for context in (CONTEXT, OTHERS, CONTEXT, OTHERS):
            await call(caller, context, url=url)
    assert [each[:2] for each in requests] == [b"1 ", b"2 ", b"1 ", b"2 "]


async def test_connections_of_idle_orgs_are_closed(opened: Open, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_module, "IDLE", 0.05)
    monkeypatch.setattr(egress_module, "MOST_WAYS", 3)
    egress = Egress(Guard(has_loopback=True))
    caller = opened(egress)
    url = web.answer("/a")
    hanging = asyncio.ensure_future(call(caller, url=web.url + "/hang"))
    await eventually(lambda: asyncio.sleep(0, bool(web.calls)))
    for n in range(5):
        await call(caller, replace(CONTEXT, org=f"org {n}"), url=url)
    assert [org for org, _ in egress._ways] == ["acme", "org 3", "org 4"]
    tending = asyncio.ensure_future(egress.tend())
    await eventually(lambda: asyncio.sleep(0, [org for org, _ in egress._ways] == ["acme"]))
    web.release.set()
    await hanging
    await eventually(lambda: asyncio.sleep(0, not egress._ways))
    tending.cancel()


async def test_an_org_that_has_its_share_of_calls_keeps_no_other_waiting(
    opened: Open, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress_module, "CALLS_OF_ONE_ORG", 2)
    caller = opened()
    hanging = [asyncio.ensure_future(call(caller, url=web.url + "/hang")) for _ in range(3)]
    assert (await call(caller, OTHERS, url=web.answer("/a")))["status"] == 200
    error = await failure(caller, url=web.answer("/a"), timeout=0.1)
    assert "no complete answer within 0.1 s" in error.message
    web.release.set()
    await asyncio.gather(*hanging)


async def test_an_answer_that_has_begun_must_come_to_its_end(
    caller: Handler, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_line, "ANSWER_SECONDS", 0.1)
    error = await failure(caller, url=web.url + "/dribble")
    assert (error.code, error.retryable) == ("CONNECTION_FAILED", True)
    assert "no complete answer within 0.1 s of its beginning; `timeout` allows for more" in error.message
    # Its beginning may take longer, and with a timeout of the step all of it.
    hanging = asyncio.ensure_future(call(caller, url=web.url + "/hang"))
    error = await failure(caller, url=web.url + "/dribble", timeout=0.4)
    assert "within 0.4 s" in error.message
    assert not hanging.done()
    web.release.set()
    await hanging


# The server


async def test_a_server_that_others_may_reach_calls_nothing_inside(serve: Serve, web: Web, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    tokens = {"jwt_key_file": key, "jwt_algorithm": "HS256"}
    token = signed(claims(permissions=sorted(KNOWN_PERMISSIONS)), b"k" * 32, "HS256")
    for allow, code in (([], "ADDRESS_NOT_ALLOWED"), (["127.0.0.1/32"], "")):
        served = await serve(**tokens, http_allow=allow)
        async with served.client_with(token) as client:
            retry = {"max_attempts": 3, "initial_interval": 0.01}
            name = await made(client, step("a", "call_api", url=web.answer("/a"), retry_policy=retry))
            execution = await ended(client, (await client.execute(name)).execution_id)
        assert (execution.steps[0].failure.code, execution.steps[0].attempt) == (code, 1)
    assert len(web.calls) == 1


async def test_a_server_for_development_says_that_loopback_may_be_called(
    serve: Serve, web: Web, said: Callable[[str], Log]
) -> None:
    served = await serve()
    assert len(said("for development: workflows may call loopback addresses of this machine")) == 1
    results = {}
    for place, url in (("web", web.answer("/a")), ("own", f"http://{served.target}/"), ("lan", "http://10.0.0.1/")):
        name = await made(served.client, step("a", "call_api", url=url, timeout="5s"))
        execution = await ended(served.client, (await served.client.execute(name)).execution_id)
        results[place] = execution.steps[0].failure.code
    assert results == {"web": "", "own": "ADDRESS_NOT_ALLOWED", "lan": "ADDRESS_NOT_ALLOWED"}
