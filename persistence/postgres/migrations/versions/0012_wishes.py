"""Labels of workers, and what steps wish of the workers that they wait for."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
oldest = "0008"


def upgrade() -> None:
    """Add them."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them: workers say their labels again when they connect."""
    op.execute("DROP TABLE awaited_workers")
    op.execute("ALTER TABLE workers DROP COLUMN labels")
