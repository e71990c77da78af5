"""Keeps what all servers of a database share and nobody else may guess."""

from alembic import op

revision = "0005"
down_revision = "0004"
oldest = "0001"


def upgrade() -> None:
    """Make the table; the first server that asks for a secret makes that."""
    op.execute("""
        CREATE TABLE secrets (
            name VARCHAR(64) NOT NULL CONSTRAINT secrets_pkey PRIMARY KEY,
            value BYTEA NOT NULL,
            create_time TIMESTAMPTZ NOT NULL,
            CONSTRAINT secrets_value CHECK (octet_length(value) = 32)
        )""")
    for statement in (
        "TABLE secrets IS 'What all servers of the database share and nobody else may guess.'",
        "COLUMN secrets.name IS 'What it is for: page_tokens, which are signed with it.'",
        "COLUMN secrets.value IS 'Random bytes. Without the row a new one is made; what was signed before is refused.'",
        "COLUMN secrets.create_time IS 'When it was made.'",
    ):
        op.execute(f"COMMENT ON {statement}")


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE secrets")
