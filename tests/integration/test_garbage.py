"""Whatever is sent to an RPC, the answer says what is wrong with it, nothing is kept, and the server makes no mistake."""

import math
import re

import pytest
import pytest_asyncio
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

import flowkeep
from buf.validate import validate_pb2
from flowkeep.payload import from_struct, to_struct
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from tests.integration.calls import METHODS, NOBODYS, call, contents, empty, name_of, valid
from tests.integration.stage import log, made, step

PREFIX_W, PREFIX_E = "/flowkeep.v1.WorkflowService/", "/flowkeep.v1.ExecutionService/"
CREATE, VALIDATE = PREFIX_W + "CreateWorkflow", PREFIX_W + "ValidateWorkflow"
EXECUTE, LIST = PREFIX_E + "Execute", PREFIX_E + "ListExecutions"
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "OUT_OF_RANGE"}
INNARDS = re.compile(
    r"Traceback|\.py\b|asyncpg|sqlalchemy|psycopg|SELECT |INSERT |UPDATE |<class|object at 0x|NoneType|OverflowError"
)
HUGE = 2**63 - 1


class World:
    """A server with a workflow that gives back its input, an execution of it that has ended, and the database."""

    def __init__(self, served, dsn, execution_id):
        self.served, self.dsn, self.execution_id = served, dsn, execution_id

    def valid(self, path):
        return valid(path, "w", self.execution_id)

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


# Bytes that are no message, or hardly one


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def nested(depth, tags):
    """Messages inside each other, from the outermost tag: `tags` in turn, so many times."""
    parts, size = [], 0
    for _ in range(depth):
        for tag in reversed(tags):
            parts.append(bytes([tag]) + varint(size))
            size += len(parts[-1])
    return b"".join(reversed(parts))


def field_bytes(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


MAPS = (0x0A, 0x12, 0x2A)  # Struct.fields, its entry's value, Value.struct_value
LISTS = (0x32, 0x0A)  # Value.list_value, ListValue.values
MALFORMED = {
    "truncated varint": b"\x08\xff",
    "varint of 11 bytes": b"\x08" + b"\xff" * 11,
    "truncated length": b"\x0a\x05ab",
    "negative length": b"\x0a" + b"\xff" * 9 + b"\x01",
    "end of no group": b"\x0c",
    "group without end": b"\x0b",
    "field 0": b"\x00\x00",
    "wire type 7": b"\x0f\x00",
    "noise": bytes(range(255, 0, -1)),
    **{f"{n} groups deep": b"\xa3\x06" * n + b"\xa4\x06" * n for n in (1_000, 100_000)},
}


async def test_bytes_that_are_no_message(world):
    for path, method in METHODS.items():
        rows = dict(MALFORMED)
        for field in method.input_type.fields:
            if field.type == field.TYPE_STRING:
                for text in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe2\x82"):
                    rows[f"{field.name} {text!r}"] = field_bytes(field.number, text)
            elif field.message_type and not field.is_repeated:
                rows[f"cut {field.name}"] = field_bytes(field.number, b"\x0a\x05")
                if field.message_type.full_name == "google.protobuf.Struct":
                    for depth in (50, 1_000, 100_000):
                        rows[f"{depth} maps in {field.name}"] = field_bytes(field.number, nested(depth, MAPS))
                elif field.name == "definition":
                    for depth in (60, 1_000, 100_000):
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


async def test_unknown_fields_are_ignored(world):
    unknown = field_bytes(9_999, b"\xff" * (1 << 20))
    for path in sorted(METHODS, key=lambda path: "Delete" in path):
        expected = "FAILED_PRECONDITION" if name_of(path) == "Cancel" else "OK"
        assert (await world.send(path, world.valid(path).SerializeToString() + unknown)).code == expected, path


async def test_more_than_4_mib_is_too_much(world):
    for path in METHODS:
        answer = await world.send(path, field_bytes(9_999, b"\0" * (4 << 20)))
        assert answer.code == "RESOURCE_EXHAUSTED", (path, answer)
    await nothing_changed(world)


async def test_a_million_empty_entries_are_refused(world):
    for path, method in METHODS.items():
        for field in method.input_type.fields:
            if field.is_repeated:
                raw = world.valid(path).SerializeToString() + (varint(field.number << 3 | 2) + b"\0") * 1_000_000
                if field.type == FieldDescriptor.TYPE_ENUM or field.message_type:
                    continue  # an empty packed list, and one entry with the key "", again and again
                assert field.name in (await world.refused(path, raw, field.name)).fields
    await nothing_changed(world)


# Fields that break a rule of the protos


def bad_strings(rules):
    if rules.HasField("min_len"):
        yield ""
    if rules.HasField("max_len"):
        yield "x" * (rules.max_len + 1)
        yield "é" * (rules.max_len + 1)
    if rules.HasField("pattern"):
        yield from ("1 a", "é", "a\n", "a b")
    if rules.HasField("uuid"):
        yield from ("x", NOBODYS[:-1], NOBODYS + "0", "{" + NOBODYS + "}", "' OR 1=1 --")
    yield "a\0b"


def bad_numbers(rules, step=1):
    if rules.HasField("gte"):
        yield rules.gte - step
    if rules.HasField("lte"):
        yield rules.lte + step
    if step != 1:
        yield from (math.nan, math.inf, -math.inf)
    else:
        yield -(2**31)


def bad_durations(rules):
    yield from (Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=HUGE), Duration(seconds=-HUGE))
    yield from (Duration(seconds=315_576_000_001), Duration(seconds=rules.lte.seconds, nanos=1))
    if rules.HasField("gt"):
        yield Duration()


def bad_values(field, rules):
    """Values of one entry of a field that break its rules."""
    kind = rules.WhichOneof("type")
    if field.type == field.TYPE_ENUM:
        yield from (99, -1, *rules.enum.not_in)
    elif kind == "string" or field.type == field.TYPE_STRING:
        yield from bad_strings(rules.string)
    elif kind in ("int32", "int64"):
        yield from bad_numbers(getattr(rules, kind))
    elif kind == "double":
        yield from bad_numbers(rules.double, 0.001)
    elif kind == "duration":
        yield from bad_durations(rules.duration)
    elif rules.cel:
        assert field.name == "backoff_coefficient"
        yield from (0.99, -1.0, 100.01, math.nan, math.inf)


def broken(descriptor):
    """Yield the path of each bounded field, what is put there, and how: a function that spoils a message."""
    for field in descriptor.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        message, name = field.message_type, field.name
        if message and message.GetOptions().map_entry:
            keys, values = message.fields_by_name["key"], message.fields_by_name["value"]
            for key in bad_values(keys, rules.map.keys):
                yield name, key, lambda m, n=name, k=key: getattr(m, n).update({k: "1"})
            for value in bad_values(values, rules.map.values):
                yield name, value, lambda m, n=name, v=value: getattr(m, n).update({"k": v})
            many = {f"k{n}": "1" for n in range(rules.map.max_pairs + 1)}
            yield name, "too many", lambda m, n=name, v=many: getattr(m, n).update(v)
        elif field.is_repeated and message:
            for path, what, spoil in broken(message):
                yield f"{name}[0].{path}", what, lambda m, n=name, s=spoil: s(first(getattr(m, n)))
            many = [GetMessage(message)] * (rules.repeated.max_items + 1)
            yield name, "too many", lambda m, n=name, v=many: getattr(m, n).extend(v)
        elif field.is_repeated:
            for value in bad_values(field, rules.repeated.items):
                yield name, value, lambda m, n=name, v=value: getattr(m, n).append(v)
            is_enum = field.type == field.TYPE_ENUM
            many = [1 if is_enum else f"t{n}" for n in range(rules.repeated.max_items + 1)]
            yield name, "too many", lambda m, n=name, v=many: getattr(m, n).extend(v)
            if rules.repeated.unique:
                twice = [1, 1] if is_enum else ["t", "t"]
                yield name, "twice", lambda m, n=name, v=twice: getattr(m, n).extend(v)
        elif message and message.file.package == "flowkeep.v1":
            for path, what, spoil in broken(message):
                yield f"{name}.{path}", what, lambda m, n=name, s=spoil: s(getattr(m, n))
        else:
            for value in bad_values(field, rules):
                yield name, value, lambda m, n=name, v=value: put(m, n, v)


def GetMessage(descriptor):
    return empty_of(descriptor)


def first(entries):
    return entries[0] if entries else entries.add()


def put(message, name, value):
    if isinstance(value, Duration):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
