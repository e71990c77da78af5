"""How an execution is paused."""

from pathlib import Path

from alembic import op

revision = "0015"
down_revision = "0014"
oldest = "0008"


def upgrade() -> None:
    """Add the column."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop it: what is paused goes on with the next happening."""
    op.execute("ALTER TABLE executions DROP COLUMN pause")
