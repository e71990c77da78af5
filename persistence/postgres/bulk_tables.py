"""The tables of operations in bulk."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from persistence.bulks import LONGEST_REASON, BulkAction, BulkOutcome, BulkState
from persistence.postgres.listed import listed

_TIME = DateTime(timezone=True)
_ORG = String(256)


def add_bulk_tables(metadata: MetaData) -> None:
    """Add the tables."""
    Table(
        "bulks",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org that the operation belongs to."),
        Column("id", Uuid, nullable=False, comment="Id, a UUIDv7: by time of creation."),
        Column("incarnation", Uuid, comment="Process that carries it out, NULL when none does yet."),
        Column("cursor", Uuid, nullable=False, comment="It comes next to executions with ids below."),
        Column("create_time", _TIME, nullable=False, comment="When it was started."),
        Column("end_time", _TIME, comment="When it ended; set exactly in the states that are ends."),
        Column("epoch", BigInteger, nullable=False, comment="Rises at each change of process."),
        Column("most", Integer, nullable=False, comment="Executions after which it ends."),
        Column("rate", Integer, nullable=False, comment="Executions a second at most, 0 for as many as fit."),
        Column("matched", Integer, nullable=False, comment="Executions that met the filter at its start, as counted."),
        Column("done", Integer, nullable=False, comment="Executions of which the action was asked."),
        Column("refused", Integer, nullable=False, comment="Executions whose state did not allow it."),
        Column("not_found", Integer, nullable=False, comment="Executions that were removed before."),
        Column("matched_more", Boolean, nullable=False, comment="Whether more met the filter than were counted."),
        Column("state", String(16), nullable=False, comment="RUNNING, or an end: COMPLETED, STOPPED."),
        Column("action", String(16), nullable=False, comment="What it does: CANCEL, PAUSE, RESUME, TERMINATE, RETRY."),
        Column("owner", String(256), comment="Subject whose executions it sees alone, NULL for all of the org."),
        Column("created_by", String(256), nullable=False, comment="Subject that started it."),
        Column("stopped_by", String(256), nullable=False, comment="Subject that stopped it, or empty."),
        Column("request_id", String(128), nullable=False, comment="Id of the request that started it, or empty."),
        Column("reason", String(LONGEST_REASON), nullable=False, comment="Why, in the words of the caller."),
        Column("options", JSONB, nullable=False, comment="What belongs to the action, an object."),
        Column("filter", JSONB, nullable=False, comment="Which executions, an object."),
        Column("asked", JSONB, nullable=False, comment="The filter as the caller gave it, an object."),
        Column("under_way", ARRAY(Uuid), comment="Executions that it retries now; NULL where there are none."),
        PrimaryKeyConstraint("org_id", "id", name="bulks_pkey"),
        CheckConstraint(f"state IN ({listed(BulkState)})", name="bulks_state"),
        CheckConstraint(f"action IN ({listed(BulkAction)})", name="bulks_action"),
        CheckConstraint("(state = 'RUNNING') = (end_time IS NULL)", name="bulks_end"),
        CheckConstraint("least(most, rate, matched, done, refused, not_found, epoch) >= 0", name="bulks_numbers"),
        Index("bulks_running", "create_time", postgresql_where=text("end_time IS NULL")),
        Index("bulks_ended", "end_time", postgresql_where=text("end_time IS NOT NULL")),
        Index("bulks_request", "org_id", "request_id", unique=True, postgresql_where=text("request_id <> ''")),
        comment="Operations in bulk: one action on many executions, with how far they have come.",
    )
    Table(
        "bulk_results",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org."),
        Column("bulk_id", Uuid, nullable=False, comment="Operation."),
        Column("execution_id", Uuid, nullable=False, comment="Execution; it may be gone."),
        Column("number", Integer, nullable=False, comment="Number in the operation, from 1, in its order."),
        Column("outcome", String(16), nullable=False, comment="DONE, REFUSED, NOT_FOUND."),
        Column("reason", Text, nullable=False, comment="Why it was refused, or empty."),
        PrimaryKeyConstraint("org_id", "bulk_id", "number", name="bulk_results_pkey"),
        CheckConstraint(f"outcome IN ({listed(BulkOutcome)})", name="bulk_results_outcome"),
        comment="What came of each execution in an operation in bulk.",
    )
