"""The page for callers: its example does what it says, with the workflow that the README begins with."""

from __future__ import annotations

import asyncio
import re

import pytest
import yaml

from tests.folders import ROOT
from tests.integration.stage import Served

(EXAMPLE,) = re.findall(r"```python\n(.*?)```", (ROOT / "clients" / "README.md").read_text(), re.DOTALL)
(HELLO,) = re.findall(r"<<'END'\n(.*?)\nEND", (ROOT / "README.md").read_text(), re.DOTALL)


async def test_its_example_runs(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    await served.client.apply(yaml.safe_load(HELLO))
    assert EXAMPLE.count("localhost:50051") == 1
    example = compile(EXAMPLE.replace("localhost:50051", served.target), "clients/README.md", "exec")
    await asyncio.to_thread(exec, example, {"__name__": "example"})
    *events, result, again = capsys.readouterr().out.splitlines()
    assert (events[0], events[-1], result) == ("1 created 0 %", f"{len(events)} finished 100 %", "HELLO WORLD!")
    assert again == "HELLO MOON!"
