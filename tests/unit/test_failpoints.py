"""Failpoints: what can be armed, by whom, and when they act."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from persistence import failpoints
from persistence.errors import UnavailableError
from persistence.failpoints import POINTS, FailpointError


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


def arm(text: str, environment: str = "test") -> None:
    failpoints.arm({"FLOWKEEP_FAILPOINTS": text, "FLOWKEEP_ENVIRONMENT": environment})


@pytest.mark.parametrize("environment", ["", "production", "TEST"])
def test_they_are_refused_outside_of_tests(environment: str) -> None:
    with pytest.raises(FailpointError, match="FLOWKEEP_ENVIRONMENT=test"):
        arm("flush.before_commit=crash", environment)


def test_an_environment_alone_arms_nothing() -> None:
    arm("", "production")
    failpoints.hit("flush.after_ack_before_notify")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FailpointError) as refused:
        arm("flush.never=crash")
    assert all(name in str(refused.value) for name in POINTS)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("step.before_started_commit=raise", "crash, stop, block"),
        ("watch.between_pages=unknown", "crash, stop, block, sleep, raise"),
        ("flush.after_commit_before_ack=raise", "crash, stop, block, sleep, unknown"),
        ("flush.mid_batch=raise", "crash, stop, block, sleep, unknown"),
        ("flush.before_commit=burn", "crash, stop, block, sleep, raise, unknown"),
    ],
)
def test_an_action_that_a_point_cannot_do_is_refused_with_those_it_can(text: str, valid: str) -> None:
    with pytest.raises(FailpointError, match=f"it can do {valid}$"):
        arm(text)


@pytest.mark.parametrize("what", ["crash:1", "crash@x", "crash@-1", "sleep", "sleep:", "block:-1", "block:x"])
def test_what_is_no_spec_is_refused(what: str) -> None:
    with pytest.raises(FailpointError):
        arm(f"flush.mid_batch={what}")


async def test_it_acts_the_time_that_was_named_and_no_other() -> None:
    arm("claim.after_select=raise@2; renew.before=raise")
    await failpoints.reach("claim.after_select")
    with pytest.raises(UnavailableError):
        await failpoints.reach("claim.after_select")
    await failpoints.reach("claim.after_select")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await failpoints.reach("renew.before")
    await failpoints.reach("watch.between_pages")


def test_a_flush_commits_by_its_one_statement_unless_a_point_lies_between() -> None:
    assert not failpoints.are_in_transaction()
    arm("flush.before_begin=crash@1000; flush.mid_batch=crash@1000")
    assert not failpoints.are_in_transaction()
    arm("flush.before_commit=crash@1000")
    assert failpoints.are_in_transaction()
