"""The Go client, by its own tests and its example, where Go could build it."""

from __future__ import annotations

import pytest
import yaml

from tests.clients.program import GO, HELLO, calls_over_tls_with_a_token, example, followed_through_a_restart, ran
from tests.folders import ROOT
from tests.integration.stage import Served

TESTS = GO / "flowkeep-go.test"

pytestmark = [
    pytest.mark.skipif(
        not TESTS.exists(), reason="there is no .tools/bin/flowkeep-go.test, which `make clients` builds with Go"
    ),
    pytest.mark.timeout(600),
]


async def test_its_own_tests_pass(served: Served) -> None:
    said = await ran([TESTS, "-test.v"], served.target)
    assert "--- FAIL" not in said
    assert "--- PASS: TestAWatchGoesOnBehindTheLastEventWhenItsConnectionBreaks" in said


async def test_a_watch_goes_on_through_a_restart_of_the_server(serve, stage) -> None:
    await followed_through_a_restart(serve, stage, [TESTS, "-test.run=^TestFollow$"])


async def test_it_calls_over_tls_with_a_token(serve, tmp_path) -> None:
    await calls_over_tls_with_a_token(serve, tmp_path, [TESTS, "-test.run=^TestSecure$"])


def test_the_example_of_the_page_is_the_one_that_is_built() -> None:
    assert example("go") == (ROOT / "clients" / "go" / "example" / "main.go").read_text()


async def test_its_example_runs(served: Served) -> None:
    await served.client.apply(yaml.safe_load(HELLO))
    *events, result = (await ran([GO / "flowkeep-go-example"], served.target)).splitlines()
    assert (events[0], events[-1], result) == ("1 0 %", f"{len(events)} 100 %", "HELLO WORLD!")
