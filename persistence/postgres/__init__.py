"""The store on Postgres."""

from persistence.postgres.migrate import check_schema, current_revision, expected_revision, migrate
from persistence.postgres.repository import PostgresRepository

__all__ = ["PostgresRepository", "check_schema", "current_revision", "expected_revision", "migrate"]
