"""Counts what an execution writes, and keeps large payloads once.

Programs of earlier revisions go on beside this one: nothing is shared while one of them has a lease (`sharing.py`).
"""

from alembic import op

revision = "0004"
down_revision = "0003"
oldest = "0001"

_UP = (
    "ALTER TABLE executions ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE executions ADD CONSTRAINT executions_bytes CHECK (bytes >= 0)",
    "ALTER TABLE steps ADD COLUMN shared JSONB",
    "ALTER TABLE events ADD COLUMN shared JSONB",
    "ALTER TABLE replicas ADD COLUMN revision VARCHAR(32) NOT NULL DEFAULT ''",
    """
    CREATE TABLE shared_payloads (
        org_id VARCHAR(256) NOT NULL,
        execution_id UUID NOT NULL,
        digest VARCHAR(64) NOT NULL,
        document JSONB,
        message BYTEA,
        CONSTRAINT shared_payloads_pkey PRIMARY KEY (org_id, execution_id, digest),
        CONSTRAINT shared_payloads_content CHECK ((document IS NULL) <> (message IS NULL))
    ) PARTITION BY RANGE (execution_id)""",
)
_COMMENTS = {
    "COLUMN executions.bytes": "Bytes that it has written: payloads as JSON, and 512 for each event.",
    "COLUMN steps.shared": "Columns whose payload is in shared_payloads, and NULL here, with its digest.",
    "COLUMN events.shared": "What was cut out of body: its digest in shared_payloads, and from which byte on.",
    "COLUMN replicas.revision": "Schema revision that it works with; empty before 0004.",
    "TABLE shared_payloads": "Payloads of 8 KiB and more, once for each execution: steps and events refer to them.",
    "COLUMN shared_payloads.org_id": "Org that the execution belongs to.",
    "COLUMN shared_payloads.execution_id": "Execution.",
    "COLUMN shared_payloads.digest": "SHA-256 of the payload, as hexadecimal digits.",
    "COLUMN shared_payloads.document": "Payload of a step.",
    "COLUMN shared_payloads.message": "Payload of an event, as protobuf.",
}
# Programs of the revision before know no references.
_PUT_BACK = (
    *(
        f"""
        UPDATE steps s SET {name} = p.document FROM shared_payloads p
        WHERE jsonb_typeof(s.shared) = 'object' AND p.org_id = s.org_id AND p.execution_id = s.execution_id
          AND p.digest = s.shared->>'{name}'"""  # noqa: S608 - our own columns
        for name in ("input", "output", "assigned")
    ),
    """
    UPDATE events v SET body = overlay(v.body PLACING p.message FROM (v.shared->>'at')::int + 1 FOR 0)
    FROM shared_payloads p
    WHERE jsonb_typeof(v.shared->'at') = 'number' AND p.org_id = v.org_id AND p.execution_id = v.execution_id
      AND p.digest = v.shared->>'digest'""",
)
_DOWN = (
    "ALTER TABLE executions DROP COLUMN bytes",
    "ALTER TABLE steps DROP COLUMN shared",
    "ALTER TABLE events DROP COLUMN shared",
    "ALTER TABLE replicas DROP COLUMN revision",
    "DROP TABLE shared_payloads",
)


def upgrade() -> None:
    """Add the count, which begins with what is written now, and where large payloads are kept."""
    for statement in _UP:
        op.execute(statement)
    for what, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON {what} IS '{comment}'")


def downgrade() -> None:
    """Put the payloads back to where they were, and go back to the schema without."""
    for statement in (*_PUT_BACK, *_DOWN):
        op.execute(statement)
