"""Messages that pause, resume, terminate and signal executions, and the methods of these and of Retry."""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
oldest = "0008"

_MESSAGES = "'CANCEL', 'CHILD_ENDED', 'TASK_COMPLETED'"
_METHODS = (
    "'APPLY_WORKFLOWS', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW', 'DELEGATE_TASK', "
    "'DELETE_WORKFLOW', 'EXECUTE', 'MARK_NOTIFICATIONS_READ', 'RELEASE_TASK', 'UPDATE_WORKFLOW'"
)


def upgrade() -> None:
    """Let the tables hold what is new."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop what is new: what was asked so and not seen is forgotten."""
    op.execute(f"DELETE FROM messages WHERE kind NOT IN ({_MESSAGES})")  # noqa: S608 - our own names
    op.execute(f"DELETE FROM requests WHERE method NOT IN ({_METHODS})")  # noqa: S608 - our own names
    op.execute("ALTER TABLE messages DROP CONSTRAINT messages_kind")
    op.execute(f"ALTER TABLE messages ADD CONSTRAINT messages_kind CHECK (kind IN ({_MESSAGES}))")
    op.execute("COMMENT ON COLUMN messages.kind IS 'What it says: CANCEL, CHILD_ENDED, TASK_COMPLETED.'")
    op.execute("ALTER TABLE requests DROP CONSTRAINT requests_method")
    op.execute(f"ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ({_METHODS}))")
