"""Where the present run of an execution began, and what one step has in it instead of what its definition says."""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
oldest = "0008"


def upgrade() -> None:
    """Add the columns."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them: of what was retried and has not ended nobody can tell what is to run again, and it is ended."""
    op.execute("ALTER TABLE execution_inputs DROP COLUMN edit")
    op.execute("ALTER TABLE executions DROP COLUMN reopened_seq")
