"""Signals that executions keep until a step takes them."""

from alembic import op

revision = "0014"
down_revision = "0013"
oldest = "0008"

_COMMENT = "Signals that no step has taken: id, name, payload, sender, time, size; or NULL."


def upgrade() -> None:
    """Add them."""
    op.execute("ALTER TABLE executions ADD COLUMN signals jsonb")
    op.execute(f"COMMENT ON COLUMN executions.signals IS '{_COMMENT}'")


def downgrade() -> None:
    """Drop them: what no step has taken is forgotten."""
    op.execute("ALTER TABLE executions DROP COLUMN signals")
