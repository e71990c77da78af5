"""The tables, as SQLAlchemy Core knows them. The migrations build the same; a test holds the two together.

Executions, their payloads, steps and events have no foreign keys: one transaction writes all rows of an execution,
months of them are dropped as partitions, and a check per row would cost more than the row. What hangs on an execution
has a key without the org, which was a third of it: the id is of one org, and every read asks for both. Bounded text is
`varchar(n)` rather than a CHECK, because Postgres checks every constraint of a row at each update of it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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

from persistence.model import FINAL_STATES, OPEN_STEP_STATES, ExecutionState, MessageKind, StepState
from persistence.postgres.bulk_tables import add_bulk_tables
from persistence.postgres.listed import listed
from persistence.postgres.notification_tables import add_notification_tables
from persistence.postgres.process_tables import add_process_tables
from persistence.postgres.request_tables import add_request_tables
from persistence.postgres.task_tables import add_task_tables
from persistence.postgres.worker_tables import add_worker_tables

metadata = MetaData()
PARTITIONED = ("executions", "execution_inputs", "steps", "transitions", "shared_payloads", "messages")

_TIME = DateTime(timezone=True)
_ORG = String(256)

# Such texts may be long, and nobody asks for their order: an index of their hash, with the org in it, is enough.
CORRELATION_HASH = "hashtextextended(correlation_id, hashtextextended(org_id, 0))"
OWNER_HASH = "hashtextextended(owner, hashtextextended(org_id, 0))"
SOURCE = "(lineage->>'source')"
"""Id of the execution that one was made from, as an index has it."""


workflows = Table(
    "workflows",
    metadata,
    Column("org_id", _ORG, nullable=False, comment="Org that the workflow belongs to."),
    Column("id", Uuid, nullable=False, comment="Id, a UUIDv7: by time of creation."),
    Column(
        "name",
        String(128),
        nullable=False,
        comment="Name, unique in the org among those that are not deleted; it never changes.",
    ),
    Column("revision", Integer, nullable=False, comment="Number of the latest revision."),
    Column("create_time", _TIME, nullable=False, comment="When it was created."),
    Column("delete_time", _TIME, comment="When it was deleted. It is removed with the last of its executions."),
    Column("deleted_by", String(256), comment="Subject that deleted it."),
    Column("pause", JSONB, comment="While it is paused: id, by, reason, time, pauses_running; else NULL."),
    Column("breakpoints", JSONB, comment="Where its next executions are held: id, by, points, time; or NULL."),
    Column("breakpoints_left", Integer, comment="How many more executions take these breakpoints up; or NULL."),
    Column("breakpoints_until", _TIME, comment="Until when executions take them up; or NULL."),
    PrimaryKeyConstraint("org_id", "id", name="workflows_pkey"),
    CheckConstraint("revision >= 1", name="workflows_revision"),
    CheckConstraint("(delete_time IS NULL) = (deleted_by IS NULL)", name="workflows_deleted"),
    Index("workflows_name", "org_id", "name", unique=True, postgresql_where=text("delete_time IS NULL")),
    Index("workflows_deleted_ones", "org_id", "id", postgresql_where=text("delete_time IS NOT NULL")),
    comment="Workflows; the definitions of each are in workflow_revisions.",
)

workflow_revisions = Table(
    "workflow_revisions",
    metadata,
    Column("org_id", _ORG, nullable=False, comment="Org that the workflow belongs to."),
    Column("workflow_id", Uuid, nullable=False, comment="Workflow that it is a revision of."),
    Column("revision", Integer, nullable=False, comment="Number, from 1."),
    Column(
        "document",
        JSONB,
        nullable=False,
        comment="Definition as canonical JSON: short names of enums, seconds, no defaults.",
    ),
    Column("update_time", _TIME, nullable=False, comment="When it was written."),
    Column("updated_by", String(256), nullable=False, comment="Subject that wrote it."),
    PrimaryKeyConstraint("org_id", "workflow_id", "revision", name="workflow_revisions_pkey"),
    ForeignKeyConstraint(
        ["org_id", "workflow_id"],
        ["workflows.org_id", "workflows.id"],
        name="workflow_revisions_workflow",
        ondelete="CASCADE",
    ),
    CheckConstraint("revision >= 1", name="workflow_revisions_revision"),
    comment="Definitions: a revision is never changed, and executions run the one that they were started with.",
)

executions = Table(
    "executions",
    metadata,
    # In the order that leaves no gaps between them.
    Column("id", Uuid, nullable=False, comment="Id, a UUIDv7: by time of creation."),
    Column("workflow_id", Uuid, nullable=False, comment="Workflow that it runs."),
    Column("incarnation", Uuid, comment="Process that drives it (replicas), NULL when nobody does."),
    Column("create_time", _TIME, nullable=False, comment="When it was accepted."),
    Column("scheduled_time", _TIME, comment="When it is to start, if a delay was asked for."),
    Column("start_time", _TIME, comment="When it started."),
    Column("end_time", _TIME, comment="When it ended; set exactly in the states that are ends."),
    Column("deadline_time", _TIME, comment="When it is cut off with TIMED_OUT."),
    Column("wake_time", _TIME, comment="From when on it may be taken; set while it is open and nobody drives it."),
    Column("timeout", Float(53), nullable=False, comment="Seconds that it may take from its start."),
    Column(
        "duration",
        Float(53),
        Computed(
            "EXTRACT(epoch FROM (end_time - COALESCE(start_time, create_time)))::double precision", persisted=True
        ),
        comment="Seconds from start (or creation) to end.",
    ),
    Column("last_seq", BigInteger, nullable=False, comment="Number of the newest event."),
    Column("epoch", BigInteger, nullable=False, comment="Rises at each change of owner; earlier ones write no more."),
    Column("mail", BigInteger, nullable=False, comment="Binding messages that it was ever sent; they precede its end."),
    Column("bytes", BigInteger, nullable=False, comment="Bytes written: payloads as JSON, and 512 for each event."),
    Column("revision", Integer, nullable=False, comment="Revision that it runs."),
    Column("run", Integer, nullable=False, comment="Number of the run: 1, and more when it is reopened after its end."),
    Column("priority", Integer, nullable=False, comment="-100 to 100; higher goes first."),
    Column("steps_total", Integer, nullable=False, comment="Number of steps; those in no other count are pending."),
    Column("steps_completed", Integer, nullable=False, comment="Steps that ended well."),
    Column("steps_failed", Integer, nullable=False, comment="Steps that failed for good."),
    Column("steps_skipped", Integer, nullable=False, comment="Steps that were skipped."),
    Column("steps_running", Integer, nullable=False, comment="Steps that run or wait."),
    Column("steps_cancelled", Integer, nullable=False, comment="Steps that were cancelled."),
    Column("progress", SmallInteger, nullable=False, comment="Percentage, 100 only when COMPLETED."),
    Column("deaths", SmallInteger, nullable=False, server_default=text("0"), comment="Owners in a row that died."),
    Column("org_id", _ORG, nullable=False, comment="Org that the execution belongs to."),
    Column("owner", String(256), nullable=False, comment="Subject that started it."),
    Column("workflow_name", String(128), nullable=False, comment="Name of that workflow."),
    Column(
        "state",
        String(16),
        nullable=False,
        comment="PENDING, RUNNING, PAUSED, CANCELLING, COMPENSATING, or an end:"
        " COMPLETED, FAILED, CANCELLED, TIMED_OUT.",
    ),
    Column(
        "correlation_id", String(256), nullable=False, comment="Id of the thing outside that it belongs to, or empty."
    ),
    Column("request_id", String(128), nullable=False, comment="Id of the request that started it, or empty."),
    Column("tags", ARRAY(Text), comment="Tags of workflow and request, if there are any."),
    Column("labels", JSONB, comment="Labels of the request, an object of texts, if there are any."),
    Column("awaits", JSONB, comment="Names of the handlers that it waits for while nobody drives it; or NULL."),
    Column("result", JSONB, comment="What it answers, once COMPLETED."),
    Column("failure", JSONB, comment="Why it did not complete: code, message, details, step_path."),
    Column("ending", JSONB, comment="End that is decided while attempts are being stopped: state, failure."),
    Column("usage", JSONB, comment="What its steps used up: input_tokens, output_tokens, cost_micros; or NULL."),
    Column("pause", JSONB, comment="Of a PAUSED one: by, reason, time, is_hard, stops_deadline; or NULL."),
    Column("breakpoints", JSONB, comment="Where it is held before steps begin: by, points, halt, step; or NULL."),
    Column("signals", JSONB, comment="Signals that no step has taken: id, name, payload, sender, time, size; or NULL."),
    Column("edited_vars", JSONB, comment="Variables that somebody has set: value, seq, first_seq, by name; or NULL."),
    Column("reopened_seq", BigInteger, comment="Number of the event with which its run began; NULL in the first."),
    Column("lineage", JSONB, comment="Of one that was made from another one: source, seq, step_path; or NULL."),
    Column("held_back", Boolean, comment="True where it waits for the resume of its workflow before it starts."),
    Column("dry_run", Boolean, comment="True where it sends nothing outside; else NULL."),
    PrimaryKeyConstraint("org_id", "id", name="executions_pkey"),
    CheckConstraint(
        "CASE WHEN end_time IS NOT NULL THEN ending IS NULL WHEN state = 'CANCELLING' THEN ending IS NOT NULL"
        " ELSE true END",
        name="executions_ending",
    ),
    CheckConstraint("deaths >= 0", name="executions_deaths"),
    CheckConstraint("bytes >= 0", name="executions_bytes"),
    CheckConstraint(f"state IN ({listed(ExecutionState)})", name="executions_state"),
    CheckConstraint(f"(state IN ({listed(FINAL_STATES)})) = (end_time IS NOT NULL)", name="executions_end"),
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
    CheckConstraint(
        "last_seq >= 0 AND epoch >= 1 AND timeout >= 0 AND revision >= 1 AND run >= 1 AND mail >= 0",
        name="executions_numbers",
    ),
    # Not the org first: without statistics, as in every new month, they would cost as little as the primary key where
    # org and id are given, and Postgres would read all of the org for each row. A workflow is of one org.
    Index("executions_workflow", "workflow_id", "id"),
    Index("executions_owned_by", text(OWNER_HASH), "id"),
    # What is usual is found soon without one. The workflow is there to be looked at before the row is.
    Index("executions_by_state", "state", "org_id", "id", "workflow_id", postgresql_where=text("state <> 'COMPLETED'")),
    Index("executions_correlation", text(CORRELATION_HASH), "id", postgresql_where=text("correlation_id <> ''")),
    # Few end at the same moment, and are put in order then; many take the same time, which may be none.
    Index("executions_ended", "org_id", "end_time", postgresql_where=text("end_time IS NOT NULL")),
    Index("executions_longest", "org_id", "duration", "id", postgresql_where=text("end_time IS NOT NULL")),
    Index("executions_tags", "tags", postgresql_using="gin", postgresql_where=text("tags <> '{}'")),
    Index(
        "executions_labels",
        "labels",
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
        postgresql_where=text("labels <> '{}'"),
    ),
    Index("executions_dry_runs", "org_id", "id", postgresql_where=text("dry_run IS TRUE")),
    Index("executions_forks", "org_id", text(SOURCE), "id", postgresql_where=text("lineage IS NOT NULL")),
    # These serve the engine, which drives the executions of all orgs; every other index holds the org.
    Index(
        "executions_claimable",
        text("priority DESC"),
        "org_id",
        "wake_time",
        "id",
        postgresql_where=text("incarnation IS NULL AND end_time IS NULL"),
    ),
    Index("executions_awaiting", "awaits", postgresql_using="gin", postgresql_where=text("awaits IS NOT NULL")),
    Index("executions_suspect", "deaths", "id", postgresql_where=text("deaths >= 2 AND end_time IS NULL")),
    Index("executions_driven", "incarnation", "id", postgresql_where=text("incarnation IS NOT NULL")),
    postgresql_partition_by="RANGE (id)",
    comment="Executions, one row each; inputs, steps and events are in their own tables.",
)

execution_inputs = Table(
    "execution_inputs",
    metadata,
    Column("org_id", _ORG, nullable=False, comment="Org that the execution belongs to."),
    Column("execution_id", Uuid, nullable=False, comment="Execution."),
    Column("input", JSONB, nullable=False, comment="Input, an object."),
    Column("edit", JSONB, comment="What one step has in this run instead of what its definition says: path, value."),
    Column("vars", JSONB, comment="Variables that one was given which was made from another one; or NULL."),
    Column("dry_run", JSONB, comment="Mocks of a dry run: mocks, handlers, default, skips_waits; or NULL."),
    PrimaryKeyConstraint("execution_id", name="execution_inputs_pkey"),
    postgresql_partition_by="RANGE (execution_id)",
    comment="Input of each execution, which may be large and is never changed.",
)

steps = Table(
    "steps",
    metadata,
    # In the order that leaves no gaps between them.
    Column("execution_id", Uuid, nullable=False, comment="Execution."),
    Column("start_time", _TIME, comment="When its first attempt started."),
    Column("attempt_time", _TIME, comment="When its newest attempt started, if that is not the first."),
    Column("end_time", _TIME, comment="When it ended."),
    Column("end_seq", BigInteger, comment="Number of the event that ended it."),
    Column(
        "iteration",
        Integer,
        nullable=False,
        comment="Number of the whole run of the step: 1, and more when it is revised or retried in place.",
    ),
    Column("position", Integer, nullable=False, comment="Place, from 1, of the step of the root that it is, or is of."),
    Column("attempt", Integer, nullable=False, comment="Number of the newest attempt."),
    Column("failures", Integer, comment="Attempts that failed and count for the retry policy, if any did."),
    Column("progress", SmallInteger, nullable=False, comment="Percentage that the running attempt reported."),
    Column("org_id", _ORG, nullable=False, comment="Org that the execution belongs to."),
    Column("path", String(1024), nullable=False, comment="Path in the execution, such as the id of the step."),
    Column("handler", String(128), nullable=False, comment="Handler that runs it."),
    Column(
        "state",
        String(16),
        nullable=False,
        comment="RUNNING, WAITING, COMPLETED, FAILED, SKIPPED, CANCELLED, COMPENSATED.",
    ),
    Column("worker", String(256), comment="Process that ran the newest attempt."),
    Column("input", JSONB, comment="Parameters of the newest attempt, templates filled in."),
    Column("output", JSONB, comment="What it gave, once COMPLETED; what it will give, while a handler waits."),
    Column("failure", JSONB, comment="Why it failed, or why its newest attempt did: code, message, details."),
    Column("failed_attempts", JSONB, comment="The last 20 attempts that failed."),
    Column("assigned", JSONB, comment="Variables that it assigned."),
    Column("skip_reason", String(8192), comment="Why it was skipped."),
    Column(
        "wait",
        JSONB,
        comment="What it waits for: kind, start_time, wake_time, reason; kept when it was cancelled meanwhile.",
    ),
    Column("shared", JSONB, comment="Columns whose payload is in shared_payloads, and NULL here, with its digest."),
    Column("items", ARRAY(Integer), comment="Of the step of an item: its number and place, for each item around it."),
    Column("usage", JSONB, comment="What its attempts used up: input_tokens, output_tokens, cost_micros; or NULL."),
    Column("fixed", Boolean, comment="True where its attempts are called with its input as it is; else NULL."),
    Column("mocked", Boolean, comment="True where a mock stood in its place; else NULL."),
    PrimaryKeyConstraint("execution_id", "path", "iteration", name="steps_pkey"),
    # Those of the root are as few as their definition has, and are found by their paths.
    Index("steps_of_items", "execution_id", "position", "items", postgresql_where=text("items IS NOT NULL")),
    CheckConstraint(f"state IN ({listed(StepState)})", name="steps_state"),
    CheckConstraint(f"(state IN ({listed(OPEN_STEP_STATES)})) = (end_time IS NULL)", name="steps_end"),
    CheckConstraint(
        "CASE state WHEN 'WAITING' THEN wait IS NOT NULL WHEN 'CANCELLED' THEN true ELSE wait IS NULL END",
        name="steps_wait",
    ),
    CheckConstraint(
        "iteration >= 1 AND attempt >= 0 AND failures >= 0 AND progress BETWEEN 0 AND 100", name="steps_numbers"
    ),
    postgresql_partition_by="RANGE (execution_id)",
    comment="Steps of executions; one that never left PENDING has no row.",
)

# The view `events`, which the migration makes, shows single ones.
transitions = Table(
    "transitions",
    metadata,
    Column("execution_id", Uuid, nullable=False, comment="Execution."),
    Column("seq", BigInteger, nullable=False, comment="Number of the last of the events."),
    Column("time", _TIME, nullable=False, comment="When they happened."),
    Column("org_id", _ORG, nullable=False, comment="Org that the execution belongs to."),
    Column(
        "layout",
        Text,
        nullable=False,
        comment="Kind, by a letter, and size in body of each event: a comma between them,"
        " a semicolon where a transition ends.",
    ),
    Column("body", LargeBinary, nullable=False, comment="Each event as protobuf, one behind the other."),
    Column(
        "shared",
        JSONB,
        comment="What was cut out of which events (seq): its digest in shared_payloads, where (at), its size.",
    ),
    PrimaryKeyConstraint("execution_id", "seq", name="transitions_pkey"),
    CheckConstraint("seq >= 1", name="transitions_seq"),
    postgresql_partition_by="RANGE (execution_id)",
    comment="Histories of executions, never changed: the events that were written at once are one row.",
)

shared_payloads = Table(
    "shared_payloads",
    metadata,
    Column("org_id", _ORG, nullable=False, comment="Org that the execution belongs to."),
    Column("execution_id", Uuid, nullable=False, comment="Execution."),
    Column("digest", String(64), nullable=False, comment="SHA-256 of the payload, as hexadecimal digits."),
    Column("document", JSONB, comment="Payload of a step."),
    Column("message", LargeBinary, comment="Payload of an event, as protobuf."),
    PrimaryKeyConstraint("execution_id", "digest", name="shared_payloads_pkey"),
    CheckConstraint("(document IS NULL) <> (message IS NULL)", name="shared_payloads_content"),
    postgresql_partition_by="RANGE (execution_id)",
    comment="Payloads of 8 KiB and more, once for each execution: steps and events refer to them.",
)

messages = Table(
    "messages",
    metadata,
    Column("org_id", _ORG, nullable=False, comment="Org that the execution belongs to."),
    Column("execution_id", Uuid, nullable=False, comment="Execution that it is for."),
    Column("id", Uuid, nullable=False, comment="Id; that of the execution for CANCEL, of which there is one at most."),
    Column("kind", String(32), nullable=False, comment="What it says: CANCEL, PAUSE, SIGNAL, ..."),
    Column("create_time", _TIME, nullable=False, comment="When it was sent."),
    Column("sender", String(256), nullable=False, comment="Subject or execution that sent it."),
    Column("body", JSONB, nullable=False, comment="What belongs to it, an object; of CANCEL the reason."),
    PrimaryKeyConstraint("execution_id", "id", name="messages_pkey"),
    CheckConstraint(f"kind IN ({listed(MessageKind)})", name="messages_kind"),
    postgresql_partition_by="RANGE (execution_id)",
    comment="What executions were sent and nobody has seen: the transition that has seen it removes it.",
)

add_notification_tables(metadata)
add_task_tables(metadata)
add_process_tables(metadata)
add_worker_tables(metadata)
add_bulk_tables(metadata)
add_request_tables(metadata)
