"""Whatever the row of a request id holds, a repeated call is answered, and never by what nobody can make sense of."""

from __future__ import annotations

import asyncpg

from flowkeep.definition import definition
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1 import workflow_service_pb2 as workflows_pb
from persistence.postgres.tables import metadata
from tests.integration.spoiling import answer, values_of
from tests.integration.stage import Served, made, step

ANSWERS = ("OK", "REQUEST_ID_REUSED", "EXECUTION_NOT_FOUND", "WORKFLOW_NOT_FOUND")


async def test_a_spoilt_request_id_answers_what_it_can(served: Served, database_dsn: str) -> None:
    name = await made(served.client, step("a", "transform", value=1))
    wanted = definition({"steps": [step("a", "transform", value=2)]})
    admin = await asyncpg.connect(database_dsn)
    spoils = [(column.name, value) for column in metadata.tables["requests"].columns for value in values_of(column)]
    spoilt = set()
    for index, (column, value) in enumerate(spoils):
        execute = pb.ExecuteRequest(workflow=name, request_id=f"e-{index}")
        update = workflows_pb.UpdateWorkflowRequest(workflow=name, definition=wanted, request_id=f"u-{index}")
        await made(served.client, step("a", "transform", value=1), name=f"d{index}")
        delete = workflows_pb.DeleteWorkflowRequest(workflow=f"d{index}", request_id=f"d-{index}")
        for call, request in (
            (served.executions.Execute, execute),
            (served.workflows.UpdateWorkflow, update),
            (served.workflows.DeleteWorkflow, delete),
        ):
            await call(request)
            statement = f"UPDATE requests SET {column} = {value} WHERE request_id = $1"  # noqa: S608 - our own columns
            try:
                await admin.execute(statement, request.request_id)
            except asyncpg.PostgresError:  # kept out
                continue
            spoilt.add(column)
            assert await answer(call(request)) in ANSWERS, (column, value, request)
    await admin.close()
    assert spoilt | {"method"} == {column for column, _ in spoils}, "a column that no value spoils"
