"""The revisions of the schema, run by `persistence.postgres.migrate`."""
