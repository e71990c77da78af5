"""The store on Postgres."""

from persistence.postgres.migrate import migrate
from persistence.postgres.repository import PostgresRepository
from persistence.postgres.revisions import check_schema, current_revision, expected_revision

__all__ = ["PostgresRepository", "check_schema", "current_revision", "expected_revision", "migrate"]
