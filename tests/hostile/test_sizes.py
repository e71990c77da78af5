"""FAULTS H1: every bounded field at its limit, around it, and far beyond."""

import re
from typing import Any

import pytest

from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from tests.hostile.attacked import ECHO, MIB, Attacked
from tests.hostile.cases import outcome
from tests.hostile.sizes import Bounded, bounded, unbounded
from tests.integration.calls import METHODS, NOBODYS, field_bytes, name_of, valid

LARGEST_REQUEST = 4 * MIB
MANY = 100_000
"""Entries, where the limit is one of entries: far more than any rule allows, and less than 4 MiB."""


def request_with(path: str, field: Bounded, size: int) -> Any:
    """A request whose field has this size, and with which nothing can be done."""
    request = valid(path, ECHO if name_of(path) == "UpdateWorkflow" else "absent", NOBODYS)
    for definition in (request.definition,) if hasattr(request, "definition") else getattr(request, "definitions", ()):
        definition.max_concurrent_executions = 1  # refused, so that none is kept
    field.fill(request, size)
    return request


def violations(path: str, answer: Any) -> list[tuple[str, str]]:
    """What is wrong with a request, by field."""
    if name_of(path) != "ValidateWorkflow" or answer.code != "OK":
        return list(answer.error.violations)
    found = workflows_pb2.ValidateWorkflowResponse.FromString(answer.body).violations
    return [(f"definition.{each.field}", each.description) for each in found]


def is_too_large(path: str, answer: Any, field: Bounded) -> bool:
    """Whether the answer names the field, and the limit that it is over."""
    plain, told = field.path.removesuffix("[0]"), "at most|between|less than" if field.is_number else str(field.limit)
    return any(
        where.startswith(plain) and re.search(told, description.replace(",", ""))
        for where, description in violations(path, answer)
    )


def is_refused_anyway(path: str, answer: Any, field: Bounded) -> bool:
    """Whether the field, or what it is in, is refused whatever its size, for which nobody asks then."""
    return any(
        field.path.startswith(where) and re.search("not implemented|keeps its name", description)
        for where, description in violations(path, answer)
    )


# What a worker says is judged as it goes on: what is too large of a result is the failure of its attempt, not the end
# of the stream (tests/integration/test_workers.py).
AT_ONCE = [path for path in METHODS if name_of(path) != "Work"]


@pytest.mark.parametrize("path", AT_ONCE, ids=name_of)
def test_every_field_of_a_request_has_a_bound(path: str):
    assert list(unbounded(METHODS[path].input_type)) == []


@pytest.mark.parametrize("path", AT_ONCE, ids=name_of)
async def test_a_field_may_be_as_large_as_its_limit_and_no_larger(attacked: Attacked, path: str):
    for field in bounded(METHODS[path].input_type):
        for size in (field.limit - 1, field.limit, field.limit + 1):
            async with attacked.case(f"{field.path} of {size}"):
                answer = await attacked.send(path, request_with(path, field, size))
                expected = size > field.limit and not is_refused_anyway(path, answer, field)
                assert is_too_large(path, answer, field) == expected, str(answer)


@pytest.mark.parametrize("path", METHODS, ids=name_of)
async def test_what_is_far_too_large_is_refused_at_once(attacked: Attacked, path: str):
    for field in bounded(METHODS[path].input_type):
        if field.is_number or (field.path.startswith("definition") and name_of(path) != "ValidateWorkflow"):
            continue
        request = request_with(path, field, MANY)
        if request.ByteSize() < 2 * MANY:  # a text
            request = request_with(path, field, LARGEST_REQUEST - 1_000)
        async with attacked.case(f"{field.path} in {request.ByteSize()} bytes"):
            answer = await attacked.send(path, request)
            assert violations(path, answer), str(answer)


@pytest.mark.parametrize("name", ["ApplyWorkflows", "Execute", "WatchExecution"])
async def test_a_request_of_64_mib_is_refused_as_such(attacked: Attacked, name: str):
    (path,) = (each for each in METHODS if name_of(each) == name)
    assert outcome(await attacked.send(path, field_bytes(9_999, bytes(64 * MIB)))) == "RESOURCE_EXHAUSTED"
