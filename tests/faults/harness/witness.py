"""What the harness sees in Postgres without asking Flowkeep: who wrote the rows of executions, and the leases."""

from __future__ import annotations

from tests.faults.harness.database import Postgres

_INSTALL = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.writes (
    id bigserial PRIMARY KEY, time timestamptz NOT NULL, replica text NOT NULL, execution_id uuid NOT NULL,
    old_epoch bigint, epoch bigint NOT NULL, old_incarnation uuid, incarnation uuid,
    old_seq bigint, last_seq bigint NOT NULL, state text NOT NULL);
CREATE TABLE chaos.incarnations (incarnation uuid PRIMARY KEY, time timestamptz NOT NULL, replica text NOT NULL);
CREATE TABLE chaos.leases (time timestamptz NOT NULL, incarnation uuid NOT NULL, until timestamptz NOT NULL);
CREATE FUNCTION chaos.see_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.writes
        (time, replica, execution_id, old_epoch, epoch, old_incarnation, incarnation, old_seq, last_seq, state)
    VALUES (clock_timestamp(), session_user, NEW.id, CASE TG_OP WHEN 'UPDATE' THEN OLD.epoch END, NEW.epoch,
        CASE TG_OP WHEN 'UPDATE' THEN OLD.incarnation END, NEW.incarnation,
        CASE TG_OP WHEN 'UPDATE' THEN OLD.last_seq END, NEW.last_seq, NEW.state);
    RETURN NULL;
END $$;
CREATE FUNCTION chaos.see_replica() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.incarnations VALUES (NEW.incarnation, clock_timestamp(), session_user) ON CONFLICT DO NOTHING;
    INSERT INTO chaos.leases VALUES (clock_timestamp(), NEW.incarnation,
        CASE WHEN isfinite(NEW.lease_until) THEN NEW.lease_until ELSE clock_timestamp() END);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_write AFTER INSERT OR UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION chaos.see_write();
CREATE TRIGGER chaos_replica AFTER INSERT OR UPDATE ON replicas FOR EACH ROW EXECUTE FUNCTION chaos.see_replica();
"""


async def install(postgres: Postgres, replicas: list[str]) -> None:
    """Begin to see, and give each replica an account of its own, by which its writes are known."""
    connection = await postgres.connect()
    try:
        await connection.execute(_INSTALL)
        for name in replicas:
            await connection.execute(f"CREATE ROLE {name} SUPERUSER LOGIN")
    finally:
        await connection.close()
