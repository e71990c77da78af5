"""Where executions are held before steps begin."""

from pathlib import Path

from alembic import op

revision = "0018"
down_revision = "0017"
oldest = "0008"


def upgrade() -> None:
    """Add the column."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop it: nothing is held any more, and what is held goes on when it is resumed."""
    op.execute("ALTER TABLE steps DROP COLUMN fixed")
    op.execute("ALTER TABLE executions DROP COLUMN breakpoints")
