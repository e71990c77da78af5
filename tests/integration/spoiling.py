"""What each column may be spoilt with, the statements that do so, and what calls then come to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc
from sqlalchemy import Boolean, Column, DateTime, Float, Integer, LargeBinary, String, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from flowkeep.errors import from_rpc_error
from persistence.postgres.tables import PARTITIONED, metadata

EMPTY_ID, LAST_ID = str(UUID(int=0)), str(UUID(int=2**128 - 1))
VALUES: list[tuple[type[Any], list[str]]] = [
    (DateTime, ["'infinity'", "'-infinity'", "'12000-01-01'", "'4000-01-01 BC'"]),
    (
        JSONB,
        [
            *("'1e400'", "'[1e400]'", "'{\"a\": 123456789012345678901234567890}'", '\'{"a": {"b": [1e400]}}\''),
            *("'5'", "'\"text\"'", "'[]'", "'{}'", "'null'", "'{\"code\": 5}'", '\'[{"attempt": "x"}]\''),
            *('\'[{"attempt": 1, "start_time": "x", "failure": {"code": "X"}}]\'', "'\"\\ud800\"'"),
            "(repeat('[', 5000) || repeat(']', 5000))::jsonb",
        ],
    ),
    (Boolean, ["true", "false"]),
    (ARRAY, ["'{NULL}'", "'{{a,b},{c,d}}'", "'{}'"]),
    (String, ["''", "'SUSPENDED'", "E'\\x01'"]),
    (Float, ["'NaN'", "'Infinity'", "1e308", "-1", "0"]),
    (Integer, ["9223372036854775807", "4611686018427387904", "2147483647", "32767", "1000", "0", "-1"]),
    (LargeBinary, ["'\\xff00ff'", "''"]),
    (Uuid, [f"'{LAST_ID}'", f"'{EMPTY_ID}'"]),
]
TOGETHER = {"delete_time": {"deleted_by": "'x'"}, "deleted_by": {"delete_time": "now()"}}
"""What a constraint wants changed with a column."""
SEND = """
INSERT INTO messages (org_id, execution_id, id, kind, create_time, sender, body)
SELECT org_id, id, id, $1, clock_timestamp(), 'x', '{}' FROM executions WHERE id = ANY ($2::uuid[])"""
KEYS = {**dict.fromkeys(PARTITIONED, "execution_id"), "executions": "id"}
ROWS = {
    "messages": tuple(f"kind = '{kind}'" for kind in ("CANCEL", "CHILD_ENDED", "TASK_COMPLETED")),
    "steps": ("path = 'a'", "path = 'b'"),
    "transitions": (
        "seq = (SELECT min(seq) FROM transitions t WHERE {})",
        "seq = (SELECT max(seq) FROM transitions t WHERE {})",
        "shared IS NOT NULL",
    ),
    "shared_payloads": ("document->'value' IS NOT NULL", "document->'pad' IS NOT NULL", "message IS NOT NULL"),
}


def values_of(column: Column[Any]) -> list[str]:
    """What a column is spoilt with."""
    values = next(values for kind, values in VALUES if isinstance(column.type, kind))
    return [*values, "NULL"]


def cases(tables: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Statements that spoil one value of an execution, with what they spoil and the value."""
    found = []
    for table in tables:
        for column in metadata.tables[table].columns:
            if column.computed is not None:
                continue
            for value in values_of(column):
                for row in ROWS.get(table, ("true",)):
                    also = "".join(f", {n} = {v}" for n, v in TOGETHER.get(column.name, {}).items() if n != column.name)
                    own = f"{KEYS[table]} = $1"
                    found.append(
                        (
                            f"UPDATE {table} SET {column.name} = {value}{also} WHERE {own} AND {row.format(own)}",  # noqa: S608
                            f"{table}.{column.name}",
                            value,
                        )
                    )
    return found


async def answer(call: Any) -> str:
    """OK, or the reason of the refusal."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason
    return "OK"
