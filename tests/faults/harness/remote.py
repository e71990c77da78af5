"""The handler that the workers of a chaos run serve, and the programs that need them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2

from flowkeep.handlers import HandlerError, StepContext, handler
from tests.faults.harness.programs import Program
from tests.faults.harness.records import REMOTE

_SHARE = 0.8
"""Of the calls, those that workers make."""


@handler(REMOTE, effect="external")
async def remote(url: str, json: dict[str, Any], context: StepContext) -> dict[str, int]:
    """Call the world outside, as call_api does, and give the number of the attempt."""
    headers = {"Idempotency-Key": context.idempotency_token, "X-Flowkeep-Attempt": str(context.attempt)}
    try:
        async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=10) as client:
            answer = await client.post(url, json=json, headers=headers)
    except httpx2.HTTPError as error:
        raise HandlerError("UNREACHABLE", repr(error), retryable=True) from error
    if answer.status_code != 200:
        raise HandlerError("REFUSED", f"the answer was {answer.status_code}", retryable=True)
    return {"attempt": context.attempt}


def for_workers(program: Program, draw: random.Random) -> Program:
    """Return a program in which workers make most of the calls."""
    steps, facts = [], dict(program.steps)
    for step in program.definition["steps"]:
        is_remote = step["handler"] == "call_api" and draw.random() < _SHARE
        steps.append(_remote(step) if is_remote else step)
        if is_remote:
            facts[step["id"]] = replace(facts[step["id"]], handler=REMOTE)
    return replace(program, definition={**program.definition, "steps": steps}, steps=facts)


def _remote(step: Mapping[str, Any]) -> dict[str, Any]:
    params = {name: step["params"][name] for name in ("url", "json")}
    return {**step, "handler": REMOTE, "params": params}
