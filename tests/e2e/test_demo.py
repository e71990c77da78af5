"""`flowkeep demo` as a newcomer runs it, twice, and everything that it tells to do next."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from tests.e2e.process import FLOWKEEP, Outcome, ServerProcess, environment, flowkeep, run_command

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
COMMAND = re.compile(r"^ +(?:the CLI|the stubs|grpcurl|psql)? {2,}(?P<command>\S.*)$", re.MULTILINE)
DEFAULT_TARGET = "localhost:50051"
STEPS = ("packages", "sizes", "licences", "policy", "report")
OF_THE_SERVER = ("verdict", "heaviest", "cool_down")
"""Steps that it runs itself: they have no attempt that could start."""


def kept_execution(demo: Outcome) -> str:
    """Return the id of the execution that a demo made, after checking what it showed."""
    assert demo.code == 0, demo
    assert "Traceback" not in demo.out + demo.err
    for step in STEPS:
        assert re.search(rf"\b{step}: started", demo.out), f"no progress of step {step}"
    assert re.search(r"\bcool_down: waiting", demo.out), "no progress of the step that waits"
    for step in (*STEPS, *OF_THE_SERVER):
        assert re.search(rf"\b{step}: completed", demo.out), f"step {step} did not complete"
    assert "COMPLETED" in demo.out
    (execution_id,) = {found[0] for found in UUID.finditer(demo.out.partition("It is all kept")[2])}
    return execution_id


def said_to_run(demo: Outcome, program: str) -> list[list[str]]:
    """Return the commands of a program that a demo told to run, as arguments."""
    commands = [shlex.split(found["command"]) for found in COMMAND.finditer(demo.out.partition("It is all kept")[2])]
    return [command for command in commands if Path(command[0]).name == program]


async def test_the_demo_runs_twice_and_what_it_tells_works(folder: Path) -> None:
    data_dir = folder / "data"
    first = await flowkeep("demo", "--data-dir", str(data_dir))
    again = await flowkeep("demo", settings={"FLOWKEEP_DATA_DIR": str(data_dir)})
    made = [kept_execution(first), kept_execution(again)]
    assert made[0] < made[1]
    assert (data_dir / "packages.md").read_text().startswith("# ")

    serve = [FLOWKEEP[0], "serve", "--data-dir", str(data_dir), "--handlers", "service.cli.demo.handlers"]
    assert f"{Path(serve[0]).name} {shlex.join(serve[1:])}" in again.out
    server = ServerProcess(folder, *serve[4:], listen="127.0.0.1:0")
    await server.start()
    try:
        for execution_id, demo in zip(made, (first, again), strict=True):
            await check_commands(demo, execution_id, server.target)
    finally:
        await server.close()
    assert not server.complaints


async def check_commands(demo: Outcome, execution_id: str, target: str) -> None:
    """Assert that the commands that a demo told to run show its execution."""
    get, watch = said_to_run(demo, "flowkeep")
    (stubs,) = said_to_run(demo, "python")
    (psql,) = said_to_run(demo, "psql")
    calls = said_to_run(demo, "grpcurl")
    assert len(calls) == 2
    for command in (get, watch, stubs, psql, *(calls if shutil.which("grpcurl", path=environment()["PATH"]) else ())):
        # The test's server is on another address than the one that people get.
        run = [argument.replace(DEFAULT_TARGET, target) for argument in command]
        shown = await run_command(*run, settings={"FLOWKEEP_TARGET": target})
        assert (shown.code, shown.err) == (0, ""), f"{command}: {shown}"
        assert "COMPLETED" in shown.out
        assert "report" in shown.out
    assert execution_id in shlex.join(psql)
