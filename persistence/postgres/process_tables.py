"""The tables that the processes of a database share."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Uuid,
)

_TIME = DateTime(timezone=True)


def add_process_tables(metadata: MetaData) -> None:
    """Add the tables."""
    Table(
        "replicas",
        metadata,
        Column("incarnation", Uuid, nullable=False, comment="Id, a new one at each start."),
        Column("name", String(256), nullable=False, comment="Name for people."),
        Column("register_time", _TIME, nullable=False, comment="When it began."),
        Column(
            "lease_until",
            _TIME,
            nullable=False,
            comment="Until when it may drive executions; -infinity when it has ended.",
        ),
        Column("revision", String(32), nullable=False, comment="Schema revision that it works with."),
        PrimaryKeyConstraint("incarnation", name="replicas_pkey"),
        comment="Processes that drive executions, and until when they may.",
    )
    Table(
        "secrets",
        metadata,
        Column("name", String(64), nullable=False, comment="What it is for: page_tokens, which are signed with it."),
        Column(
            "value",
            LargeBinary,
            nullable=False,
            comment="Random bytes. Without the row a new one is made; what was signed before is refused.",
        ),
        Column("create_time", _TIME, nullable=False, comment="When it was made."),
        PrimaryKeyConstraint("name", name="secrets_pkey"),
        CheckConstraint("octet_length(value) = 32", name="secrets_value"),
        comment="What all servers of the database share and nobody else may guess.",
    )
