"""No handler, and nothing that an answer says, leads a step to what is inside (H8)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkeep.handlers import HandlerError
from service.calls.call_grpc import call_grpc
from service.calls.channels import Channels
from service.engine.chat.endpoints import parse as parse_models
from service.engine.chat.models import Models
from service.engine.egress.allowed import Allowed
from service.engine.egress.connecting import by_tcp
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.lookups import Lookups
from service.engine.egress.routes import Routes
from service.engine.handlers.ask_model import ask_model
from service.engine.handlers.call_api import call_api
from service.engine.handlers.mcp_tool import mcp_tool
from service.engine.handlers.model import Handler
from service.engine.handlers.send_notification import send_notification
from service.engine.mcp.servers import parse as parse_servers
from service.engine.mcp.sessions import Sessions
from service.engine.secrets import SecretsUnavailableError, VaultSecrets
from tests.hostile.attacked import Attacked
from tests.hostile.calls import INVALID, NAMES, NO_URL, REFUSED, UNREACHABLE, URLS
from tests.hostile.cases import Case, each
from tests.hostile.test_calls import PLAIN, canary
from tests.hostile.ways import MORE, STATUSES, redirecting, ways
from tests.integration.proxies import serving_proxy
from tests.integration.stage import step
from tests.integration.web import CONTEXT, Web

_QUESTION = {"model": "m", "prompt": "?"}
_OAUTH2 = {"client_id": "me", "client_secret": "x"}


CORPUS = (*URLS, *MORE)
WAYS = list(ways(Web()))


@pytest.mark.parametrize("name", WAYS)
async def test_no_way_leads_a_url_inside(web: Web, name: str) -> None:
    with serving_proxy() as gateway:
        egress = Egress(
            Guard(Allowed([web.url.removeprefix("http://")])), routes=Routes(proxies={"out": gateway.proxy()})
        )
        handlers = {
            handler.name: handler for handler in (call_api(egress), send_notification(egress), ask_model(egress))
        } | {"call_grpc": call_grpc(Channels(egress.guard))}
        handler, params = ways(web)[name]
        wrong = {}
        async with canary() as inside:
            server = f"127.0.0.1:{inside.port}"
            for case in CORPUS:
                url = case.given.format(port=inside.port, own=inside.own, server=server)
                code = await outcome(handlers[handler], params(url))
                if not _is_right(name, case, code):
                    wrong[case.name] = code
            assert not inside.connected
        await egress.close()
        assert not wrong
        assert gateway.asked == []


async def outcome(handler: Handler, params: dict[str, Any]) -> str:
    """How a call ends: the code that it fails with, empty where it completes."""
    if handler.validate(params):
        return NO_URL
    try:
        await handler.run(params, CONTEXT)
    except HandlerError as error:
        return error.code
    return ""


_STRICT = {"a call", "events", "a file", "a proxy", "a webhook", "a message", "a message by a proxy"}
_WAYS_TO_FAIL = {REFUSED, NO_URL, UNREACHABLE, INVALID}


def _is_right(way: str, case: Case, code: str) -> bool:
    """Return whether a call failed as it has to. What answers say may also lead to where they came from."""
    if way in _STRICT and case not in MORE:
        return bool(code == case.right)
    return code in _WAYS_TO_FAIL or (("redirect" in way or way == "a page") and case.right != REFUSED)


async def test_the_server_judges_what_each_handler_calls(attacked: Attacked) -> None:
    """One guard is for all of them, also where they are wired."""
    async with canary() as inside, attacked.client() as client:
        url = f"http://127.0.0.1:{inside.port}/"
        used = ("a call", "a token", "a webhook", "a message", "a model", "gRPC")
        steps = [
            {**step(f"s{number}", handler, **params(url)), "on_error": "CONTINUE"}
            for number, (handler, params) in enumerate(ways(Web(url="http://127.0.0.1:1"))[name] for name in used)
        ]
        await client.apply([{"name": "ways", "steps": steps}])
        done = await client.execute("ways", wait=True)
        shown = (await client.get_execution(done.execution_id)).steps
        assert [each.failure.code for each in shown] == [REFUSED] * len(used)
        assert not inside.connected


_BY: dict[str, Callable[[Egress, Channels], tuple[Handler, Callable[[str], dict[str, Any]]]]] = {
    "a token": lambda egress, _: (
        call_api(egress),
        lambda url: {"url": "http://other.example/", "auth": {"oauth2": {"token_url": url, **_OAUTH2}}},
    ),
    "a webhook": lambda egress, _: (send_notification(egress), lambda url: {"webhook": {"url": url, "json": {}}}),
    "a model": lambda egress, _: (ask_model(egress), lambda url: {"url": url, **_QUESTION}),
    "gRPC": lambda _, channels: (call_grpc(channels), lambda url: {"target": url, "method": "a.B/C"}),
}


@pytest.mark.parametrize("by", _BY)
@each(NAMES)
async def test_no_way_leads_a_name_inside(case: Case, by: str) -> None:
    if by == "gRPC" and len(case.given) > 1:
        pytest.skip("the first of its addresses would be called in truth")
    answers: Iterator[str] = iter(case.given)

    def resolve(host: bytes, port: int) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in next(answers).split()]

    async def connect(address: str, port: int) -> socket.socket:
        return await by_tcp("127.0.0.1", web.sockets[0].getsockname()[1])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PLAIN)
        writer.close()

    web = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with canary() as inside, web:
        guard = Guard(lookups=Lookups(resolve))
        handler, params = _BY[by](Egress(guard, connect), Channels(guard))
        code = ""
        for _ in case.given:
            code = await outcome(handler, params(f"http://name.example:{inside.port}/"))
        assert code == case.right
        assert not inside.connected


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("by", ["a model", "a tool", "a secret"])
async def test_what_the_settings_name_leads_nowhere_else(web: Web, tmp_path: Path, status: int, by: str) -> None:
    async with canary() as inside:
        away = redirecting(status, f"http://127.0.0.1:{inside.port}/")
        for path in ("/v1/chat/completions", "/mcp", "/v1/secret/acme/x"):
            web.raw(path, away)
        if by == "a secret":
            (tmp_path / "token").write_text("x")
            with pytest.raises(SecretsUnavailableError, match=f"answered {status}"):
                await VaultSecrets(web.url, tmp_path / "token", "secret/{org}/{name}").find("acme", "x")
        else:
            models = Models(parse_models(json.dumps({"lab": {"url": f"{web.url}/v1"}})))
            sessions = Sessions(parse_servers(json.dumps({"lab": {"url": f"{web.url}/mcp"}})))
            asker, caller = ask_model(models=models), mcp_tool(sessions)
            handler, params = (
                (asker, {"endpoint": "lab", **_QUESTION})
                if by == "a model"
                else (caller, {"server": "lab", "tool": "t"})
            )
            with pytest.raises(HandlerError):
                await handler.run(params, CONTEXT)
            for each_one in (asker, caller):
                assert each_one.close is not None
                await each_one.close()
        assert not inside.connected
