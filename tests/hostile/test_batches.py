"""Batches that are as large as they may be, and larger: they hold up nobody, and each request has its outcome."""

from collections import Counter

import pytest
from google.protobuf.duration_pb2 import Duration

from flowkeep.errors import from_status
from flowkeep.payload import to_struct
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from tests.hostile.attacked import ECHO, MIB, Attacked
from tests.hostile.cases import Case, each
from tests.integration.calls import field_bytes
from tests.integration.stage import made, step

BATCH = "/flowkeep.v1.ExecutionService/BatchExecute"
MANY = 1_000
DELAY = Duration(seconds=3_600)
SCHEMA = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,40}$"}}},
}
SLOW = {"type": "object", "properties": {"items": {"items": {"not": {"pattern": "^(a|b)*a(a|b){80}z"}}}}}
"""A check of these takes milliseconds."""


def batch(*requests: pb.ExecuteRequest) -> bytes:
    return b"".join(field_bytes(1, each.SerializeToString()) for each in requests)


def text(size: int) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(workflow=ECHO, input=to_struct({"text": "x" * size}), start_delay=DELAY)


def values(count: int) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(workflow=ECHO, input=to_struct({"list": [0] * count}), start_delay=DELAY)


BATCHES = (
    Case("1,000 that run", [pb.ExecuteRequest(workflow=ECHO, input=to_struct({"n": 1}))] * MANY, {"response": MANY}),
    Case("1,000 of 4 KB each", [text(4_000)] * MANY, {"response": MANY}),
    Case("15 of 260 KB each", [text(260_000)] * 15, {"response": 15}),
    Case("1,000 of 95 values each", [values(95)] * MANY, {"response": MANY}),
    Case("more values than there may be", [values(2_000)] * 150, {"response": 49, "error": 101}),
    Case("1,000 that are refused", [pb.ExecuteRequest(workflow="x" * 129, tags=["a", "a"])] * MANY, {"error": MANY}),
    Case("1,000 names of no workflow", [execute_request(f"absent{n}") for n in range(MANY)], {"error": MANY}),
    Case(
        "1,000 with the same request id",
        [pb.ExecuteRequest(workflow=ECHO, request_id="same", start_delay=DELAY)] * MANY,
        {"response": MANY},
    ),
)


@each(BATCHES)
async def test_a_batch_holds_up_nobody(attacked: Attacked, case: Case):
    async with attacked.case(case.name):
        answer = await attacked.send(BATCH, batch(*case.given))
        assert answer.code == "OK", str(answer)
        results = pb.BatchExecuteResponse.FromString(answer.body).results
        assert Counter(result.WhichOneof("outcome") for result in results) == case.right
        assert len(answer.body) < 4 * MIB
        assert all(from_status(result.error).reason for result in results if result.HasField("error"))


@each(
    [
        Case("1,000 usual ones", (SCHEMA, {"items": ["abcdefgh"] * 90}, MANY), "response"),
        Case("100 that nearly take too long", (SLOW, {"items": ["ab" * 40] * 30}, 100), "response"),
        Case("100 that are wrong in each value", (SCHEMA, {"items": [0] * 900}, 100), "error"),
    ]
)
async def test_inputs_that_take_long_to_check_hold_up_nobody(attacked: Attacked, case: Case):
    schema, given, count = case.given
    async with attacked.client() as client:
        name = await made(client, step("a", "transform", value=1), input_schema=schema)
    request = execute_request(name, given)
    async with attacked.case(case.name):
        answer = await attacked.send(BATCH, batch(*[request] * count))
        assert answer.code == "OK", str(answer)
        results = pb.BatchExecuteResponse.FromString(answer.body).results
        assert [result.WhichOneof("outcome") for result in results] == [case.right] * count, str(results[0])


@pytest.mark.parametrize(
    "raw", [field_bytes(1, b"") * (2 * MIB - 1), b"\x10\0" * (2 * MIB - 1)], ids=["empty", "no field"]
)
async def test_bytes_that_say_little_take_little(attacked: Attacked, raw: bytes):
    async with attacked.case(f"{len(raw)} bytes"):
        assert (await attacked.send(BATCH, raw)).code == "INVALID_ARGUMENT"
