"""Executions that send nothing outside, and the steps that nothing ran."""

from pathlib import Path

from alembic import op

revision = "0020"
down_revision = "0019"
oldest = "0020"

_NONE_OPEN = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM executions WHERE dry_run AND end_time IS NULL) THEN
        RAISE EXCEPTION 'there are dry runs that have not ended: an earlier program would send what they do not';
    END IF;
END $$"""


def upgrade() -> None:
    """Add the columns."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them, unless there are dry runs that have not ended; those that have are executions like any other then."""
    op.execute(_NONE_OPEN)
    op.execute("ALTER TABLE steps DROP COLUMN mocked")
    op.execute("ALTER TABLE execution_inputs DROP COLUMN dry_run")
    op.execute("ALTER TABLE executions DROP COLUMN dry_run")
