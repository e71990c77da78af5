"""Commands against a real server, and workflows that they are tried with."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.process import Outcome, flowkeep

GREETING = """
name: greeting
description: Says hello.
input_schema:
  type: object
  required: [name]
  properties:
    name: {type: string}
steps:
  - id: text
    handler: transform
    params:
      value: Hello, ${ input.name }!
  - id: length
    handler: transform
    params:
      expression: size(steps.text.output)
output:
  text: ${ steps.text.output }
  length: ${ steps.length.output }
"""
SLEEP = """
name: sleep
steps:
  - {id: sleep, handler: wait, params: {duration: 1h}}
  - {id: never, handler: transform, params: {value: 1}}
"""
BROKEN = """
name: broken
steps:
  - {id: divide, handler: transform, params: {expression: 1 / input.zero}}
"""
IMPOSSIBLE = """
name: impossible
steps:
  - {id: divide, handler: transform, params: {value: "${ 1 / input.zero }"}}
"""


async def at(target: str, *arguments: str, given: str = "", code: int = 0) -> Outcome:
    """Run a command with `--output json`, which has to end with this code."""
    outcome = await flowkeep(*arguments, "--output", "json", target=target, given=given)
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err
    return outcome


async def shown(target: str, *arguments: str, given: str = "", code: int = 0) -> str:
    """Return what a command shows to people on standard output; it has to end with this code."""
    outcome = await flowkeep(*arguments, target=target, given=given)
    assert outcome.code == code, outcome
    assert outcome.err == ""
    return outcome.out


async def refused(target: str, *arguments: str, given: str = "", code: int) -> str:
    """Return what a command says on standard error when it is refused, after checking that its JSON says the same."""
    outcome = await flowkeep(*arguments, target=target, given=given)
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert "Traceback" not in outcome.err
    error = json.loads((await at(target, *arguments, given=given, code=code)).err)["error"]
    assert error["code"]
    assert error["message"]
    return outcome.err


async def execute(target: str, *arguments: str) -> dict[str, Any]:
    started: dict[str, Any] = (await at(target, "execute", *arguments)).json
    return started
