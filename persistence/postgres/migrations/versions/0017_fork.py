"""Executions that were made from others, and from which ones."""

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0016"
oldest = "0008"


def upgrade() -> None:
    """Add the column and its index."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them: where an execution comes from is forgotten, and with what variables it began."""
    op.execute("ALTER TABLE execution_inputs DROP COLUMN vars")
    op.execute("ALTER TABLE executions DROP COLUMN lineage")
