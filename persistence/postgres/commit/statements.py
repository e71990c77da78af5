"""The statements of a flush, each over a set of rows."""

from __future__ import annotations

from persistence.postgres.commit import columns
from persistence.postgres.records import EXECUTION_COLUMNS, selected

# The lock keeps a workflow from being deleted beside a creation that would then have missed the cancelling.
LIVE_WORKFLOWS = """
SELECT w.org_id, w.id FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id)
JOIN workflows w ON w.org_id = u.org_id AND w.id = u.id
WHERE w.delete_time IS NULL FOR KEY SHARE OF w"""

INSERT_REQUESTS = f"""
INSERT INTO execution_requests ({", ".join(columns.REQUEST)}) {columns.select(columns.REQUEST)}
ON CONFLICT DO NOTHING RETURNING execution_id"""

KNOWN_REQUESTS = f"""
SELECT r.org_id AS request_org, r.request_id AS request, r.content_hash, r.execution_id,
       {selected(EXECUTION_COLUMNS, "e.")}
FROM unnest($1::text[], $2::text[]) AS u(org_id, request_id)
JOIN execution_requests r ON r.org_id = u.org_id AND r.request_id = u.request_id
LEFT JOIN executions e ON e.org_id = r.org_id AND e.id = r.execution_id
FOR KEY SHARE OF r"""  # noqa: S608 - our own columns
"""What a lock finds is confirmed by the synchronous standbys before it is answered, as the write of a lock is."""

INSERT_EXECUTIONS = f"""
INSERT INTO executions ({", ".join(columns.EXECUTION)}) {columns.select(columns.EXECUTION)}
ON CONFLICT DO NOTHING RETURNING id"""

INSERT_PAYLOADS = f"""
INSERT INTO execution_payloads ({", ".join(columns.PAYLOAD)}) {columns.select(columns.PAYLOAD)}"""

_SAME_NAMED = (
    "state", "last_seq", "steps_total", "steps_completed", "steps_failed", "steps_skipped", "steps_running",
    "steps_cancelled", "progress", "start_time", "end_time", "deadline_time", "failure", "ending",
    "bytes",
)  # fmt: skip
UPDATE_EXECUTIONS = f"""
UPDATE executions e SET {", ".join(f"{name} = u.{name}" for name in _SAME_NAMED)},
    deaths = CASE WHEN u.survived THEN 0 ELSE e.deaths END,
    incarnation = CASE WHEN NOT u.released THEN e.incarnation END,
    wake_time = CASE
        WHEN NOT u.released OR u.end_time IS NOT NULL THEN NULL
        -- A wish that the owner gave up without having seen must not wait for a timer.
        WHEN e.cancel_time IS NOT NULL AND NOT u.cancel_seen THEN clock_timestamp()
        ELSE coalesce(u.wake_time, clock_timestamp()) END
FROM ({columns.select(columns.CHANGE)}) u
WHERE e.org_id = u.org_id AND e.id = u.id
  -- Not `=`: the index of incarnations must never be chosen, it finds all that a replica drives.
  AND e.incarnation IS NOT DISTINCT FROM u.incarnation AND e.epoch = u.epoch AND e.last_seq = u.base_seq
  AND (u.cancel_seen OR e.cancel_time IS NULL OR NOT u.ends_otherwise)
RETURNING e.id"""  # noqa: S608 - our own columns

_STEP_KEY = ("org_id", "execution_id", "path")
UPSERT_STEPS = f"""
INSERT INTO steps AS s ({", ".join(columns.STEP)}) {columns.select(columns.STEP)}
ON CONFLICT ({", ".join(_STEP_KEY)}) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in columns.STEP if name not in _STEP_KEY)}
WHERE s.end_time IS NULL OR (s.state = 'COMPLETED' AND excluded.state = 'COMPENSATED')"""

INSERT_EVENTS = f"INSERT INTO events ({', '.join(columns.EVENT)}) {columns.select(columns.EVENT)}"

INSERT_SHARED = f"""
INSERT INTO shared_payloads ({", ".join(columns.SHARED)}) {columns.select(columns.SHARED)}
ON CONFLICT DO NOTHING"""

SET_RESULTS = f"""
UPDATE execution_payloads p SET result = u.result FROM ({columns.select(columns.PAYLOAD)}) u
WHERE p.org_id = u.org_id AND p.execution_id = u.execution_id"""  # noqa: S608 - our own columns
