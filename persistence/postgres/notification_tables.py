"""The tables of notifications that steps send to people."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from persistence.postgres.listed import listed
from persistence.user_notifications import LONGEST_LINK, LONGEST_TEXT, LONGEST_TITLE, RecipientKind, Severity

_TIME = DateTime(timezone=True)
_ORG = String(256)


def add_notification_tables(metadata: MetaData) -> None:
    """Add the tables."""
    Table(
        "notification_counters",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org."),
        Column("last_seq", BigInteger, nullable=False, comment="Number that was given last."),
        PrimaryKeyConstraint("org_id", name="notification_counters_pkey"),
        comment="Numbers of notifications: its row is locked until they are committed, so that they appear in order.",
    )
    Table(
        "notifications",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org of the execution that sent it."),
        Column("seq", BigInteger, nullable=False, comment="Number in the org, in the order of commits."),
        Column("token", String(64), nullable=False, comment="Idempotency token of the step: it sends one at most."),
        Column("title", String(LONGEST_TITLE), nullable=False, comment="One line."),
        Column("text", String(LONGEST_TEXT), nullable=False, comment="Text, empty for none."),
        Column("link", String(LONGEST_LINK), nullable=False, comment="Where it leads, empty for nowhere."),
        Column("data", JSONB, comment="What a program may want to know, an object."),
        Column("severity", String(8), nullable=False, comment="How much it matters: INFO, WARNING, ERROR."),
        Column("workflow_name", String(128), nullable=False, comment="Workflow that sent it."),
        Column("execution_id", Uuid, nullable=False, comment="Execution that sent it; it may be gone."),
        Column("step_path", Text, nullable=False, comment="Step that sent it."),
        Column("create_time", _TIME, nullable=False, comment="When it was sent."),
        PrimaryKeyConstraint("org_id", "seq", name="notifications_pkey"),
        Index("notifications_token", "org_id", "token", unique=True),
        Index("notifications_age", "create_time"),
        CheckConstraint(f"severity IN ({listed(Severity)})", name="notifications_severity"),
        comment="What steps tell people, kept for 30 days: to whom is in notification_recipients.",
    )
    Table(
        "notification_recipients",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org."),
        Column("kind", String(8), nullable=False, comment="What the name is of: SUBJECT, GROUP."),
        Column("name", String(256), nullable=False, comment="Whom it is for."),
        Column("seq", BigInteger, nullable=False, comment="Notification."),
        Column("number", BigInteger, nullable=False, comment="Number among those of this recipient."),
        PrimaryKeyConstraint("org_id", "kind", "name", "seq", name="notification_recipients_pkey"),
        ForeignKeyConstraint(
            ["org_id", "seq"],
            ["notifications.org_id", "notifications.seq"],
            name="notification_recipients_notification",
            ondelete="CASCADE",
        ),
        Index("notification_recipients_seq", "org_id", "seq"),
        CheckConstraint(f"kind IN ({listed(RecipientKind)})", name="notification_recipients_kind"),
        comment="Whom notifications are for, the newest 1,000 of each.",
    )
    Table(
        "notification_reads",
        metadata,
        Column("org_id", _ORG, nullable=False, comment="Org."),
        Column("seq", BigInteger, nullable=False, comment="Notification."),
        Column("subject", String(256), nullable=False, comment="Who has read it."),
        Column("read_time", _TIME, nullable=False, comment="When."),
        PrimaryKeyConstraint("org_id", "seq", "subject", name="notification_reads_pkey"),
        ForeignKeyConstraint(
            ["org_id", "seq"],
            ["notifications.org_id", "notifications.seq"],
            name="notification_reads_notification",
            ondelete="CASCADE",
        ),
        comment="Which notifications were read, and by whom.",
    )
