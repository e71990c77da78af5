"""Variables of executions that somebody has set."""

from alembic import op

revision = "0023"
down_revision = "0022"
oldest = "0023"

_COMMENT = "Variables that somebody has set: value, seq, first_seq, by name; or NULL."


def upgrade() -> None:
    """Add them."""
    op.execute("ALTER TABLE executions ADD COLUMN edited_vars jsonb")
    op.execute(f"COMMENT ON COLUMN executions.edited_vars IS '{_COMMENT}'")


def downgrade() -> None:
    """Drop them: whoever goes on with an execution finds what its steps have assigned."""
    op.execute("ALTER TABLE executions DROP COLUMN edited_vars")
