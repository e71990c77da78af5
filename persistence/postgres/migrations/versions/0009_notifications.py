"""Notifications that steps send to people; programs of 0008 on find all that they know as it was."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
oldest = "0008"

_TABLES = ("notification_reads", "notification_recipients", "notifications", "notification_counters")
_METHOD = "MARK_NOTIFICATIONS_READ"
_METHODS = (
    "APPLY_WORKFLOWS",
    "CANCEL",
    "CLAIM_TASK",
    "COMMENT_TASK",
    "COMPLETE_TASK",
    "CREATE_WORKFLOW",
    "DELEGATE_TASK",
    "DELETE_WORKFLOW",
    "EXECUTE",
    "RELEASE_TASK",
    "UPDATE_WORKFLOW",
)


def upgrade() -> None:
    """Make their tables, and let request ids be of the call that marks them as read."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)
    _allow(*_METHODS, _METHOD)


def downgrade() -> None:
    """Drop them with all that they hold, and forget the request ids of that call."""
    for table in _TABLES:
        op.execute(f"DROP TABLE {table}")
    op.execute(f"DELETE FROM requests WHERE method = '{_METHOD}'")  # noqa: S608 - our own name
    _allow(*_METHODS)


def _allow(*methods: str) -> None:
    names = ", ".join(f"'{each}'" for each in sorted(methods))
    op.execute("ALTER TABLE requests DROP CONSTRAINT requests_method")
    op.execute(f"ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ({names}))")
