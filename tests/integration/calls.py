"""Each RPC as its descriptor tells it, with a valid request; calls by raw bytes; and what is in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

import flowkeep
from flowkeep.errors import from_rpc_error
from flowkeep.v1 import execution_service_pb2 as executions_pb2
from flowkeep.v1 import workflow_service_pb2 as workflows_pb2
from tests.integration.stage import PATIENCE, wait_step

METHODS: Mapping[str, Any] = {
    f"/{service.full_name}/{method.name}": method
    for file in (workflows_pb2, executions_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""What the server serves, by path."""

NOBODYS = "01930000-0000-7000-8000-000000000000"

BY_WORKFLOW = ("GetWorkflow", "UpdateWorkflow", "DeleteWorkflow", "Execute")
BY_EXECUTION = ("GetExecution", "Cancel", "WatchExecution")
BY_NEITHER = ("CreateWorkflow", "ListWorkflows", "ValidateWorkflow", "ListHandlers", "ListExecutions")


def name_of(path: str) -> str:
    """`GetWorkflow` of `/flowkeep.v1.WorkflowService/GetWorkflow`."""
    return path.rpartition("/")[2]


def empty(path: str) -> Any:
    """An empty request of a method."""
    return GetMessageClass(METHODS[path].input_type)()


def valid(path: str, workflow: str, execution_id: str) -> Any:
    """A request with which the method does its work on these two."""
    request = empty(path)
    fields = {field.name for field in request.DESCRIPTOR.fields}
    if "workflow" in fields:
        request.workflow = workflow
    if "execution_id" in fields:
        request.execution_id = execution_id
    if "definition" in fields:
        name = "" if "workflow" in fields else "fresh"
        request.definition.CopyFrom(flowkeep.definition({"name": name, "steps": [wait_step()]}))
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
        text = (self.code, self.error.message, self.details, repr(self.body))
        for each in hidden:
            text = tuple(part.replace(each, "<id>") for part in text)
        return text


_FINE = flowkeep.FlowkeepError(grpc.StatusCode.OK, "", "")


async def call(
    channel: grpc.aio.Channel, path: str, request: Message | bytes, metadata: Sequence[tuple[str, str]] = ()
) -> Answer:
    """Send bytes as they are, and take whatever comes."""
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    options: Any = {"metadata": metadata, "timeout": PATIENCE}
    try:
        if METHODS[path].server_streaming:
            stream: Any = channel.unary_stream(path)(raw, **options)
            body = await stream.read()
            stream.cancel()
        else:
            unary: Any = channel.unary_unary(path)
            body = await unary(raw, **options)
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # its attributes are those of a call
        return Answer(error.code().name, b"", from_rpc_error(error), str(status.details) if status else "")
    return Answer("OK", body if isinstance(body, bytes) else b"", _FINE, "")


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
            found[table] = tuple(await connection.fetchrow(query))
        return found
    finally:
        await connection.close()
