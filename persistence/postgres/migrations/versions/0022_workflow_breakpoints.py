"""The next executions of a workflow are held at breakpoints."""

from pathlib import Path

from alembic import op

revision = "0022"
down_revision = "0021"
oldest = "0022"

_METHODS = (
    "'APPLY_WORKFLOWS', 'BREAKPOINTS', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW', "
    "'DELEGATE_TASK', 'DELETE_WORKFLOW', 'EDIT', 'EXECUTE', 'MARK_NOTIFICATIONS_READ', 'PAUSE', 'PAUSE_WORKFLOW', "
    "'RELEASE_TASK', 'RESUME', 'RESUME_WORKFLOW', 'RETRY', 'SIGNAL', 'START_BULK', 'TERMINATE', 'UPDATE_WORKFLOW'"
)


def upgrade() -> None:
    """Add the columns and the methods."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them: what has taken them up keeps its own."""
    for name in ("breakpoints_until", "breakpoints_left", "breakpoints"):
        op.execute(f"ALTER TABLE workflows DROP COLUMN {name}")
    op.execute(f"DELETE FROM requests WHERE method NOT IN ({_METHODS})")  # noqa: S608 - our own names
    op.execute("ALTER TABLE requests DROP CONSTRAINT requests_method")
    op.execute(f"ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ({_METHODS}))")
