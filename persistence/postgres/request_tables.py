"""The table of request ids."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.model import Outcome
from persistence.postgres.listed import listed
from persistence.requests import Method

_TIME = DateTime(timezone=True)
_ORG = String(256)


def add_request_tables(metadata: MetaData) -> None:
    """Add the table."""
    # Not partitioned: a request id is looked for without knowing what it made, and may outlive that.
    Table(
        "requests",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org of the caller."),
        Column("request_id", String(128), nullable=False, comment="Id that the caller gave."),
        Column("method", String(32), nullable=False, comment="What was called: EXECUTE, CANCEL, CREATE_WORKFLOW, ..."),
        Column("execution_id", Uuid, comment="Execution that it started or cancelled."),
        Column(
            "content_hash",
            LargeBinary,
            nullable=False,
            comment="First half of the SHA-256 of what was asked for: tells a repeated request from a reused id.",
        ),
        Column("create_time", _TIME, nullable=False, comment="When it came first."),
        Column("workflow_ids", ARRAY(Uuid), comment="Workflows that it was answered, or that it deleted."),
        Column("revisions", ARRAY(Integer), comment="Revisions of them that it was answered."),
        Column("outcomes", ARRAY(Text), comment="What became of them: CREATED, UPDATED, UNCHANGED."),
        PrimaryKeyConstraint("org_id", "request_id", name="requests_pkey"),
        Index("requests_age", "create_time"),
        CheckConstraint(f"method IN ({listed(Method)})", name="requests_method"),
        CheckConstraint(f"outcomes <@ ARRAY[{listed(Outcome)}]", name="requests_outcomes"),
        comment="Request ids, each kept for at least 30 days"
        " and as long as the execution that it started or cancelled.",
    )
