"""The tables of workers of other teams, as SQLAlchemy Core knows them."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

_TIME = DateTime(timezone=True)
_ORG = String(256)


def add_worker_tables(metadata: MetaData) -> None:
    """Add the tables."""
    Table(
        "worker_handlers",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org of the workers."),
        Column("name", String(128), nullable=False, comment="Name by which steps call it."),
        Column("description", Text, nullable=False, comment="What it does, for people."),
        Column("params_schema", JSONB, nullable=False, comment="JSON Schema of its parameters."),
        Column(
            "effect", String(16), nullable=False, comment="What an attempt does outside: none, idempotent, external."
        ),
        Column("version", String(64), nullable=False, comment="Version of the worker that registered it last."),
        Column("seen_time", _TIME, nullable=False, comment="When a worker registered it last, to the hour."),
        PrimaryKeyConstraint("org_id", "name", name="worker_handlers_pkey"),
        CheckConstraint("effect IN ('external', 'idempotent', 'none')", name="worker_handlers_effect"),
        comment="Handlers that workers have registered: definitions may name them while no worker is connected.",
    )
    Table(
        "workers",
        metadata,
        Column("incarnation", Uuid, nullable=False, comment="Process that it is connected to."),
        Column("org_id", _ORG, nullable=False, comment="Org of the worker."),
        Column("subject", String(256), nullable=False, comment="Subject of its identity."),
        Column("worker_id", String(64), nullable=False, comment="Id that it has made for itself."),
        Column("name", String(128), nullable=False, comment="Name for people."),
        Column("version", String(64), nullable=False, comment="Version of its code."),
        Column("handlers", JSONB, nullable=False, comment="Names of its handlers, an array."),
        Column("capacity", Integer, nullable=False, comment="How many attempts it runs at a time."),
        Column("running", Integer, nullable=False, comment="How many it ran when this was written."),
        Column("is_draining", Boolean, nullable=False, comment="Whether it takes no more attempts."),
        Column("connect_time", _TIME, nullable=False, comment="When it connected."),
        Column(
            "heartbeat_time", _TIME, nullable=False, comment="When it had last been heard of when this was written."
        ),
        Column("labels", JSONB, nullable=False, server_default=text("'{}'"), comment="Its labels, an object."),
        PrimaryKeyConstraint("incarnation", "org_id", "subject", "worker_id", name="workers_pkey"),
        comment="Workers that are connected to any process, for those who ask; no attempt is given by it.",
    )
    Table(
        "worker_attempts",
        metadata,
        Column("execution_id", Uuid, nullable=False, comment="Execution."),
        Column("org_id", _ORG, nullable=False, comment="Org of the execution."),
        Column("path", String(1024), nullable=False, comment="Path of the step."),
        Column("iteration", Integer, nullable=False, comment="Iteration of the step."),
        Column("attempt", Integer, nullable=False, comment="Number of the attempt."),
        Column("incarnation", Uuid, nullable=False, comment="Process that the worker is connected to."),
        Column("seen_time", _TIME, nullable=False, comment="When that process last said so."),
        Column(
            "report",
            LargeBinary,
            nullable=False,
            comment="What the worker has said of it, for the owner of the execution; empty for nothing.",
        ),
        Column(
            "stop",
            String(16),
            nullable=False,
            comment="Why the owner wants it to stop; empty when it is to go on.",
        ),
        PrimaryKeyConstraint("execution_id", "org_id", "path", "iteration", "attempt", name="worker_attempts_pkey"),
        comment="Attempts that go on although their server died or lost them: the worker is connected to a process"
        " that does not drive the execution, or did not when it came.",
    )
    Table(
        "awaited_workers",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org of the executions that wait, or did."),
        Column("handler", String(128), nullable=False, comment="Handler that a worker must have for them."),
        Column("digest", String(64), nullable=False, comment="SHA-256 of wishes, in hexadecimal digits."),
        Column("wishes", Text, nullable=False, comment="Labels and versions that it must have, as JSON."),
        Column("seen_time", _TIME, nullable=False, comment="When an execution began to wait so, to the hour."),
        PrimaryKeyConstraint("org_id", "handler", "digest", name="awaited_workers_pkey"),
        comment="What is wished of workers that are waited for: processes whose workers have it claim by it.",
    )
