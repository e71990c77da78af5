"""Tasks of people: their table, the message that one is completed, and the methods that change them."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
oldest = "0008"

_MESSAGES = "'CANCEL', 'CHILD_ENDED'"
_METHODS = "'APPLY_WORKFLOWS', 'CANCEL', 'CREATE_WORKFLOW', 'DELETE_WORKFLOW', 'EXECUTE', 'UPDATE_WORKFLOW'"


def upgrade() -> None:
    """Make the table and let the others hold what is new."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop the table, and what the others hold that is new. A step that waits for a person then waits for ever."""
    op.execute("DROP TABLE tasks")
    op.execute(f"DELETE FROM messages WHERE kind NOT IN ({_MESSAGES})")  # noqa: S608 - our own names
    op.execute(f"DELETE FROM requests WHERE method NOT IN ({_METHODS})")  # noqa: S608 - our own names
    op.execute("ALTER TABLE messages DROP CONSTRAINT messages_kind")
    op.execute(f"ALTER TABLE messages ADD CONSTRAINT messages_kind CHECK (kind IN ({_MESSAGES}))")
    op.execute("COMMENT ON COLUMN messages.kind IS 'What it says: CANCEL, CHILD_ENDED.'")
    op.execute("ALTER TABLE requests DROP CONSTRAINT requests_method")
    op.execute(f"ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ({_METHODS}))")
