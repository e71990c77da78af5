"""Whatever is sent, the answer says what is wrong with it, nothing is kept, and the server makes no mistake."""

import math
import re
from typing import Any

import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct, Value

import flowkeep
from flowkeep.payload import from_struct, to_struct
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from service.engine.payload import MAX_NODES
from tests.integration.bad_fields import broken
from tests.integration.calls import (
    BY_BULK,
    BY_TASK,
    HUGE,
    LISTS,
    MALFORMED,
    MAPS,
    METHODS,
    call,
    contents,
    deep,
    empty,
    field_bytes,
    name_of,
    nested,
    number,
    text,
    valid,
    varint,
)
from tests.integration.single_requests import ROWS
from tests.integration.stage import log, made, step

PREFIX_W, PREFIX_E = "/flowkeep.v1.WorkflowService/", "/flowkeep.v1.ExecutionService/"
CREATE, VALIDATE = PREFIX_W + "CreateWorkflow", PREFIX_W + "ValidateWorkflow"
EXECUTE, LIST = PREFIX_E + "Execute", PREFIX_E + "ListExecutions"
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "OUT_OF_RANGE"}
INNARDS = re.compile(
    r"Traceback|\.py\b|asyncpg|sqlalchemy|psycopg|SELECT |INSERT |UPDATE |<class|object at 0x|NoneType|OverflowError"
)


class World:
    """A server with a workflow that gives back its input, an execution of it that has ended, and the database."""

    def __init__(self, served, dsn, execution_id):
        self.served, self.dsn, self.execution_id = served, dsn, execution_id
        self.before = {}

    def valid(self, path):
        return valid(path, "w", self.execution_id, "echo")

    async def send(self, path, request):
        return await call(self.served.channel, path, request)

    async def refused(self, path, request, what, codes=REFUSALS):
        """The answer to a call that must be refused in proper form."""
        answer = await self.send(path, request)
        assert answer.code in codes, (path, what, answer)
        assert answer.reason, (path, what, answer)
        assert (answer.code == "INVALID_ARGUMENT") == (answer.reason in ("INVALID_FIELDS", "MALFORMED_REQUEST"))
        assert bool(answer.fields) == (answer.reason == "INVALID_FIELDS"), (path, what, answer)
        assert not INNARDS.search(answer.error.message + answer.details), (path, what, answer)
        return answer


@pytest_asyncio.fixture
async def world(served, database_dsn):
    await made(served.client, step("echo", "transform", expression="input"), name="w", output="${steps.echo.output}")
    await made(served.client, step("a"), name="other")
    done = await served.client.execute("w", {"x": 1}, request_id="used", wait=True)
    world = World(served, database_dsn, done.execution_id)
    world.before = await contents(database_dsn)
    return world


async def nothing_changed(world):
    assert await contents(world.dsn) == world.before


async def test_bytes_that_are_no_message(world):
    for path, method in METHODS.items():
        rows = dict(MALFORMED)
        if not method.input_type.fields:
            del rows["field 0"]  # protobuf lets it pass where there are no fields
        for field in method.input_type.fields:
            if field.type == field.TYPE_STRING:
                for text in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe2\x82"):
                    rows[f"{field.name} {text!r}"] = field_bytes(field.number, text)
            elif field.message_type and not field.is_repeated:
                rows[f"cut {field.name}"] = field_bytes(field.number, b"\x0a\x05")
                if field.message_type.full_name == "google.protobuf.Struct":
                    for depth in (50, 1_000, 20_000):
                        rows[f"{depth} maps in {field.name}"] = field_bytes(field.number, nested(depth, MAPS))
                elif field.name == "definition":
                    for depth in (60, 1_000, 40_000):
                        rows[f"{depth} lists as output"] = field_bytes(
                            field.number, field_bytes(12, nested(depth, LISTS))
                        )
        for what, raw in rows.items():
            answer = await world.refused(path, raw, what)
            assert answer.reason == "MALFORMED_REQUEST", (path, what, answer)
            assert method.input_type.full_name in answer.details
    await nothing_changed(world)


async def test_empty_requests_and_wrong_wire_types(world):
    answers_nothing = {"ListWorkflows", "ListExecutions", "ListHandlers", "ValidateWorkflow"}
    answers_nothing |= {
        "ListWorkers",
        "ListNotifications",
        "WatchNotifications",
        "ListTasks",
        "WatchTasks",
        "ListBulks",
    }
    required = {"CreateWorkflow": "definition.name", **dict.fromkeys(("Execute", "GetWorkflow"), "workflow")}
    for path, method in METHODS.items():
        wrong_types = b"".join(
            varint(field.number << 3 | (5 if field.type != field.TYPE_FIXED32 else 0)) + b"\1\0\0\0"
            for field in method.input_type.fields
        )
        for raw in (b"", wrong_types):  # a wrong wire type makes a field an unknown one
            if name_of(path) in answers_nothing:
                assert (await world.send(path, raw)).code == "OK", path
            else:
                answer = await world.refused(path, raw, "empty")
                assert required.get(name_of(path), answer.fields[0]) in answer.fields, answer
    await nothing_changed(world)


REFUSED_ON_WHAT_HAS_ENDED = (
    *("Cancel", "Pause", "Resume", "Terminate", "Retry", "SignalExecution", "SetBreakpoints", "EditStepInput"),
    "EditVariables",
    "DeleteWorkflow",
)


async def test_unknown_fields_are_ignored(world):
    unknown = field_bytes(9_999, b"\xff" * (1 << 20))
    for path in sorted(METHODS, key=lambda path: "Delete" in path):
        expected = "FAILED_PRECONDITION" if name_of(path) in REFUSED_ON_WHAT_HAS_ENDED else "OK"
        expected = "NOT_FOUND" if name_of(path) in (*BY_TASK, *BY_BULK) else expected
        assert (await world.send(path, world.valid(path).SerializeToString() + unknown)).code == expected, path


async def test_more_than_4_mib_is_too_much(world):
    for path in METHODS:
        answer = await world.send(path, field_bytes(9_999, b"\0" * (4 << 20)))
        assert answer.code == "RESOURCE_EXHAUSTED", (path, answer)
    await nothing_changed(world)


async def test_a_million_empty_entries_are_refused(world):
    for path, method in METHODS.items():
        for field in method.input_type.fields:
            if field.is_repeated and field.type == field.TYPE_STRING:
                raw = world.valid(path).SerializeToString() + field_bytes(field.number, b"") * 1_000_000
                assert field.name in (await world.refused(path, raw, field.name)).fields
    await nothing_changed(world)


# Fields that break a rule of the protos


def at_or_below(found, path):
    """Whether a violation is told of the field, of what it is in, or of what is in it."""
    plain = re.sub(r"\[0\]$", "", path)
    return any(each.startswith(plain) or path.startswith((each + ".", each + "[")) for each in found)


async def test_every_bounded_field_of_a_request(world):
    judged = set()
    for path, method in METHODS.items():
        for field, what, spoil in broken(method.input_type):
            if field.startswith(("definition.", "definitions[0].", "step.")):  # judged with all else of a definition
                continue
            request = world.valid(path)
            spoil(request)
            answer = await world.refused(path, request, (field, what), {"INVALID_ARGUMENT"})
            assert at_or_below(answer.fields, field), (path, field, what, answer)
            judged.add((name_of(path), field))
    assert len(judged) > 30
    await nothing_changed(world)


async def test_every_bounded_field_of_a_definition(world):
    judged = set()
    for field, what, spoil in broken(workflows_pb2.CreateWorkflowRequest.DESCRIPTOR):
        if not field.startswith("definition."):
            continue
        request = world.valid(CREATE)
        spoil(request)
        answer = await world.refused(CREATE, request, (field, what), {"INVALID_ARGUMENT"})
        assert at_or_below(answer.fields, field), (field, what, answer)
        found = await world.send(VALIDATE, workflows_pb2.ValidateWorkflowRequest(definition=request.definition))
        violations = workflows_pb2.ValidateWorkflowResponse.FromString(found.body).violations
        assert answer.error.violations == [(f"definition.{v.field}", v.description) for v in violations], field
        judged.add(field)
    bounded = {"name", "timeout", "tags", "labels", "ordering", "default_priority", "steps[0].id", "steps[0].assign"}
    assert {f"definition.{name}" for name in bounded} < judged
    assert len(judged) > 35
    await nothing_changed(world)


async def test_what_is_not_implemented_is_refused_even_when_it_is_empty(world):
    for field in ("quality_gate", "compensation", "cache"):
        request = world.valid(CREATE)
        getattr(request.definition.steps[0], field).SetInParent()
        assert (await world.refused(CREATE, request, field)).fields == [f"definition.steps[0].{field}"]
    await nothing_changed(world)


async def test_single_requests(world):
    assert {name_of(path) for path in METHODS} == ROWS.keys()
    for path in METHODS:
        for fields, expected in ROWS[name_of(path)]:
            answer = await world.refused(path, type(empty(path))(**fields), fields)
            assert answer.reason == expected or any(f.startswith(expected) for f in answer.fields), (fields, answer)
    for seq in (10**6, HUGE):
        request = executions_pb2.WatchExecutionRequest(execution_id=world.execution_id, after_seq=seq)
        assert (await world.refused(PREFIX_E + "WatchExecution", request, seq)).reason == "CURSOR_AHEAD"
    finished = await world.refused(PREFIX_E + "Cancel", world.valid(PREFIX_E + "Cancel"), "ended")
    assert finished.reason == "EXECUTION_FINISHED"
    no_step = executions_pb2.GetStepRequest(execution_id=world.execution_id, path="absent")
    absent = await world.refused(PREFIX_E + "GetStep", no_step, "no step")
    assert absent.reason == "STEP_NOT_FOUND"
    assert absent.error.metadata == {"execution_id": world.execution_id, "path": "absent"}
    await nothing_changed(world)


def page_token(page, path):
    kind: Any = GetMessageClass(METHODS[path].output_type)
    return kind.FromString(page.body).next_page_token


async def test_page_tokens_that_are_not_of_this_list(world):
    await world.served.client.execute("w", {}, wait=True)
    kinds = {path: type(empty(path)) for path in (PREFIX_W + "ListWorkflows", LIST)}
    pages = [await world.send(path, kind(page_size=1)) for path, kind in kinds.items()]
    tokens = [page_token(page, path) for page, path in zip(pages, kinds, strict=True)]
    for (path, kind), own, foreign in zip(kinds.items(), tokens, reversed(tokens), strict=True):
        assert (await world.send(path, kind(page_token=own))).code == "OK"
        changed = [own[:at] + ("B" if own[at] == "A" else "A") + own[at + 1 :] for at in range(0, len(own) - 1, 5)]
        for token in (foreign, own[:-4], own + "AAAA", own[::-1], *changed):
            assert (await world.refused(path, kind(page_token=token), token)).fields == ["page_token"]


# Payloads


FINE_PAYLOADS = {
    "24 maps": to_struct(deep(24)),
    "24 levels, lists": to_struct(deep(24, lambda inner: [inner])),
    "9,999 values": to_struct({"k": [None] * 9_998}),
    "256 KiB": text("x" * (256 * 1024 - 8)),
    "4-byte characters": text("😀" * 50_000),
    "2^53-1": number(2**53 - 1),
    "-(2^53-1)": number(1 - 2**53),
    "-0": number(-0.0),
    "smallest": number(5e-324),
    "0.1": number(0.1),
    "marks": text("\ufeff\u202ee\u0301é\u2028\x01\x7f", key="\ufeffé e\u0301\u202e"),
    "empty key": number(1, ""),
    "empty": to_struct({"a": {}, "b": [], "c": "", "d": None}),
    "nothing set": Struct(fields={"k": Value()}),
    "no template": text("${input.x} $${"),
    "long key": text("v", key="k" * 100_000),
}
BAD_PAYLOADS = {
    **{f"{n} maps": to_struct(deep(n)) for n in (25, 32)},
    "25 levels, lists": to_struct(deep(25, lambda inner: [inner])),
    "too many values": to_struct({"k": [None] * MAX_NODES}),
    "too many keys": to_struct({f"k{n}": n for n in range(MAX_NODES)}),
    "256 KiB and 1": text("x" * (256 * 1024 - 7)),
    "256 KiB of escapes": text("\x01" * 100_000),
    **{str(n): number(n) for n in (math.nan, math.inf, -math.inf, 2.0**53, -(2.0**53), 2.0**63)},
    "NUL": text("a\0b"),
    "NUL in a key": text("a", key="a\0b"),
    "long path": number(math.nan, "😀" * 10_000),
    "many": Struct(fields={f"😀{n}": Value(number_value=math.nan) for n in range(200)}),
}


async def test_payloads_that_are_refused(world):
    for what, struct in BAD_PAYLOADS.items():
        requests = {path: world.valid(path) for path in (EXECUTE, CREATE, PREFIX_W + "UpdateWorkflow")}
        requests[EXECUTE].input.CopyFrom(struct)
        requests[CREATE].definition.steps[0].params.CopyFrom(struct)
        requests[PREFIX_W + "UpdateWorkflow"].definition.input_schema.CopyFrom(struct)
        requests[VALIDATE] = world.valid(CREATE)
        requests[VALIDATE].definition.output.struct_value.CopyFrom(struct)
        for path, request in requests.items():
            place = "input" if path == EXECUTE else "definition"
            answer = await world.refused(CREATE if path == VALIDATE else path, request, what, {"INVALID_ARGUMENT"})
            assert answer.fields[0].startswith(place), (path, what, answer)
    for depth in (33, 50, 60):  # beyond what protobuf itself can read in a request, or store and send back
        for value in (nested(depth, MAPS), field_bytes(1, field_bytes(2, nested(depth, LISTS)))):
            await world.refused(EXECUTE, field_bytes(1, b"w") + field_bytes(3, value), depth, {"INVALID_ARGUMENT"})
    await nothing_changed(world)


async def test_an_input_that_does_not_meet_its_schema(world):
    enum = {"type": "object", "properties": {"k": {"enum": ["a", "b"]}}, "additionalProperties": False}
    name = await made(world.served.client, step("a"), input_schema=enum)
    world.before = await contents(world.dsn)
    for struct in (
        text("😀" * 50_000),
        text("v", key="😀" * 50_000),
        to_struct({f"😀{n}" * 9: 1 for n in range(5_000)}),
    ):
        request = executions_pb2.ExecuteRequest(workflow=name, input=struct)
        assert (await world.refused(EXECUTE, request, len(str(struct)))).fields[0].startswith("input")
    await nothing_changed(world)


async def listed_whole(world):
    """All executions, as full pages of the list show them."""
    request, found = executions_pb2.ListExecutionsRequest(view=EXECUTION_VIEW_FULL), []
    while True:
        page = await world.served.executions.ListExecutions(request)
        found += page.executions
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def test_payloads_that_are_accepted_can_be_read_back(world):
    client, sent = world.served.client, {}
    for what, struct in FINE_PAYLOADS.items():
        request = executions_pb2.ExecuteRequest(workflow="w", input=struct, wait=True)
        done = (await world.served.executions.Execute(request)).execution
        assert done.state == flowkeep.Execution.STATE_COMPLETED, (what, done.failure)
        sent[done.execution_id] = from_struct(struct)
        events = await log(client, done.execution_id)
        got = await client.get_execution(done.execution_id)
        for shown in (got.input, got.result.struct_value, events[-1].finished.result.struct_value):
            assert from_struct(shown) == sent[done.execution_id], what
    listed = {each.execution_id: from_struct(each.input) for each in await listed_whole(world)}
    assert {key: listed[key] for key in sent} == sent


async def test_large_things_can_be_listed_whole(world):
    client = world.served.client
    for _ in range(12):
        await client.execute("w", {"k": "x" * 200_000}, wait=True)
    for _ in range(24):
        await made(client, step("a"), output="o" * 200_000)
    assert len({each.execution_id for each in await listed_whole(world)}) == 13
    assert len([each async for each in client.list_workflows(full=True, page_size=200)]) == 26
