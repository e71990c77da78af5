"""The TypeScript client, by its own tests and its example, where Node could build it."""

from __future__ import annotations

import pytest
import yaml

from tests.clients.program import (
    HELLO,
    TYPESCRIPT,
    calls_over_tls_with_a_token,
    example,
    followed_through_a_restart,
    ran,
)
from tests.integration.stage import Served

BUILT = TYPESCRIPT / "dist" / "test"

pytestmark = [
    pytest.mark.skipif(
        not (BUILT / "client.test.js").exists(),
        reason="there is no clients/typescript/dist, which `make clients` builds with Node 20 and npm packages",
    ),
    pytest.mark.timeout(600),
]


async def test_its_own_tests_pass(served: Served) -> None:
    said = await ran(["node", "--test", "--test-reporter=tap", *sorted(BUILT.glob("*.test.js"))], served.target)
    assert "# fail 0" in said


async def test_a_watch_goes_on_through_a_restart_of_the_server(serve, stage) -> None:
    await followed_through_a_restart(serve, stage, ["node", BUILT / "follow.js"])


async def test_it_calls_over_tls_with_a_token(serve, tmp_path) -> None:
    await calls_over_tls_with_a_token(serve, tmp_path, ["node", BUILT / "secure.js"])


async def test_its_example_runs(served: Served) -> None:
    await served.client.apply(yaml.safe_load(HELLO))
    text = example("typescript")
    assert text.count("localhost:50051") == 1
    # Inside the package, so that it finds itself by its name.
    program = BUILT / "example.mjs"
    program.write_text(text.replace("localhost:50051", served.target))
    *events, result = (await ran(["node", program], served.target)).splitlines()
    assert (events[0], events[-1], result) == ("1n created 0 %", f"{len(events)}n finished 100 %", "HELLO WORLD!")
