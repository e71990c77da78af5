"""Dry runs over crashes and by the command: nothing is sent, whichever process goes on.

Holds DR1.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from flowkeep import Client, dry_run, failing, giving
from flowkeep.v1.execution_pb2 import Execution
from tests.e2e.commands import at, refused, shown
from tests.e2e.effects import EffectServer
from tests.e2e.history import ended
from tests.e2e.process import ServerProcess, flowkeep
from tests.e2e.test_crash import TEN, ten_calls

EXAMPLES = Path(__file__).parents[2] / "clients" / "examples"
ARMED = {"FLOWKEEP_FAILPOINTS": "step.after_call_before_enqueue=crash@8", "FLOWKEEP_ENVIRONMENT": "test"}


@pytest.mark.parametrize("server", [ARMED], indirect=True)
async def test_it_fails_as_often_as_it_is_to_and_sends_nothing_over_a_crash(
    server: ServerProcess, client: Client, effects: EffectServer
) -> None:
    policy = {"retry_policy": {"max_attempts": 3, "initial_interval": 0.01}}
    await client.apply([ten_calls(effects, s5=policy, s7={"delivery": "AT_MOST_ONCE"})])
    number = {"body": {"number": 7}}
    mocks = {"s5": failing("BUSY", retryable=True, times=2, output=number)}
    starting = asyncio.create_task(client.execute("ten", dry_run=dry_run(mocks, default=giving(number))))
    await server.death()  # perhaps before the start was answered
    await server.restart()
    execution = await starting
    found = await ended(client, execution.execution_id)
    assert (found.state, found.dry_run) == (Execution.STATE_COMPLETED, True)
    assert [step.mocked for step in found.steps] == [True] * 10
    failures = [each.failure.code for each in found.steps[5].failed_attempts]
    assert [code for code in failures if code != "INTERRUPTED"] == ["BUSY", "BUSY"]
    assert [effects.of(f"/{step}") for step in TEN] == [[]] * 10


async def test_the_example_is_tried_in_the_terminal(target: str) -> None:
    await at(target, "apply", str(EXAMPLES / "invoice.yaml"))
    command = ("execute", "invoice", "--set", "number=A-17", "--set", "amount=250", "--wait")
    mocks = ("--mocks", str(EXAMPLES / "invoice_mocks.yaml"))
    text = await shown(target, *command, "--dry-run", *mocks, code=1)
    for said in ("Dry run", "mocked", "EMAIL_REJECTED", "nobody has this address"):
        assert said in text, text

    given = (
        '{"mocks": {"paid": {"output": 1}, "charge": {"output": {"body": {"id": "c"}}}}, "default_mock": {"output": 1}}'
    )
    small = ("execute", "invoice", "--set", "number=A-17", "--set", "amount=25", "--wait")
    found = (await at(target, *small, "--dry-run", "--mocks", "-", "--skip-waits", given=given)).json
    assert (found["state"], found["result"]) == ("COMPLETED", {"charge": "c", "told": 2})
    listed = (await at(target, "list", "--workflow", "invoice", "--dry-run")).json["executions"]
    assert [each["dry_run"] for each in listed] == [True, True]
    assert (await at(target, "list", "--workflow", "invoice", "--no-dry-run")).json["executions"] == []
    assert "(dry run)" in await shown(target, "list", "--workflow", "invoice")


async def test_it_is_tried_in_memory(tmp_path: Path) -> None:
    settings = {"TMPDIR": str(tmp_path)}
    command = ("run", str(EXAMPLES / "invoice.yaml"), "--set", "number=A-17", "--set", "amount=250")
    dry = ("--dry-run", "--mocks", str(EXAMPLES / "invoice_mocks.yaml"))
    failed = await flowkeep(*command, *dry, settings=settings)
    assert (failed.code, "EMAIL_REJECTED" in failed.out) == (1, True), failed
    given = '{"handlers": {"send_notification": {"output": 1}}, "default_mock": {"output": {"outcome": "rejected"}}}'
    done = await flowkeep(*command, "--dry-run", "--mocks", "-", "--skip-waits", settings=settings, given=given)
    assert (done.code, "COMPLETED" in done.out) == (0, True), done
    for wrong, said in (
        ((*command, "--mocks", "x.yaml"), "--dry-run"),
        ((*command, "--dry-run", "--mocks", "-", "--input", "-"), "can be read once"),
        ((*command, "--dry-run"), 'dry_run.mocks["approve"]'),
    ):
        refusal = await flowkeep(*wrong, settings=settings, given=given)
        assert (refusal.code, said in refusal.err) == (2, True), refusal


async def test_it_is_debugged_and_compared_with_a_real_execution(target: str) -> None:
    dry = ("--dry-run", "--mocks", str(EXAMPLES / "invoice_mocks.yaml"))
    await at(target, "apply", str(EXAMPLES / "invoice.yaml"))
    debugging = ("debug", "invoice", "--set", "number=A-17", "--set", "amount=250", "--break", "charge", *dry)
    text = await shown(target, *debugging, given="c\n", code=1)
    for said in ("before step charge", "EMAIL_REJECTED", "Dry run"):
        assert said in text, text
    for wrong, because in (
        (("greeting", "--mocks", "-", "--dry-run"), "must be a file"),
        (("--execution", "0", *dry), "leave"),
    ):
        assert because in await refused(target, "debug", *wrong, code=2)

    command = ("execute", "greeting", "--set", "name=Flo", "--wait")
    real, tried = [(await at(target, *command, *more)).json["execution_id"] for more in ((), ("--dry-run",))]
    found = (await at(target, "compare", real, tried)).json
    assert (found["execution"]["dry_run"], found["other_execution"]["dry_run"]) == (False, True)
    text = await shown(target, "compare", real, tried)
    assert [line.split() for line in text.splitlines() if line.startswith("Dry run")] == [["Dry", "run", "yes"]]
    assert "They are alike" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[]", "mocks, handlers, default_mock, skip_waits"),
        ('{"mock": {}}', "mock is unknown"),
        ('{"mocks": []}', "mocks must be an object"),
        ('{"mocks": {"a": 1}}', "mocks.a must be an object with output, failure"),
        ('{"mocks": {"a": {"failure": {"code": 5}}}}', "mocks.a"),
        ('{"mocks": {"a": {"output": 9007199254740993}}}', "mocks.a"),
        ('{"skip_waits": "yes"}', "skip_waits must be true or false"),
        ("{}", 'dry_run.mocks["approve"]'),
    ],
)
async def test_what_are_no_mocks_is_refused_by_name(target: str, given: str, said: str) -> None:
    await at(target, "apply", str(EXAMPLES / "invoice.yaml"))
    command = ("execute", "invoice", "--set", "number=A-17", "--set", "amount=250", "--dry-run", "--mocks", "-")
    assert said in await refused(target, *command, given=given, code=2)


async def test_mocks_are_not_given_to_what_is_no_dry_run(target: str) -> None:
    command = ("execute", "greeting", "--set", "name=Flo")
    assert "--dry-run" in await refused(target, *command, "--mocks", "x.yaml", code=2)
    assert "--dry-run" in await refused(target, *command, "--skip-waits", code=2)
    assert "read once" in await refused(target, *command, "--dry-run", "--mocks", "-", "--input", "-", code=2)
    assert (await at(target, *command, "--dry-run", "--wait")).json["dry_run"]
