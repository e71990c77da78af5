"""FAULTS H4: requests whose few bytes stand for many messages."""

from tests.hostile import floods
from tests.hostile.attacked import MIB, Attacked, token
from tests.hostile.shapes import alike, member
from tests.integration.calls import field_bytes

LARGEST = 4 * MIB - 100
WORKFLOWS, EXECUTIONS = "/flowkeep.v1.WorkflowService/", "/flowkeep.v1.ExecutionService/"
TWO_BYTES, MANY = LARGEST // 2, 340_000

DENSE = {
    "steps of a definition": (WORKFLOWS + "CreateWorkflow", field_bytes(1, b"\x22\0" * TWO_BYTES)),
    "steps of 8 definitions": (WORKFLOWS + "ApplyWorkflows", field_bytes(1, b"\x22\0" * (TWO_BYTES // 8)) * 8),
    "steps of 90 definitions": (WORKFLOWS + "ApplyWorkflows", field_bytes(1, b"\x22\0" * (TWO_BYTES // 91)) * 90),
    "definitions": (WORKFLOWS + "ApplyWorkflows", b"\x0a\0" * TWO_BYTES),
    "retry policies": (WORKFLOWS + "ValidateWorkflow", field_bytes(1, b"\x22\2\x42\0" * (TWO_BYTES // 2))),
    "definitions that are one": (WORKFLOWS + "ValidateWorkflow", field_bytes(1, b"\x22\0" * 100_000) * 20),
    "tags": (EXECUTIONS + "Execute", b"\x2a\0" * TWO_BYTES),
    "labels": (EXECUTIONS + "Execute", b"".join(b"\x32\x08\x0a\x06%06d" % n for n in range(MANY))),
    "a label": (EXECUTIONS + "Execute", b"\x32\0" * TWO_BYTES),
    "members": (
        EXECUTIONS + "Execute",
        field_bytes(3, b"".join(b"\x0a\x0a\x0a\x06%06d\x12\0" % n for n in range(MANY))),
    ),
    "a member": (EXECUTIONS + "Execute", field_bytes(3, b"\x0a\0" * TWO_BYTES)),
    "items": (EXECUTIONS + "Execute", field_bytes(3, member("k", alike(2_000_000, b"")))),
    "states": (EXECUTIONS + "ListExecutions", field_bytes(3, field_bytes(2, b"\1" * (LARGEST - 10)))),
    "some states": (EXECUTIONS + "ListExecutions", field_bytes(3, field_bytes(2, b"\1" * 524_000))),
    "some tags": (EXECUTIONS + "ListExecutions", field_bytes(3, b"\x22\0" * 262_000)),
    "times": (EXECUTIONS + "ListExecutions", field_bytes(3, b"\x3a\0" * (TWO_BYTES - 10))),
    "filters": (EXECUTIONS + "ListExecutions", b"\x1a\0" * TWO_BYTES),
    "states of steps": (EXECUTIONS + "ListSteps", field_bytes(4, b"\1" * LARGEST)),
    "unknown numbers": (EXECUTIONS + "GetExecution", b"\x98\6\0" * (LARGEST // 3)),
    "groups": (EXECUTIONS + "GetExecution", b"\x9b\6\x9c\6" * (LARGEST // 4)),
}
"""What there is so much of, and the request."""


async def test_a_request_of_very_many_messages_is_refused_before_it_is_read(attacked: Attacked):
    for what, (path, raw) in DENSE.items():
        async with attacked.case(what):
            answer = await attacked.send(path, raw)
            assert answer.code == "INVALID_ARGUMENT", str(answer)
            assert (await attacked.told())["grown"] < 100 * MIB


async def test_eight_of_them_at_once_hold_nobody_up(attacked: Attacked):
    path, raw = DENSE["steps of 90 definitions"]
    async with attacked.beside("8 dense requests") as seen:
        for _ in seen.rounds():
            came = await attacked.attacker.run(floods.same_calls, attacked.target, path, token(), raw, 8)
            assert came == {"INVALID_ARGUMENT INVALID_FIELDS"}
