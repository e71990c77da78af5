"""Dry runs of executions, which send nothing outside: what stands in the place of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkeep.arguments import flag, kind, text, whole
from flowkeep.payload import Input, to_struct, to_value
from flowkeep.v1.dry_run_pb2 import DryRun, Mock, MockFailure


def giving(output: Any) -> Mock:
    """Return a mock that gives an output. Raises PayloadError for what payloads cannot carry."""
    return Mock(output=to_value(output))


def failing(
    code: str,
    message: str = "",
    *,
    details: Input | None = None,
    retryable: bool = False,
    times: int = 0,
    output: Any = None,
) -> Mock:
    """Return a mock with which a step fails: its first `times` attempts, and then it gives `output`; 0 for all.

    `retryable`: the retry policy of the step decides whether it is tried again. Raises as `giving` does.
    """
    failure = MockFailure(
        code=text("code", code),
        message=text("message", message),
        details=None if details is None else to_struct(details, "details"),
        retryable=flag("retryable", retryable),
        times=whole("times", times),
    )
    return Mock(failure=failure, output=to_value(output) if times else None)


def dry_run(
    mocks: Mapping[str, Any] | None = None,
    *,
    handlers: Mapping[str, Any] | None = None,
    default: Mock | None = None,
    skip_waits: bool = False,
) -> DryRun:
    """Return what makes an execution a dry run, for `execute`.

    `mocks` are those of steps by path, `handlers` those of all steps of a handler: a mock, or an output that it gives.
    `default` stands for each step that may send something and has no other. With `skip_waits` no time is waited for.
    Raises TypeError for an argument of another type, and as `giving` does.
    """
    if default is not None and not isinstance(default, Mock):
        raise TypeError(f"default must be a mock, such as giving(None), not {kind(default)}")
    return DryRun(
        mocks=_mocks("mocks", mocks),
        handlers=_mocks("handlers", handlers),
        default_mock=default,
        skip_waits=flag("skip_waits", skip_waits),
    )


def dry_run_message(given: DryRun | None) -> DryRun | None:
    """Return what makes an execution a dry run as it is sent. Raises TypeError for what is none."""
    if given is not None and not isinstance(given, DryRun):
        raise TypeError(f"dry_run must be what flowkeep.dry_run() gives, not {kind(given)}")
    return given


def _mocks(name: str, given: Mapping[str, Any] | None) -> dict[str, Mock]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a mapping of names to mocks or outputs, not {kind(given)}")
    return {
        text(f"a key of {name}", key): each if isinstance(each, Mock) else giving(each) for key, each in given.items()
    }
