"""Secrets by reference: they reach what is called, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

import flowkeep
from flowkeep.handlers import StepContext, Suspend, handler
from flowkeep.payload import from_struct, from_value
from persistence.postgres.tables import metadata
from service.engine.secrets import Secrets, SecretsUnavailableError, VaultSecrets
from tests.folders import ROOT
from tests.integration.callee import Callee, to
from tests.integration.conftest import Serve
from tests.integration.stage import ended, log, made, step
from tests.integration.web import Answer, Call, Web
from tests.patience import PATIENCE

EXAMPLES = ROOT / "clients" / "examples"
ORG = "development"
VALUE = "sk-3f9b7c51-geheim"
COMPLETED, FAILED = flowkeep.Execution.STATE_COMPLETED, flowkeep.Execution.STATE_FAILED


@handler("echo", effect="external")
async def echo(context: StepContext, key: str, fails: bool = False) -> dict[str, str]:
    """Give, show and report what should not be told."""
    context.emit(f"emitted {key}")
    context.report(5, f"reported {key}")
    if fails:
        raise ValueError(f"raised {key}")
    return {"echoed": key, key: "as a key"}


@handler("unfit", effect="external")
async def unfit(context: StepContext, key: str) -> dict[str, object]:
    """Give what cannot be kept, under a name that should not be told."""
    return {key: object()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one secret."""
    (tmp_path / ORG).mkdir()
    (tmp_path / ORG / "crm").write_text(f"{VALUE}\n")
    return tmp_path


async def kept_nowhere(admin: asyncpg.Connection, value: str) -> None:
    """Assert that no row of any table holds a value, in any of its columns."""
    for table in metadata.sorted_tables:
        rows = await admin.fetch(f"SELECT * FROM {table.name}")  # noqa: S608 - our own tables
        for row in rows:
            for cell in row.values():
                held = cell if isinstance(cell, bytes) else str(cell).encode()
                assert value.encode() not in held, (table.name, row)


async def test_a_secret_reaches_what_is_called_and_is_kept_nowhere(
    serve: Serve, admin: asyncpg.Connection, web: Web, folder: Path
) -> None:
    server = await serve([echo], secrets_dir=folder)
    url = web.by(
        "/crm",
        lambda asked: (
            200,
            {"Content-Type": "application/json"},
            json.dumps({"you_sent": asked.headers["authorization"]}).encode(),
        ),
    )
    call = step("call", "call_api", url=url, auth={"bearer": "${ secret('crm') }"})
    own = step("own", "echo", key="${ secret('crm') }")
    execution = await server.client.execute(await made(server.client, call, own), {}, wait=True)
    assert execution.state == COMPLETED
    assert [each.headers["authorization"] for each in web.calls] == [f"Bearer {VALUE}"]
    shown = await server.client.get_execution(execution.execution_id)
    place = "${ secret('crm') }"
    steps = {each.path: each for each in shown.steps}
    assert from_struct(steps["call"].input)["auth"] == {"bearer": place}
    assert from_value(steps["call"].output)["body"] == {"you_sent": f"Bearer {place}"}
    assert from_value(steps["own"].output) == {"echoed": place, place: "as a key"}
    events = await log(server.client, execution.execution_id)
    assert VALUE not in str(shown) + str(events)
    await kept_nowhere(admin, VALUE)


async def test_a_failure_tells_no_secret_not_even_in_its_stack_trace(
    serve: Serve, admin: asyncpg.Connection, folder: Path
) -> None:
    server = await serve([echo], secrets_dir=folder)
    own = step("own", "echo", key="${ secret('crm') }", fails=True, retry_policy={"max_attempts": 1})
    execution = await server.client.execute(await made(server.client, own), {})
    found = await ended(server.client, execution.execution_id)
    [failed] = (await server.client.get_execution(found.execution_id)).steps
    assert found.state == FAILED
    assert "raised ${ secret('crm') }" in failed.failure.stack_trace
    await kept_nowhere(admin, VALUE)


async def test_a_secret_is_kept_nowhere_however_the_other_side_repeats_it(
    serve: Serve, admin: asyncpg.Connection, web: Web, folder: Path
) -> None:
    """In base64, as that of basic auth is sent; cut where a failure is; and as the URL it is called at."""
    bytes_of = base64.b64encode(VALUE.encode()).decode()[3:15]
    (folder / ORG / "hook").write_text(f"{web.url}/hooks/{VALUE}")
    (folder / ORG / "lines").write_text("first-geheim\r\nX-Injected: second-geheim")
    server = await serve([unfit], secrets_dir=folder)
    url = web.by("/echo", lambda asked: (200, {}, str(asked.headers).encode() + asked.body))
    web.by(f"/hooks/{VALUE}", lambda asked: (403, {}, b""))
    refused = web.by("/refused", lambda asked: (403, {}, b"x" * 500 + asked.body))
    place, once = "${ secret('crm') }", {"max_attempts": 1}
    basic = {"basic": {"username": "me", "password": place}}
    ran = [
        step("basic", "call_api", url=url, auth=basic),
        step("bytes", "call_api", url=url, method="POST", text=f"?{place}", response="base64"),
        step("url", "call_api", url="${ secret('hook') }", on_error="CONTINUE"),
        step("cut", "call_api", url=refused, method="POST", text=place, on_error="CONTINUE"),
        step("key", "unfit", key=place, retry_policy=once, on_error="CONTINUE"),
        step("lines", "call_api", url=url, headers={"X-Key": "${ secret('lines') }"}, on_error="CONTINUE"),
        step(
            "last",
            "transform",
            value={"url": "${ steps.url.error }", "cut": "${ steps.cut.error }", "lines": "${ steps.lines.error }"},
        ),
    ]
    execution = await server.client.execute(await made(server.client, *ran), {}, wait=True)
    assert execution.state == COMPLETED, execution.failure
    shown = await server.client.get_execution(execution.execution_id)
    steps = {each.path: each for each in shown.steps}
    assert place in from_value(steps["basic"].output)["body"]
    assert place in from_value(steps["bytes"].output)["body"]
    assert "${ secret('hook') }" in steps["url"].failure.message
    assert steps["cut"].failure.code == "HTTP_STATUS_4XX"
    assert steps["key"].failure.code == "INVALID_OUTPUT"
    assert steps["lines"].failure.code == "INVALID_PARAMS"
    assert not any("x-injected" in each.headers for each in web.calls)
    events = await log(server.client, execution.execution_id)
    for part in (VALUE, bytes_of, VALUE[:10], "first-geheim", "second-geheim"):
        assert part not in str(shown) + str(events)
        await kept_nowhere(admin, part)


async def test_what_grpc_services_and_mcp_servers_repeat_is_kept_nowhere_either(
    serve: Serve, admin: asyncpg.Connection, callee: Callee, folder: Path
) -> None:
    (folder / ORG / "lines").write_text("first-geheim\nsecond-geheim")
    servers = {"shop": {"command": sys.executable, "args": [str(EXAMPLES / "mcp_server.py")]}}
    server = await serve(secrets_dir=folder, mcp_servers=json.dumps(servers))
    crm = "${ secret('crm') }"
    ran = [
        step("grpc", "call_grpc", **to(callee, message={"order_id": crm}, metadata={"authorization": f"Bearer {crm}"})),
        step("lines", "call_grpc", **to(callee, metadata={"tenant": "${ secret('lines') }"}), on_error="CONTINUE"),
        step("mcp", "mcp_tool", server="shop", tool="price", arguments={"item": crm, "count": 1}, on_error="CONTINUE"),
    ]
    execution = await server.client.execute(await made(server.client, *ran), {}, wait=True)
    assert execution.state == COMPLETED, execution.failure
    shown = await server.client.get_execution(execution.execution_id)
    steps = {each.path: each for each in shown.steps}
    assert callee.calls[0].metadata["authorization"] == f"Bearer {VALUE}"
    assert from_value(steps["grpc"].output)["message"]["orderId"] == crm
    assert "there is no ${ secret('crm') }" in steps["mcp"].failure.message
    assert steps["lines"].failure.code == "INVALID_PARAMS"
    for part in (VALUE, "first-geheim", "second-geheim"):
        assert part not in str(shown) + str(await log(server.client, execution.execution_id))
        await kept_nowhere(admin, part)


async def test_places_are_filled_again_in_items_in_threads_after_a_restart_and_while_suspended(
    serve: Serve, admin: asyncpg.Connection, folder: Path
) -> None:
    began, seen, failed, given = asyncio.Event(), list[str](), set[str](), list[list[str]]()

    @handler("parks")
    async def parks(key: str) -> Suspend:
        seen.append(key)
        began.set()
        if len(seen) == 1:
            await asyncio.Event().wait()
        until = datetime.now(UTC) + timedelta(seconds=1)  # one that is past completes without a word of waiting
        return Suspend(until, {"parked": key}, f"parked for {key}")

    @handler("in_thread")
    def in_thread(key: str, rest: list[list[str]]) -> str:
        if key not in failed:
            failed.add(key)
            raise ValueError(f"{key} {rest}")
        given.append(rest[0][1:])
        return f"{key} {rest}"

    crm = "${ secret('crm') }"
    retry = {"initial_interval": "10ms"}
    item = step(
        "item", "in_thread", key=f"${{ item }} {crm}", rest=[["a", crm, "${ input.place }"]], retry_policy=retry
    )
    each = {"id": "each", "for_each": {"items": "['x', 'y']", "max_parallel": 2, "steps": [item]}}
    place = "${ secret('crm') } of an input"
    first = await serve([parks, in_thread], secrets_dir=folder)
    workflow = await made(first.client, step("parks", "parks", key=crm), each)
    execution = await first.client.execute(workflow, {"place": place})
    await began.wait()
    await first.stop()
    second = await serve([parks, in_thread], secrets_dir=folder)
    found = await ended(second.client, execution.execution_id)
    assert found.state == COMPLETED, found.failure
    assert seen == [VALUE, VALUE]
    assert failed == {f"x {VALUE}", f"y {VALUE}"}
    assert given == [[VALUE, place]] * 2
    events = await log(second.client, execution.execution_id)
    for seq in range(1, len(events) + 1):
        shown = await second.client.get_execution(execution.execution_id, at_seq=seq)
        assert VALUE not in str(shown)
    assert VALUE not in str(events)
    assert "parked for ${ secret(" in str(events)
    await kept_nowhere(admin, VALUE)


async def test_what_is_missing_fails_the_step_and_what_is_changed_counts_at_the_next_attempt(
    serve: Serve, folder: Path
) -> None:
    server = await serve([echo], secrets_dir=folder)
    workflow = await made(server.client, step("own", "echo", key="${ secret('later') }"))
    missing = await ended(server.client, (await server.client.execute(workflow, {})).execution_id)
    assert from_struct(missing.failure.details)["code"] == "SECRET_NOT_FOUND"
    assert (
        "no secret 'later' for the org 'development'; it was looked for in the folder of secrets"
        in missing.failure.message
    )
    (folder / ORG / "later").write_text(VALUE)
    found = await ended(server.client, (await server.client.execute(workflow, {})).execution_id)
    assert found.state == COMPLETED


async def test_definitions_name_secrets_in_params_of_calls_alone(serve: Serve) -> None:
    server = await serve([echo])
    steps = [
        step("a", "echo", key="Bearer ${ secret('crm') }"),
        step("b", "transform", value="${ secret('crm') }"),
        step("c", "echo", key="x", condition="secret('crm') == 'x'"),
        step("d", "echo", key="x", assign={"v": "secret('crm')"}),
    ]
    problems = await server.client.validate_workflow({"name": "w", "steps": steps, "output": "${ secret('crm') }"})
    assert sorted(each.field for each in problems) == [
        "output",
        "steps[1].params.value",
        "steps[2].condition",
        "steps[3].assign.v",
    ]


@pytest.fixture
def vault(web: Web, tmp_path: Path) -> VaultSecrets:
    """A provider of secrets that asks the server of the test, as Vault would be."""
    (tmp_path / "token").write_text("hvs.token\n")
    return VaultSecrets(web.url, tmp_path / "token", "secret/data/flowkeep/{org}/{name}")


async def test_vault_is_asked_for_the_entry_of_the_org(web: Web, vault: VaultSecrets) -> None:
    entry = json.dumps({"data": {"data": {"value": VALUE}, "metadata": {"version": 3}}})
    web.answer("/v1/secret/data/flowkeep/a%2Fb%20c/crm", 200, entry)
    web.answer("/v1/secret/data/flowkeep/acme/none", 404, '{"errors": []}')
    assert await Secrets([vault]).find("a/b c", ["crm"]) == {"crm": VALUE}
    assert await vault.find("acme", "none") is None
    assert [await vault.find(org, "crm") for org in ("", ".", "..")] == [None] * 3 and len(web.calls) == 2
    assert {each.headers["x-vault-token"] for each in web.calls} == {"hvs.token"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((403, {}, b'{"errors": ["permission denied"]}'), "Vault answered 403"),
        ((302, {"Location": "/elsewhere"}, b""), "Vault answered 302"),
        ((200, {}, b"no JSON"), "has no text in the field 'value'"),
        ((200, {}, b'{"data": {"data": {"other": "x"}}}'), "has no text in the field 'value'"),
        ((200, {}, b'{"data": {"data": {"value": 5}}}'), "has no text in the field 'value'"),
        ((200, {}, b"x" * 300_000), "too large for a secret"),
    ],
)
async def test_vault_without_a_secret_is_told_as_such(web: Web, vault: VaultSecrets, answer: Answer, why: str) -> None:
    web.by("/v1/secret/data/flowkeep/acme/crm", lambda asked: answer)
    with pytest.raises(SecretsUnavailableError, match=why):
        await vault.find("acme", "crm")


async def test_a_step_that_waits_for_vault_can_be_cancelled_and_has_its_timeout(
    serve: Serve, web: Web, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hvs.token")
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Call) -> Answer:
        loop.call_soon_threadsafe(asked.set)
        web.release.wait(PATIENCE)
        return 404, {}, b""

    web.by(f"/v1/secret/data/flowkeep/{ORG}/crm", hang)
    server = await serve([echo], vault_url=web.url, vault_token_file=tmp_path / "token")
    own = step("own", "echo", key="${ secret('crm') }")
    cancelled = await server.client.execute(await made(server.client, own), {})
    await asked.wait()
    await server.client.cancel(cancelled.execution_id)
    late = step("own", "echo", key="${ secret('crm') }", timeout="100ms", retry_policy={"max_attempts": 1})
    expired = await server.client.execute(await made(server.client, late), {})
    assert (await ended(server.client, cancelled.execution_id)).state == flowkeep.Execution.STATE_CANCELLED
    assert from_struct((await ended(server.client, expired.execution_id)).failure.details)["code"] == "STEP_TIMEOUT"
    assert not web.release.is_set()


async def test_a_vault_that_is_away_is_tried_again(serve: Serve, web: Web, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hvs.token")
    answers: list[Answer] = [(503, {}, b""), (200, {}, json.dumps({"data": {"data": {"value": VALUE}}}).encode())]

    def answer(asked: Call) -> Answer:
        return answers.pop(0)

    web.by(f"/v1/secret/data/flowkeep/{ORG}/crm", answer)
    server = await serve([echo], vault_url=web.url, vault_token_file=tmp_path / "token")
    own = step("own", "echo", key="${ secret('crm') }", retry_policy={"initial_interval": "10ms"})
    execution = await server.client.execute(await made(server.client, own), {}, wait=True)
    assert execution.state == COMPLETED
    [shown] = (await server.client.get_execution(execution.execution_id)).steps
    assert shown.attempt == 2 and shown.failed_attempts[0].failure.code == "SECRETS_UNAVAILABLE"
