"""Counts what an execution writes."""

from alembic import op

revision = "0004"
down_revision = "0003"
oldest = "0001"


def upgrade() -> None:
    """Add the count; what executions have written before is not counted."""
    op.execute("ALTER TABLE executions ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE executions ADD CONSTRAINT executions_bytes CHECK (bytes >= 0)")
    op.execute(
        "COMMENT ON COLUMN executions.bytes IS 'Bytes that it has written: payloads as JSON, and 512 for each event.'"
    )


def downgrade() -> None:
    """Go back to the schema without."""
    op.execute("ALTER TABLE executions DROP COLUMN bytes")
