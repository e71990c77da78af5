"""The tables, as SQLAlchemy Core knows them. The migrations build the same; a test holds the two together.

Executions, their payloads, steps and events have no foreign keys: one transaction writes all rows of an execution,
months of them are dropped as partitions, and a check per row would cost more than the row. Bounded text is
`varchar(n)` rather than a CHECK, because Postgres checks every constraint of a row at each update of it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from persistence.model import FINAL_STATES, OPEN_STEP_STATES, ExecutionState, StepState

metadata = MetaData()
PARTITIONED = ("executions", "execution_payloads", "steps", "events")

_TIME = DateTime(timezone=True)
_ORG = String(256)


def _names(states: object) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))  # type: ignore[call-overload]


workflows = Table(
    "workflows",
    metadata,
    Column("org_id", _ORG, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("name", String(128), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("delete_time", _TIME),
    Column("deleted_by", String(256)),
    PrimaryKeyConstraint("org_id", "id", name="workflows_pkey"),
    CheckConstraint("revision >= 1", name="workflows_revision"),
    CheckConstraint("(delete_time IS NULL) = (deleted_by IS NULL)", name="workflows_deleted"),
    Index("workflows_name", "org_id", "name", unique=True, postgresql_where=text("delete_time IS NULL")),
    Index("workflows_deleted_ones", "org_id", "id", postgresql_where=text("delete_time IS NOT NULL")),
)

workflow_revisions = Table(
    "workflow_revisions",
    metadata,
    Column("org_id", _ORG, nullable=False),
    Column("workflow_id", Uuid, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("document", JSONB, nullable=False),
    Column("update_time", _TIME, nullable=False),
    Column("updated_by", String(256), nullable=False),
    PrimaryKeyConstraint("org_id", "workflow_id", "revision", name="workflow_revisions_pkey"),
    ForeignKeyConstraint(
        ["org_id", "workflow_id"],
        ["workflows.org_id", "workflows.id"],
        name="workflow_revisions_workflow",
        ondelete="CASCADE",
    ),
    CheckConstraint("revision >= 1", name="workflow_revisions_revision"),
)

executions = Table(
    "executions",
    metadata,
    Column("org_id", _ORG, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("owner", String(256), nullable=False),
    Column("workflow_id", Uuid, nullable=False),
    Column("workflow_name", String(128), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("timeout", Float(53), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("tags", ARRAY(Text), nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("correlation_id", String(256), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("scheduled_time", _TIME),
    Column("start_time", _TIME),
    Column("end_time", _TIME),
    Column("deadline_time", _TIME),
    Column("progress", SmallInteger, nullable=False),
    Column("steps_total", Integer, nullable=False),
    Column("steps_completed", Integer, nullable=False),
    Column("steps_failed", Integer, nullable=False),
    Column("steps_skipped", Integer, nullable=False),
    Column("steps_running", Integer, nullable=False),
    Column("steps_cancelled", Integer, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("failure", JSONB),
    Column("cancel_time", _TIME),
    Column("cancel_by", String(256)),
    Column("cancel_reason", String(2048)),
    Column("incarnation", Uuid),
    Column("epoch", BigInteger, nullable=False),
    Column("wake_time", _TIME),
    Column(
        "duration",
        Float(53),
        Computed(
            "EXTRACT(epoch FROM (end_time - COALESCE(start_time, create_time)))::double precision", persisted=True
        ),
    ),
    Column("deaths", SmallInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("org_id", "id", name="executions_pkey"),
    CheckConstraint("deaths >= 0", name="executions_deaths"),
    CheckConstraint(f"state IN ({_names(ExecutionState)})", name="executions_state"),
    CheckConstraint(f"(state IN ({_names(FINAL_STATES)})) = (end_time IS NOT NULL)", name="executions_end"),
    CheckConstraint(
        "CASE WHEN end_time IS NOT NULL THEN incarnation IS NULL AND wake_time IS NULL"
        " ELSE (incarnation IS NULL) = (wake_time IS NOT NULL) END",
        name="executions_owner",
    ),
    CheckConstraint(
        "progress BETWEEN 0 AND 100 AND (progress < 100 OR state = 'COMPLETED')", name="executions_progress"
    ),
    CheckConstraint(
        "least(steps_completed, steps_failed, steps_skipped, steps_running, steps_cancelled) >= 0 AND"
        " steps_completed + steps_failed + steps_skipped + steps_running + steps_cancelled <= steps_total",
        name="executions_counts",
    ),
    CheckConstraint("last_seq >= 0 AND epoch >= 1 AND timeout >= 0 AND revision >= 1", name="executions_numbers"),
    CheckConstraint(
        "(cancel_time IS NULL) = (cancel_by IS NULL) AND (cancel_time IS NULL) = (cancel_reason IS NULL)",
        name="executions_cancel",
    ),
    # Not the org first: without statistics, as in every new month, they would cost as little as the primary key where
    # org and id are given, and Postgres would read all of the org for each row.
    Index("executions_workflow", "workflow_id", "org_id", "id"),
    Index("executions_workflow_name", "workflow_name", "org_id", "id"),
    Index("executions_owned_by", "owner", "org_id", "id"),
    Index("executions_by_state", "state", "org_id", "id"),
    Index("executions_correlation", "correlation_id", "org_id", "id", postgresql_where=text("correlation_id <> ''")),
    Index("executions_ended", "org_id", "end_time", "id", postgresql_where=text("end_time IS NOT NULL")),
    Index("executions_longest", "org_id", "duration", "id", postgresql_where=text("end_time IS NOT NULL")),
    Index("executions_tags", "tags", postgresql_using="gin", postgresql_where=text("tags <> '{}'")),
    Index(
        "executions_metadata",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=text("metadata <> '{}'"),
    ),
    # These serve the engine, which drives the executions of all orgs; every other index holds the org.
    Index(
        "executions_claimable",
        text("priority DESC"),
        "org_id",
        "wake_time",
        "id",
        postgresql_where=text("incarnation IS NULL AND end_time IS NULL"),
    ),
    Index("executions_suspect", "deaths", "id", postgresql_where=text("deaths >= 2 AND end_time IS NULL")),
    Index("executions_driven", "incarnation", "id", postgresql_where=text("incarnation IS NOT NULL")),
    postgresql_partition_by="RANGE (id)",
)

execution_payloads = Table(
    "execution_payloads",
    metadata,
    Column("org_id", _ORG, nullable=False),
    Column("execution_id", Uuid, nullable=False),
    Column("input", JSONB, nullable=False),
    Column("result", JSONB),
    PrimaryKeyConstraint("org_id", "execution_id", name="execution_payloads_pkey"),
    postgresql_partition_by="RANGE (execution_id)",
)

steps = Table(
    "steps",
    metadata,
    Column("org_id", _ORG, nullable=False),
    Column("execution_id", Uuid, nullable=False),
    Column("path", String(1024), nullable=False),
    Column("handler", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("progress", SmallInteger, nullable=False),
    Column("input", JSONB),
    Column("output", JSONB),
    Column("failure", JSONB),
    Column("failed_attempts", JSONB),
    Column("assigned", JSONB),
    Column("skip_reason", String(8192), nullable=False),
    Column("start_time", _TIME),
    Column("attempt_time", _TIME),
    Column("end_time", _TIME),
    Column("wake_time", _TIME),
    Column("end_seq", BigInteger),
    Column("worker", String(256), nullable=False),
    PrimaryKeyConstraint("org_id", "execution_id", "path", name="steps_pkey"),
    CheckConstraint(f"state IN ({_names(StepState)})", name="steps_state"),
    CheckConstraint(f"(state IN ({_names(OPEN_STEP_STATES)})) = (end_time IS NULL)", name="steps_end"),
    CheckConstraint("attempt >= 0 AND failures >= 0 AND progress BETWEEN 0 AND 100", name="steps_numbers"),
    postgresql_partition_by="RANGE (execution_id)",
)

events = Table(
    "events",
    metadata,
    Column("org_id", _ORG, nullable=False),
    Column("execution_id", Uuid, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("transition_seq", BigInteger, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("time", _TIME, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("org_id", "execution_id", "seq", name="events_pkey"),
    CheckConstraint("seq >= 1 AND transition_seq >= seq", name="events_seq"),
    postgresql_partition_by="RANGE (execution_id)",
)

# Not partitioned: a request id is remembered longer than the execution that it made.
execution_requests = Table(
    "execution_requests",
    metadata,
    Column("org_id", _ORG, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("execution_id", Uuid, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("create_time", _TIME, nullable=False),
    PrimaryKeyConstraint("org_id", "request_id", name="execution_requests_pkey"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("incarnation", Uuid, nullable=False),
    Column("name", String(256), nullable=False),
    Column("register_time", _TIME, nullable=False),
    Column("lease_until", _TIME, nullable=False),
    PrimaryKeyConstraint("incarnation", name="replicas_pkey"),
)
