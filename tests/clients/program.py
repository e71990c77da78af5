"""Programs in other languages, against a server of a test."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import flowkeep
from tests.folders import ROOT
from tests.integration.certificates import Authority
from tests.integration.stage import Stage, made, step
from tests.patience import PATIENCE
from tests.tokens import claims, jwks, signed

TYPESCRIPT = ROOT / "clients" / "typescript"
GO = ROOT / ".tools" / "bin"
PAGE = (ROOT / "clients" / "README.md").read_text()
(HELLO,) = re.findall(r"<<'END'\n(.*?)\nEND", (ROOT / "README.md").read_text(), re.DOTALL)
"""The workflow that the README begins with, and the examples of the page for callers run."""

WORKERS = {
    "typescript": (TYPESCRIPT / "dist" / "test" / "serve.js", ["node"], []),
    "go": (GO / "flowkeep-go.test", [], ["-test.run=^TestServe$"]),
}
"""Of each language the file that a worker is built as, what runs it, and with what."""

LONGEST = 4 * PATIENCE
"""Seconds after which a suite of another language is taken for stuck."""


def example(language: str) -> str:
    """Return the example of the page for callers in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


async def started(
    command: Sequence[str | Path], target: str, settings: Mapping[str, str] = {}
) -> asyncio.subprocess.Process:
    """Start a program that finds the server by FLOWKEEP_TARGET; what it prints is read by the test."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLOWKEEP_")}
    return await asyncio.create_subprocess_exec(
        *map(str, command),
        env={**inherited, "FLOWKEEP_TARGET": target, **settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def ran(command: Sequence[str | Path], target: str, settings: Mapping[str, str] = {}) -> str:
    """Run a program to its end, which must be a good one, and return what it printed."""
    process = await started(command, target, settings)
    try:
        async with asyncio.timeout(LONGEST):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = said.decode(errors="replace")
    assert process.returncode == 0, text
    return text


@asynccontextmanager
async def worker_of(language: str, target: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker of a server, with capacity for two attempts, in a language that could be built."""
    built, before, after = WORKERS[language]
    if not built.exists():
        pytest.skip(f"{built.name} is not there, which `make clients` builds where Node and Go are")
    process = await started([*before, built, *after], target, {"FLOWKEEP_SERVE": "yes", **settings})
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def pass_gate(gate: Path) -> None:
    """Let what holds go on."""
    gate.touch()


async def followed_through_a_restart(serve: Any, stage: Stage, command: Sequence[str | Path]) -> None:
    """Have a program follow an execution while its server stops and another one comes; it must miss and repeat nothing.

    The program watches FLOWKEEP_EXECUTION and prints `event SEQ KIND` for each event.
    """
    server = await serve()
    name = await made(server.client, step("a"), step("b", "gate"), step("c"))
    execution = await server.client.execute(name)
    process = await started(command, server.target, {"FLOWKEEP_EXECUTION": execution.execution_id})
    assert process.stdout is not None
    lines: list[str] = []
    starts = 0
    try:
        async with asyncio.timeout(LONGEST):
            async for line in process.stdout:
                lines.append(line.decode().strip())
                starts += lines[-1].endswith(("stepStarted", "step_started"))
                if starts == 2 and stage.attempts("b") != [1, 2]:
                    await stage.called("b")
                    await server.stop()
                    server = await serve(listen=server.target)
                    await stage.called("b", 2)
                    stage.open("gate")
            assert await process.wait() == 0, lines
    finally:
        if process.returncode is None:
            process.kill()
    seqs = [int(line.split()[1]) for line in lines if line.startswith("event ")]
    found = await server.client.get_execution(execution.execution_id)
    assert found.state == flowkeep.Execution.STATE_COMPLETED
    assert seqs == list(range(1, found.last_seq + 1)), lines


async def calls_over_tls_with_a_token(serve: Any, folder: Path, command: Sequence[str | Path]) -> None:
    """Have a program call over TLS: with its token it may list and may not execute, without it is nobody."""
    keys = folder / "keys"
    keys.write_text(jwks())
    authority = Authority(folder)
    served = await serve(jwt_jwks=str(keys), **authority.served())
    said = await ran(command, served.target, {"FLOWKEEP_CA": str(authority.file), "FLOWKEEP_TOKEN": signed(claims())})
    assert said.split()[:3] == ["listed", "executions.execute", "INVALID_TOKEN"], said
