"""Comments on every table and column, and an order on steps."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
oldest = "0001"

MOST_FILLED = 100_000
"""Rows of steps up to which they get their place: whoever writes one meanwhile waits, and for a moment only."""

_IS_SMALL = f"SELECT count(*) <= {MOST_FILLED} FROM (SELECT FROM steps LIMIT {MOST_FILLED + 1}) s"  # noqa: S608
# A definition is taken apart once, however many executions run it.
_FILL = """
WITH run AS MATERIALIZED (
    SELECT DISTINCT e.org_id, e.workflow_id, e.revision
    FROM executions e JOIN steps s ON s.org_id = e.org_id AND s.execution_id = e.id),
places AS MATERIALIZED (
    SELECT r.org_id, r.workflow_id, r.revision, d.step->>'id' AS path, d.position
    FROM run JOIN workflow_revisions r USING (org_id, workflow_id, revision), LATERAL jsonb_array_elements(
        CASE jsonb_typeof(r.document->'steps') WHEN 'array' THEN r.document->'steps' ELSE '[]' END)
        WITH ORDINALITY AS d(step, position))
UPDATE steps s SET position = p.position
FROM executions e
JOIN places p ON p.org_id = e.org_id AND p.workflow_id = e.workflow_id AND p.revision = e.revision
WHERE e.org_id = s.org_id AND e.id = s.execution_id AND p.path = s.path"""


def upgrade() -> None:
    """Add the column, fill it where that is quick, and comment on all."""
    op.execute("ALTER TABLE steps ADD COLUMN position INTEGER")
    if op.get_bind().exec_driver_sql(_IS_SMALL).scalar():
        # Row by row is what Postgres takes where nothing has told it yet how large its tables are.
        op.execute("SET LOCAL enable_nestloop = off")
        op.execute(_FILL)
    for statement in _comments():
        op.execute(statement)


def downgrade() -> None:
    """Go back to the schema without."""
    for statement in _comments():
        op.execute(f"{statement.partition(' IS ')[0]} IS NULL")
    op.execute("ALTER TABLE steps DROP COLUMN position")


def _comments() -> list[str]:
    text = Path(__file__).with_suffix(".sql").read_text()
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]
