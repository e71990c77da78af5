"""The first schema; its partitions are made when a store is opened.

Revisions 0001 to 0006 were of releases whose rows and events cannot be read; `migrate.check_readable` refuses them.
"""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = None
oldest = "0007"

_TABLES = (
    "secrets",
    "replicas",
    "requests",
    "messages",
    "shared_payloads",
    "transitions",
    "steps",
    "execution_inputs",
    "executions",
    "workflow_revisions",
    "workflows",
)


def upgrade() -> None:
    """Make all tables."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop all tables with all that they hold."""
    op.execute("DROP VIEW events")
    for table in _TABLES:
        op.execute(f"DROP TABLE {table}")
