"""Counts the owners that died while they drove an execution, and lets orgs take turns."""

from alembic import op

revision = "0002"
down_revision = "0001"
oldest = "0001"

_CLAIMABLE = "CREATE INDEX executions_claimable ON executions ({}) WHERE incarnation IS NULL AND end_time IS NULL"


def upgrade() -> None:
    """Add the count and its index; sort what is claimable by org within a priority."""
    op.execute("ALTER TABLE executions ADD COLUMN deaths SMALLINT NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE executions ADD CONSTRAINT executions_deaths CHECK (deaths >= 0)")
    op.execute("CREATE INDEX executions_suspect ON executions (deaths, id) WHERE deaths >= 2 AND end_time IS NULL")
    op.execute("DROP INDEX executions_claimable")
    op.execute(_CLAIMABLE.format("priority DESC, org_id, wake_time, id"))


def downgrade() -> None:
    """Go back to the first schema."""
    op.execute("DROP INDEX executions_claimable")
    op.execute(_CLAIMABLE.format("priority DESC, wake_time, id"))
    op.execute("DROP INDEX executions_suspect")
    op.execute("ALTER TABLE executions DROP COLUMN deaths")
