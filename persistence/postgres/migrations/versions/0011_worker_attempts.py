"""Attempts that workers run which hang on another process than the one that drives the execution."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
oldest = "0008"


def upgrade() -> None:
    """Make the table."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop it: the attempts are made again, as if their workers had not come back."""
    op.execute("DROP TABLE worker_attempts")
