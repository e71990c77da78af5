"""What is sound at a glance breaks no rule of the validator, and what most callers send is sound at a glance."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from flowkeep.payload import to_struct
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1 import workflow_service_pb2 as workflows
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from service.api.requests import Judge, bare_violations, violations
from service.api.rules import glance

UUID_TEXT = str(UUID(int=7))
lengths = st.sampled_from([0, 1, 2, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 8192, 8193])
texts = st.one_of(
    st.builds(lambda letter, size: letter * size, st.sampled_from("aé𝄞"), lengths),
    st.sampled_from(
        [UUID_TEXT, UUID_TEXT.upper(), UUID_TEXT + "\n", UUID_TEXT.replace("-", ""), "{" + UUID_TEXT + "}"]
    ),
)
numbers = st.sampled_from([-(2**31), -101, -100, -1, 0, 1, 100, 101, 200, 201, 2**31 - 1])
spans = st.builds(
    Duration,
    seconds=st.sampled_from([-1, 0, 1, 31_535_999, 31_536_000, 31_536_001, 315_360_000, 315_360_001]),
    nanos=st.sampled_from([0, 1, 999_999_999]),
)
some = st.lists(texts | st.sampled_from([str(n) for n in range(40)]), max_size=3)
many = st.integers(30, 34).map(lambda count: [str(number) for number in range(count)])
REQUESTS: dict[type[Message], dict[str, st.SearchStrategy[Any]]] = {
    pb.ExecuteRequest: {
        "workflow": texts,
        "revision": numbers,
        "request_id": texts,
        "tags": some | many,
        "labels": st.dictionaries(texts, texts, max_size=2) | many.map(lambda keys: dict.fromkeys(keys, "")),
        "priority": numbers,
        "correlation_id": texts,
        "start_delay": spans,
        "timeout": spans,
        "wait": st.booleans(),
        "view": st.sampled_from([0, 1, 2, 3, 99]),
    },
    pb.GetExecutionRequest: {"execution_id": texts, "view": st.sampled_from([0, 1, 2, 99]), "at_seq": numbers},
    pb.ListExecutionsRequest: {
        "page_size": numbers,
        "page_token": texts,
        "order": st.sampled_from([0, 1, 3, 4]),
        "filter": st.sampled_from([pb.ExecutionFilter(), pb.ExecutionFilter(owner="x" * 257)]),
    },
    pb.ListStepsRequest: {"execution_id": texts, "states": st.lists(st.sampled_from([0, 1, 2]), max_size=3)},
    pb.GetStepRequest: {"execution_id": texts, "path": texts},
    pb.CancelRequest: {"execution_id": texts, "reason": texts, "request_id": texts},
    pb.WatchExecutionRequest: {"execution_id": texts, "after_seq": numbers, "snapshot": st.booleans()},
    workflows.GetWorkflowRequest: {"workflow": texts, "revision": numbers},
    workflows.ListWorkflowsRequest: {"page_size": numbers, "page_token": texts, "name_prefix": texts},
    workflows.DeleteWorkflowRequest: {"workflow": texts, "etag": texts, "request_id": texts},
}


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_what_is_sound_at_a_glance_breaks_no_rule(kind: type[Message], data: st.DataObject):
    look = glance(kind.DESCRIPTOR)
    assert look is not None
    request = kind(**data.draw(st.fixed_dictionaries({}, optional=REQUESTS[kind])))
    if look(request):
        assert bare_violations(request) == []


@pytest.mark.parametrize(
    "request_",
    [
        pb.ExecuteRequest(workflow="w", input=to_struct({"a": 1}), request_id=UUID_TEXT, wait=True),
        pb.ExecuteRequest(workflow="x" * 128, tags=["a", "b"], labels={"k": "", "l": "v"}, priority=-100),
        pb.ExecuteRequest(workflow="w", start_delay=Duration(), timeout=Duration(nanos=1), view=EXECUTION_VIEW_FULL),
        pb.ExecuteRequest(workflow="w", start_delay=Duration(seconds=31_536_000)),
        pb.GetExecutionRequest(execution_id=UUID_TEXT.upper(), at_seq=2**40),
        pb.ListExecutionsRequest(page_size=2**31 - 1, page_token="x" * 1024),
        pb.WatchExecutionRequest(execution_id=UUID_TEXT, after_seq=3, snapshot=True),
        pb.CancelRequest(execution_id=UUID_TEXT, reason="é" * 1024),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_what_most_send_is_sound_at_a_glance(request_: Message):
    look = glance(request_.DESCRIPTOR)
    assert look is not None
    assert look(request_)
    assert bare_violations(request_) == []
    assert await violations(request_) == ()


@pytest.mark.parametrize(
    "request_",
    [
        pb.ExecuteRequest(workflow="a\0"),
        pb.ExecuteRequest(workflow="w", tags=["\0"]),
        pb.ExecuteRequest(workflow="w", labels={"a": "\0"}),
        pb.ExecuteRequest(workflow="w", labels={"\0": ""}),
        pb.CancelRequest(execution_id=UUID_TEXT, request_id="\0"),
        pb.GetExecutionRequest(execution_id=""),
        pb.ExecuteRequest(workflow="w", start_delay=Duration(seconds=1, nanos=-1)),
    ],
)
async def test_what_cannot_be_kept_is_not_sound(request_: Message):
    assert len(await violations(request_)) == 1
    assert len(await Judge().violations(request_)) == 1


async def test_the_values_of_all_requests_of_a_judge_count_together():
    judge, request = Judge(), pb.ExecuteRequest(workflow="w", input=to_struct({str(n): True for n in range(900)}))
    refused = [bool(await judge.violations(request)) for _ in range(115)]
    assert refused == [False] * 111 + [True] * 4
