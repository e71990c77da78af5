"""Whole workflows are paused, and executions wait for their resume."""

from pathlib import Path

from alembic import op

revision = "0021"
down_revision = "0020"
oldest = "0021"

_METHODS = (
    "'APPLY_WORKFLOWS', 'BREAKPOINTS', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW', "
    "'DELEGATE_TASK', 'DELETE_WORKFLOW', 'EDIT', 'EXECUTE', 'MARK_NOTIFICATIONS_READ', 'PAUSE', 'RELEASE_TASK', "
    "'RESUME', 'RETRY', 'SIGNAL', 'START_BULK', 'TERMINATE', 'UPDATE_WORKFLOW'"
)


def upgrade() -> None:
    """Add the columns and the methods."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them: no workflow is paused any more, and what has waited for a resume starts."""
    op.execute(
        "UPDATE executions SET wake_time = greatest(scheduled_time, clock_timestamp())"
        " WHERE held_back AND incarnation IS NULL AND end_time IS NULL"
    )
    op.execute("ALTER TABLE executions DROP COLUMN held_back")
    op.execute("ALTER TABLE workflows DROP COLUMN pause")
    op.execute(f"DELETE FROM requests WHERE method NOT IN ({_METHODS})")  # noqa: S608 - our own names
    op.execute("ALTER TABLE requests DROP CONSTRAINT requests_method")
    op.execute(f"ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ({_METHODS}))")
