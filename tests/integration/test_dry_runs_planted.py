"""A bug planted in what carries out the steps of a dry run: the oracle must see it (FAULTS M32)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.engine.running import attempts
from service.engine.running.invocation import run_attempt
from tests.integration import test_dry_runs
from tests.integration.conftest import Serve
from tests.integration.stage import Stage


@pytest.fixture
def m32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run calls handlers that send."""

    async def calls(registry: Any, effect: Any, *rest: Any) -> Any:
        return await run_attempt(registry, replace(effect, answer=None, is_dry=False), *rest)

    monkeypatch.setattr(attempts, "run_attempt", calls)


@pytest.mark.usefixtures("m32")
async def test_m32_turns_its_oracle_red(serve: Serve, stage: Stage) -> None:
    with pytest.raises(AssertionError):
        await test_dry_runs.test_a_whole_workflow_runs_and_nothing_is_sent(serve, stage)
