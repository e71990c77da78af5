"""Operations in bulk with what came of each execution, and the method that starts them."""

from pathlib import Path

from alembic import op

revision = "0019"
down_revision = "0018"
oldest = "0008"

_METHODS = (
    "'APPLY_WORKFLOWS', 'BREAKPOINTS', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW', "
    "'DELEGATE_TASK', 'DELETE_WORKFLOW', 'EDIT', 'EXECUTE', 'MARK_NOTIFICATIONS_READ', 'PAUSE', 'RELEASE_TASK', "
    "'RESUME', 'RETRY', 'SIGNAL', 'TERMINATE', 'UPDATE_WORKFLOW'"
)


def upgrade() -> None:
    """Add them."""
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them: operations that run go no further, and what they have asked stays asked."""
    op.execute("DROP TABLE bulk_results")
    op.execute("DROP TABLE bulks")
    op.execute(f"DELETE FROM requests WHERE method NOT IN ({_METHODS})")  # noqa: S608 - our own names
    op.execute("ALTER TABLE requests DROP CONSTRAINT requests_method")
    op.execute(f"ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ({_METHODS}))")
