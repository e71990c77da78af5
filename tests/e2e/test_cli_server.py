"""The `flowkeep` commands that serve or look after what is needed for it, and those whose server is away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from persistence.installation import wheel_binaries
from tests.e2e.commands import BROKEN, GREETING, SLEEP, at
from tests.e2e.process import FLOWKEEP, ServerProcess, copy_data, environment, flowkeep, run_command, running
from tests.folders import may_pass
from tests.integration.certificates import Authority
from tests.patience import PATIENCE

CRASHING = """
from flowkeep.handlers import handler


@handler("crash")
async def crash() -> str:
    return {}["absent"]
"""


async def test_health_is_asked_by_a_command(server: ServerProcess, folder: Path) -> None:
    whole, part, nobody, unknown = await asyncio.gather(
        flowkeep("health", "--service", "", "-o", "json", target=server.target),
        flowkeep("health", "--service", "flowkeep.v1.ExecutionService", "-o", "json", target=server.target),
        flowkeep("health", "--target", f"unix:{folder / 'nobody.sock'}", target=server.target),
        flowkeep("health", "--service", "flowkeep.nope", target=server.target),
    )
    for asked in (whole, part):
        assert (asked.code, asked.json) == (0, {"status": "SERVING"})
    assert (nobody.code, nobody.out) == (4, "")
    assert (unknown.code, unknown.err) == (3, 'Error: the server has no service "flowkeep.nope"\n')


async def test_beside_tls_health_is_asked_without_and_the_log_keeps_its_form(prepared: Path, folder: Path) -> None:
    cert, key = Authority(folder).pair("server")
    alone = {"FLOWKEEP_HEALTH_LISTEN": f"unix:{folder / 'health.sock'}"}
    encrypted = {"FLOWKEEP_TLS_CERT_FILE": str(cert), "FLOWKEEP_TLS_KEY_FILE": str(key)}
    process = ServerProcess(folder, listen="127.0.0.1:0", settings={**encrypted, **alone})
    async with running(process, prepared) as server:
        asked = await flowkeep("health", settings=alone)
        assert (asked.code, asked.out) == (0, "SERVING\n")
        refused = await flowkeep("list", target=server.target)
        assert (refused.code, refused.out) == (4, "")
        assert f"the server at {server.target} speaks TLS and shows the certificate CN=server" in refused.err
        # What gRPC itself has to say of a broken handshake is not written between.
        assert all(line.startswith("{") for line in server.log.splitlines())


async def test_run_needs_no_database(folder: Path) -> None:
    settings = {"FLOWKEEP_DATA_DIR": str(folder / "data")}
    (folder / "greeting.yaml").write_text(GREETING)
    command = ("run", str(folder / "greeting.yaml"))
    outcome = await flowkeep(*command, "--input", '{"name": "Guy"}', settings=settings)
    assert (outcome.code, outcome.err) == (0, "")
    for text in ("text: completed", "COMPLETED", "Hello, Guy!", "nothing was kept"):
        assert text in outcome.out
    events = (await flowkeep(*command, "--set", "name=Guy", "-o", "json", settings=settings)).json_lines
    assert events[-1]["finished"]["result"]["text"] == "Hello, Guy!"

    refused = await flowkeep(*command, settings=settings)
    assert (refused.code, refused.out) == (2, "")
    assert "name" in refused.err
    failed = await flowkeep("run", "-", "--set", "zero=0", settings=settings, given=BROKEN)
    assert failed.code == 1
    assert "divide" in failed.out
    assert not (folder / "data").exists()


@pytest.mark.parametrize("name", ["t" * 90, "a b", "50%41", "ü", "absent/folder"])
async def test_run_works_wherever_temporary_files_lie(folder: Path, name: str) -> None:
    place = folder / name
    if "/" not in name:
        place.mkdir()
    outcome = await flowkeep("run", "-", "--set", "name=Guy", settings={"TMPDIR": str(place)}, given=GREETING)
    assert (outcome.code, outcome.err) == (0, "")
    assert not place.exists() or not list(place.iterdir())


async def test_config_shows_every_setting() -> None:
    settings = {"FLOWKEEP_MAX_RUNNING": "7", "FLOWKEEP_DATABASE_URL": "postgresql://me:hunter2@db/flowkeep"}
    rows = {row["name"]: row for row in (await flowkeep("config", "-o", "json", settings=settings)).json}
    assert rows["FLOWKEEP_MAX_RUNNING"]["value"] == 7
    assert {name for name, row in rows.items() if row["set"]} == set(settings)
    assert all(row["description"] for row in rows.values())
    text = await flowkeep("config", settings=settings)
    assert (text.code, text.err) == (0, "")
    assert "FLOWKEEP_LEASE_TTL" in text.out
    assert "hunter2" not in text.out + json.dumps(rows)

    for name in ("FLOWKEEP_MAX_RUNNING", "FLOWKEEP_MAX_RUNING"):
        wrong = await flowkeep("config", settings={name: "many"})
        assert (wrong.code, wrong.out) == (2, "")
        assert "FLOWKEEP_MAX_RUNNING" in wrong.err


@pytest.mark.parametrize("option", ["--data-dir", "--listen", "--handlers"])
async def test_serve_takes_no_empty_setting(option: str) -> None:
    outcome = await flowkeep("serve", option, "")
    assert (outcome.code, outcome.out) == (2, "")
    assert option in outcome.err or f"FLOWKEEP_{option[2:].upper()}" in outcome.err
    assert "Traceback" not in outcome.err


async def test_migrate_and_doctor(prepared: Path, folder: Path) -> None:
    settings = {"FLOWKEEP_DATA_DIR": str(folder / "data")}
    await copy_data(prepared, folder / "data")
    mail = {"FLOWKEEP_SMTP_HOST": "mail.example.org", "FLOWKEEP_SMTP_SENDER": "it@example.org"}
    findings = (await flowkeep("doctor", "-o", "json", settings={**settings, **mail})).json
    assert {each["verdict"] for each in findings} <= {"ok", "warn"}
    assert {"python", "settings", "mail", "handlers", "database", "inboxes"} <= {each["subject"] for each in findings}
    unasked = await flowkeep("migrate", "--to", "base", settings=settings)
    assert (unasked.code, unasked.out) == (2, "")
    assert "--yes" in unasked.err
    for revision in ("base", "head"):
        migrated = await flowkeep("migrate", "--to", revision, "--yes", settings=settings)
        assert (migrated.code, migrated.err) == (0, "")
        assert revision in migrated.out
    cert, key = Authority(folder).pair("old", days=-1.0)
    wrong = {
        "FLOWKEEP_HANDLERS": '["no.such.module"]',
        "FLOWKEEP_TLS_CERT_FILE": str(cert),
        "FLOWKEEP_TLS_KEY_FILE": str(key),
    }
    unhealthy = await flowkeep("doctor", settings={**settings, **wrong})
    assert unhealthy.code == 1
    assert "no.such.module" in unhealthy.out
    assert "FAIL  tls: certificate CN=old" in unhealthy.out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on an account without a line in /etc/passwd")
@pytest.mark.skipif(not may_pass(wheel_binaries()), reason="Postgres lies where no other account may start it")
async def test_an_account_without_a_name_or_a_home_hears_what_it_lacks(folder: Path) -> None:
    # The interpreter may lie where only root may look.
    caps = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    account = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *caps, "env", "-u", "HOME", *FLOWKEEP)
    doctor = await run_command(*account, "doctor", settings={"XDG_DATA_HOME": ""})
    assert (doctor.code, doctor.err) == (1, "")
    assert "FAIL  database: embedded: uid 54321 has no home folder to keep data in" in doctor.out
    (folder / "data").mkdir()
    os.chown(folder / "data", 54_321, 54_321)
    doctor = await run_command(*account, "doctor", "--data-dir", str(folder / "data"))
    assert (doctor.code, doctor.err) == (0, "")


async def test_commands_say_that_the_database_is_away() -> None:
    settings = {"FLOWKEEP_DATABASE_URL": "postgresql://me@127.0.0.1:1/flowkeep"}
    doctor = await flowkeep("doctor", settings=settings)
    assert doctor.code == 1
    assert "database" in doctor.out
    for command in ("serve", "migrate"):
        outcome = await flowkeep(command, settings=settings)
        assert (outcome.code, outcome.out) == (2, "")
        assert "Traceback" not in outcome.err


async def test_a_server_that_is_away_ends_a_command_with_4(folder: Path) -> None:
    nobody = f"unix:{folder / 'nobody.sock'}"
    outcome, asked = await asyncio.gather(  # each tries for some seconds
        flowkeep("list", target=nobody),
        flowkeep("execute", "greeting", "--request-id", "r-1", target=nobody),
    )
    assert (outcome.code, outcome.out) == (4, "")
    assert "flowkeep serve" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert (asked.code, asked.out) == (4, "")
    assert "--request-id r-1" in asked.err


# That it is back shows with what comes first, here a bookmark.
@pytest.mark.parametrize("server", [{"FLOWKEEP_WATCH_BOOKMARK": "0.5"}], ids=["bookmarks"], indirect=True)
async def test_a_watch_says_when_it_tries_again_and_when_it_goes_on(server: ServerProcess) -> None:
    await at(server.target, "apply", "-", given=SLEEP)
    command = (*FLOWKEEP, "execute", "sleep", "--watch")
    watching = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment({"FLOWKEEP_TARGET": server.target}),
    )
    assert watching.stdout is not None
    assert watching.stderr is not None
    async with asyncio.timeout(PATIENCE):
        execution_id = (await watching.stdout.readline()).decode().split()[-1]
        while b"sleep: waiting" not in await watching.stdout.readline():
            pass
        await server.kill9()
        assert b"Trying again" in await watching.stderr.readline()
        await server.restart()
        assert b"is back" in await watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        assert f"flowkeep watch {execution_id}" in (await watching.stderr.read()).decode()
        assert await watching.wait() == 130


async def test_run_shows_the_stack_trace_of_a_handler(folder: Path) -> None:
    (folder / "ours.py").write_text(CRASHING)
    given = "name: crashing\nsteps: [{id: crash, handler: crash}]"
    command = ("run", "-", "--handlers", str(folder / "ours.py"))
    outcome = await flowkeep(*command, given=given)
    assert (outcome.code, outcome.err) == (1, "")
    assert "KeyError: 'absent'" in outcome.out
    assert outcome.out.count("HANDLER_ERROR") == 1
    told = await flowkeep(*command, "-o", "json", given=given)
    assert told.json_lines[-1]["finished"]["failure"]["step_path"] == "crash"
    assert "KeyError: 'absent'" in json.loads(told.err)["failure"]["stack_trace"]
