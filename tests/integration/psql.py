"""What `psql` says of an embedded Postgres."""

from __future__ import annotations

import subprocess

from persistence.embedded import EmbeddedPostgres


def query(postgres: EmbeddedPostgres, sql: str) -> str:
    """Return what a statement gives, without headings and white space around it."""
    command = [*postgres.psql_command(), "-XAtqc", sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
