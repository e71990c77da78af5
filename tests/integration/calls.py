"""Each RPC as its descriptor tells it, with a valid request; calls by raw bytes; and what is in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct, Value
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import flowkeep
from flowkeep.definition import definition
from flowkeep.errors import from_rpc_error, from_status
from flowkeep.v1 import bulk_service_pb2 as bulks_pb2
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import notification_service_pb2 as notifications_pb2
from flowkeep.v1 import task_service_pb2 as tasks_pb2
from flowkeep.v1 import worker_service_pb2 as workers_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from tests.integration.stage import wait_step
from tests.patience import PATIENCE

METHODS: Mapping[str, Any] = {
    f"/{service.full_name}/{method.name}": method
    for file in (workflows_pb2, executions_pb2, notifications_pb2, tasks_pb2, workers_pb2, bulks_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""What the server serves, by path."""

RULES_OPTION = 1159
"""Number of the option `buf.validate.field`."""

NOBODYS = "01930000-0000-7000-8000-000000000000"

BY_WORKFLOW = (
    *("GetWorkflow", "UpdateWorkflow", "DeleteWorkflow", "PauseWorkflow", "ResumeWorkflow"),
    "SetWorkflowBreakpoints",
    *("Execute", "ExplainQueue", "SignalWithStart"),
)
BY_EXECUTION = (
    "GetExecution",
    "ListSteps",
    "GetStep",
    "CompareExecutions",
    "ExplainExecution",
    "Pause",
    "Resume",
    "SetBreakpoints",
    "EditStepInput",
    "EditVariables",
    "Cancel",
    "Terminate",
    "Retry",
    "ForkExecution",
    "SignalExecution",
    "TestStep",
    "WatchExecution",
)
BY_TASK = ("GetTask", "ClaimTask", "ReleaseTask", "CompleteTask", "DelegateTask", "CommentTask")
BY_BULK = ("GetBulk", "WatchBulk", "StopBulk", "ListBulkResults")
BY_NEITHER = (
    "CreateWorkflow",
    "ListWorkflows",
    "ApplyWorkflows",
    "ValidateWorkflow",
    "ListHandlers",
    "ListExecutions",
    "BatchExecute",
    "ListNotifications",
    "MarkNotificationsRead",
    "WatchNotifications",
    "ListTasks",
    "WatchTasks",
    "Work",
    "ListWorkers",
    "StartBulk",
    "ListBulks",
)


def name_of(path: str) -> str:
    """`GetWorkflow` of `/flowkeep.v1.WorkflowService/GetWorkflow`."""
    return path.rpartition("/")[2]


def empty(path: str) -> Any:
    """An empty request of a method."""
    return GetMessageClass(METHODS[path].input_type)()


def valid(path: str, workflow: str, execution_id: str, step_path: str = "pause") -> Any:
    """A request with which the method does its work on these."""
    request = empty(path)
    fields = {field.name for field in request.DESCRIPTOR.fields}
    if "workflow" in fields and "outputs" not in fields:  # a step by itself is of what the execution runs
        request.workflow = workflow
    if "execution_id" in fields:
        request.execution_id = execution_id
    if "other_execution_id" in fields:
        request.other_execution_id = execution_id
    if "path" in fields:
        request.path = step_path
    if {"execution_id", "path", "input"} <= fields:
        request.input.SetInParent()
    if {"execution_id", "vars"} <= fields and "outputs" not in fields:
        request.vars["n"] = 1
    if {"execution_id", "payload"} <= fields:
        request.name = "paid"
    if "start" in fields:
        request.start.workflow, request.start.correlation_id, request.name = workflow, "A-17", "paid"
    if "task_id" in fields:
        request.task_id = NOBODYS
    if "bulk_id" in fields:
        request.bulk_id = NOBODYS
    if "action" in fields:
        request.action.cancel.SetInParent()
        request.filter.workflow = workflow
        request.validate_only = True
    if "assignee" in fields:
        request.assignee = "bob"
    if "text" in fields:
        request.text = "fine"
    if "definition" in fields and "outputs" not in fields:
        name = "" if "workflow" in fields else "fresh"
        request.definition.CopyFrom(definition({"name": name, "steps": [wait_step()]}))
    if "definitions" in fields:
        request.definitions.append(definition({"name": "applied", "steps": [wait_step()]}))
    if "register" in fields:
        worker = workers_pb2.Register(worker_id=NOBODYS, capacity=1)
        worker.handlers.add(name="of_worker")
        request.register.CopyFrom(worker)
    if "requests" in fields:
        request.requests.add(workflow=workflow)
    if "up_to_seq" in fields:
        request.up_to_seq = 1
    return request


@dataclass(frozen=True)
class Answer:
    """What came of a call: for a stream, its first message."""

    code: str
    body: bytes
    error: flowkeep.FlowkeepError
    details: str

    @property
    def reason(self) -> str:
        return self.error.reason

    @property
    def fields(self) -> list[str]:
        return [violation.field for violation in self.error.violations]

    def without(self, *hidden: str) -> tuple[str, ...]:
        """The whole answer as text, and in it these ids as one mark."""
        text: tuple[str, ...] = (self.code, self.error.message, self.details, repr(self.body))
        for each in hidden:
            text = tuple(part.replace(each, "<id>") for part in text)
        return text


def _readable(status: Any) -> str:
    """The details, unpacked: as they are packed they tell the lengths of ids."""
    found = []
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        found.append(str(kind.FromString(packed.value)))
    return "".join(found)


_FINE = flowkeep.FlowkeepError(grpc.StatusCode.OK, "", "")


async def call(
    channel: grpc.aio.Channel, path: str, request: Message | bytes, metadata: Sequence[tuple[str, str]] = ()
) -> Answer:
    """Send bytes as they are, and take whatever comes."""
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    options: Any = {"metadata": metadata, "timeout": PATIENCE}
    try:
        if METHODS[path].server_streaming:
            watch: Any = channel.unary_stream(path)
            stream = watch(raw, **options)
            body = await stream.read()
            stream.cancel()
        else:
            unary: Any = channel.unary_unary(path)
            body = await unary(raw, **options)
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        return Answer(error.code().name, b"", from_rpc_error(error), _readable(status) if status else "")
    body = body if isinstance(body, bytes) else b""
    return _sole_error(path, body) or Answer("OK", body, _FINE, "")


def _sole_error(path: str, body: bytes) -> Answer | None:
    """What a batch of one request was answered, as if it had been a call: such a request is refused by itself."""
    if name_of(path) != "BatchExecute":
        return None
    results = executions_pb2.BatchExecuteResponse.FromString(body).results
    if len(results) != 1 or not results[0].HasField("error"):
        return None
    error = from_status(results[0].error)
    return Answer(error.code.name, b"", error, _readable(results[0].error))


async def contents(dsn: str) -> dict[str, tuple[int, str]]:
    """How many rows each table has, and a hash of them; without what the server notes of itself."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace AND relname NOT IN ('replicas', 'alembic_version')"
        )
        found = {}
        for (table,) in tables:
            query = f"SELECT count(*), coalesce(md5(string_agg(t::text, ';' ORDER BY t::text)), '') FROM {table} t"  # noqa: S608
            ((count, checksum),) = await connection.fetch(query)
            found[table] = count, checksum
        return found
    finally:
        await connection.close()


HUGE = 2**63 - 1


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def nested(depth: int, tags: Sequence[int]) -> bytes:
    """Messages inside each other, from the outermost tag: `tags` in turn, so many times."""
    parts, size = [], 0
    for _ in range(depth):
        for tag in reversed(tags):
            parts.append(bytes([tag]) + varint(size))
            size += len(parts[-1])
    return b"".join(reversed(parts))


def field_bytes(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


MAPS = (0x0A, 0x12, 0x2A)  # Struct.fields, its entry's value, Value.struct_value
LISTS = (0x32, 0x0A)  # Value.list_value, ListValue.values


def deep(depth, wrap=lambda inner: {"k": inner}):
    """An object of so many levels in all."""
    value = 1
    for _ in range(depth - 1):
        value = wrap(value)
    return {"k": value}


def number(value, key="k"):
    return Struct(fields={"outer": Value(struct_value=Struct(fields={key: Value(number_value=value)}))})


def text(value, key="k"):
    return Struct(fields={key: Value(string_value=value)})


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
