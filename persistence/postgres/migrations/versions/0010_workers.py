"""Workers of other teams, and the handlers that they have registered."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
oldest = "0008"


def upgrade() -> None:
    """Make the tables."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them: workers register their handlers again when they connect."""
    for table in ("workers", "worker_handlers"):
        op.execute(f"DROP TABLE {table}")
