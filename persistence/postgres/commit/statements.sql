-- What persistence/postgres/commit/statements.py sends to Postgres. Made by make generate, changed there.
-- EXPLAIN (GENERIC_PLAN) takes each as it stands, from Postgres 16 on.

-- LIVE_WORKFLOWS: $1 workflow_orgs, $2 workflow_ids, $3 workflow_revisions
SELECT w.org_id, w.id, u.revision, w.pause IS NOT NULL AS is_paused, coalesce(w.breakpoints_left > 0 AND w.breakpoints_until > clock_timestamp() AND w.breakpoints IS NOT NULL, false) AS is_held
FROM unnest($1::text[], $2::uuid[], $3::int[]) AS u(org_id, id, revision)
JOIN workflows w ON w.org_id = u.org_id AND w.id = u.id
WHERE w.delete_time IS NULL AND (u.revision = 0 OR u.revision = w.revision) FOR KEY SHARE OF w;

-- LOCK_BREAKPOINTS: $1 workflow_orgs, $2 workflow_ids
SELECT w.org_id, w.id, w.breakpoints, w.breakpoints_left, CASE WHEN w.breakpoints_until < '0001-01-01 00:00:00+00' OR w.breakpoints_until > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE w.breakpoints_until END AS breakpoints_until,
    coalesce(w.breakpoints_left > 0 AND w.breakpoints_until > clock_timestamp() AND w.breakpoints IS NOT NULL, false) AS is_held
FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id)
JOIN workflows w ON w.org_id = u.org_id AND w.id = u.id
ORDER BY w.org_id, w.id FOR NO KEY UPDATE OF w;

-- TAKE_BREAKPOINTS: $1 workflow_orgs, $2 workflow_ids, $3 lefts
UPDATE workflows w SET breakpoints_left = nullif(u.breakpoints_left, 0),
    breakpoints = CASE WHEN u.breakpoints_left > 0 THEN w.breakpoints END,
    breakpoints_until = CASE WHEN u.breakpoints_left > 0 THEN w.breakpoints_until END
FROM unnest($1::text[], $2::uuid[], $3::int[]) AS u(org_id, id, breakpoints_left)
WHERE w.org_id = u.org_id AND w.id = u.id;

-- INSERT_REQUESTS: $1 requests
INSERT INTO requests (org_id, request_id, method, execution_id, content_hash, create_time)
SELECT r->>0 AS org_id, r->>1 AS request_id, r->>2 AS method, (r->>3)::uuid AS execution_id,
    decode(r->>4, 'base64') AS content_hash, (r->>5)::timestamptz AS create_time
FROM jsonb_array_elements($1::jsonb) AS r
ON CONFLICT DO NOTHING RETURNING execution_id;

-- GIVE_BACK_REQUESTS: $1 orgs, $2 request_ids
DELETE FROM requests r USING unnest($1::text[], $2::text[]) AS u(org_id, request_id)
WHERE r.org_id = u.org_id AND r.request_id = u.request_id;

-- KNOWN_REQUESTS: $1 orgs, $2 request_ids
SELECT r.org_id AS request_org, r.request_id AS request, r.method, r.content_hash, r.execution_id,
    e.org_id, e.id, e.owner, e.workflow_id, e.workflow_name, e.revision, e.state, CASE WHEN e.create_time < '0001-01-01 00:00:00+00' OR e.create_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.create_time END AS create_time, e.timeout, e.priority, e.tags, e.labels, e.correlation_id, e.request_id, CASE WHEN e.scheduled_time < '0001-01-01 00:00:00+00' OR e.scheduled_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.scheduled_time END AS scheduled_time, CASE WHEN e.start_time < '0001-01-01 00:00:00+00' OR e.start_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.start_time END AS start_time, CASE WHEN e.end_time < '0001-01-01 00:00:00+00' OR e.end_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.end_time END AS end_time, CASE WHEN e.deadline_time < '0001-01-01 00:00:00+00' OR e.deadline_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.deadline_time END AS deadline_time, e.progress, e.steps_total, e.steps_completed, e.steps_failed, e.steps_skipped, e.steps_running, e.steps_cancelled, e.last_seq, e.failure, e.ending, e.pause, e.mail, e.incarnation, e.epoch, CASE WHEN e.wake_time < '0001-01-01 00:00:00+00' OR e.wake_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.wake_time END AS wake_time, e.deaths, e.bytes, e.run, e.usage, e.reopened_seq, e.lineage, e.breakpoints, e.held_back, e.dry_run
FROM unnest($1::text[], $2::text[]) AS u(org_id, request_id)
JOIN requests r ON r.org_id = u.org_id AND r.request_id = u.request_id
LEFT JOIN executions e ON e.org_id = r.org_id AND e.id = r.execution_id
FOR KEY SHARE OF r;

-- INSERT_EXECUTIONS: $1 executions
INSERT INTO executions (org_id, id, owner, workflow_id, workflow_name, revision, state, create_time, timeout, priority, tags, labels,
    correlation_id, request_id, scheduled_time, start_time, end_time, deadline_time, progress, steps_total,
    steps_completed, steps_failed, steps_skipped, steps_running, steps_cancelled, last_seq, result, failure, ending,
    mail, incarnation, epoch, wake_time, bytes, run, lineage, pause, breakpoints, held_back, signals, dry_run)
SELECT r->>0 AS org_id, (r->>1)::uuid AS id, r->>2 AS owner, (r->>3)::uuid AS workflow_id, r->>4 AS workflow_name,
    (r->>5)::int AS revision, r->>6 AS state, (r->>7)::timestamptz AS create_time, (r->>8)::float8 AS timeout,
    (r->>9)::int AS priority,
    CASE WHEN r->10 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->10)) END AS tags,
    nullif(r->11, 'null') AS labels, r->>12 AS correlation_id, r->>13 AS request_id,
    (r->>14)::timestamptz AS scheduled_time, (r->>15)::timestamptz AS start_time, (r->>16)::timestamptz AS end_time,
    (r->>17)::timestamptz AS deadline_time, (r->>18)::int AS progress, (r->>19)::int AS steps_total,
    (r->>20)::int AS steps_completed, (r->>21)::int AS steps_failed, (r->>22)::int AS steps_skipped,
    (r->>23)::int AS steps_running, (r->>24)::int AS steps_cancelled, (r->>25)::int8 AS last_seq,
    nullif(r->26, 'null') AS result, nullif(r->27, 'null') AS failure, nullif(r->28, 'null') AS ending,
    (r->>29)::int8 AS mail, (r->>30)::uuid AS incarnation, (r->>31)::int8 AS epoch,
    (r->>32)::timestamptz AS wake_time, (r->>33)::int8 AS bytes, (r->>34)::int AS run,
    nullif(r->35, 'null') AS lineage, nullif(r->36, 'null') AS pause, nullif(r->37, 'null') AS breakpoints,
    (r->>38)::bool AS held_back, nullif(r->39, 'null') AS signals, (r->>40)::bool AS dry_run
FROM jsonb_array_elements($1::jsonb) AS r
ON CONFLICT DO NOTHING RETURNING id;

-- INSERT_INPUTS: $1 inputs
INSERT INTO execution_inputs (org_id, execution_id, input, vars, dry_run)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, nullif(r->2, 'null') AS input, nullif(r->3, 'null') AS vars,
    nullif(r->4, 'null') AS dry_run
FROM jsonb_array_elements($1::jsonb) AS r;

-- UPDATE_EXECUTIONS: $1 changes
UPDATE executions e SET state = u.state, last_seq = u.last_seq, steps_total = u.steps_total, steps_completed = u.steps_completed,
    steps_failed = u.steps_failed, steps_skipped = u.steps_skipped, steps_running = u.steps_running,
    steps_cancelled = u.steps_cancelled, progress = u.progress, start_time = u.start_time, end_time = u.end_time,
    deadline_time = u.deadline_time, result = u.result, failure = u.failure, ending = u.ending, pause = u.pause,
    breakpoints = u.breakpoints, bytes = u.bytes, usage = u.usage,
    deaths = CASE WHEN u.survived THEN 0 ELSE e.deaths END,
    incarnation = CASE WHEN NOT u.released THEN e.incarnation END,
    wake_time = CASE
        WHEN NOT u.released OR u.end_time IS NOT NULL THEN NULL
        -- What the owner gave up without having seen must not wait for a timer.
        WHEN e.mail > u.mail_seen THEN clock_timestamp()
        ELSE coalesce(u.wake_time, clock_timestamp()) END,
    held_back = CASE WHEN u.start_time IS NULL THEN e.held_back END,
    awaits = CASE WHEN u.released AND u.end_time IS NULL THEN u.awaits END,
    signals = CASE WHEN u.signals IS NULL THEN e.signals WHEN u.signals <> '[]' THEN u.signals END,
    edited_vars = coalesce(u.edited_vars, e.edited_vars)
FROM (SELECT r->>0 AS org_id, (r->>1)::uuid AS id, (r->>2)::uuid AS incarnation, (r->>3)::int8 AS epoch,
    (r->>4)::int8 AS base_seq, (r->>5)::int8 AS last_seq, r->>6 AS state, (r->>7)::int8 AS mail_seen,
    (r->>8)::int8 AS bound, (r->>9)::bool AS released, (r->>10)::bool AS survived, (r->>11)::int AS steps_total,
    (r->>12)::int AS steps_completed, (r->>13)::int AS steps_failed, (r->>14)::int AS steps_skipped,
    (r->>15)::int AS steps_running, (r->>16)::int AS steps_cancelled, (r->>17)::int AS progress,
    (r->>18)::timestamptz AS start_time, (r->>19)::timestamptz AS end_time, (r->>20)::timestamptz AS deadline_time,
    (r->>21)::timestamptz AS wake_time, nullif(r->22, 'null') AS result, nullif(r->23, 'null') AS awaits,
    nullif(r->24, 'null') AS failure, nullif(r->25, 'null') AS ending, nullif(r->26, 'null') AS pause,
    nullif(r->27, 'null') AS breakpoints, (r->>28)::int8 AS bytes, nullif(r->29, 'null') AS usage,
    nullif(r->30, 'null') AS signals, nullif(r->31, 'null') AS edited_vars
FROM jsonb_array_elements($1::jsonb) AS r) u
WHERE e.org_id = u.org_id AND e.id = u.id
    -- Not `=`: the index of incarnations must never be chosen, it finds all that a replica drives.
    AND e.incarnation IS NOT DISTINCT FROM u.incarnation AND e.epoch = u.epoch AND e.last_seq = u.base_seq
    AND (u.bound IS NULL OR e.mail <= u.bound)
RETURNING e.id;

-- UPSERT_STEPS: $1 steps
INSERT INTO steps AS s (org_id, execution_id, path, iteration, handler, state, attempt, failures, progress, input, output, failure,
    failed_attempts, assigned, skip_reason, start_time, attempt_time, end_time, wait, end_seq, worker, position,
    items, usage, fixed, mocked, shared)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, r->>2 AS path, (r->>3)::int AS iteration, r->>4 AS handler,
    r->>5 AS state, (r->>6)::int AS attempt, (r->>7)::int AS failures, (r->>8)::int AS progress,
    nullif(r->9, 'null') AS input, nullif(r->10, 'null') AS output, nullif(r->11, 'null') AS failure,
    nullif(r->12, 'null') AS failed_attempts, nullif(r->13, 'null') AS assigned, r->>14 AS skip_reason,
    (r->>15)::timestamptz AS start_time, (r->>16)::timestamptz AS attempt_time, (r->>17)::timestamptz AS end_time,
    nullif(r->18, 'null') AS wait, (r->>19)::int8 AS end_seq, r->>20 AS worker, (r->>21)::int AS position,
    (r->>22)::int[] AS items, nullif(r->23, 'null') AS usage, (r->>24)::bool AS fixed, (r->>25)::bool AS mocked,
    nullif(r->26, 'null') AS shared
FROM jsonb_array_elements($1::jsonb) AS r
ON CONFLICT (execution_id, path, iteration) DO UPDATE SET
    handler = excluded.handler, state = excluded.state, attempt = excluded.attempt, failures = excluded.failures,
    progress = excluded.progress, output = excluded.output, failure = excluded.failure,
    failed_attempts = excluded.failed_attempts, assigned = excluded.assigned, skip_reason = excluded.skip_reason,
    start_time = excluded.start_time, attempt_time = excluded.attempt_time, end_time = excluded.end_time,
    wait = excluded.wait, end_seq = excluded.end_seq, worker = excluded.worker, position = excluded.position,
    items = excluded.items, usage = excluded.usage, fixed = excluded.fixed, mocked = excluded.mocked,
    input = CASE WHEN excluded.shared->'input' = 'true' THEN s.input ELSE excluded.input END,
    shared = CASE WHEN excluded.shared->'input' = 'true'
        THEN nullif(jsonb_strip_nulls(excluded.shared || jsonb_build_object('input', s.shared->'input')), '{}')
        ELSE excluded.shared END
WHERE s.end_time IS NULL OR (s.state = 'COMPLETED' AND excluded.state = 'COMPENSATED');

-- INSERT_HISTORY: $1 history
INSERT INTO transitions (execution_id, seq, time, org_id, layout, body, shared)
SELECT (r->>0)::uuid AS execution_id, (r->>1)::int8 AS seq, (r->>2)::timestamptz AS time, r->>3 AS org_id, r->>4 AS layout,
    decode(r->>5, 'base64') AS body, nullif(r->6, 'null') AS shared
FROM jsonb_array_elements($1::jsonb) AS r;

-- INSERT_SHARED: $1 shared
INSERT INTO shared_payloads (org_id, execution_id, digest, document, message)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, r->>2 AS digest, nullif(r->3, 'null') AS document,
    decode(r->>4, 'base64') AS message
FROM jsonb_array_elements($1::jsonb) AS r
ON CONFLICT DO NOTHING;

-- REMOVE_MESSAGES: $1 consumed
DELETE FROM messages m USING (SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, (r->>2)::uuid AS id
FROM jsonb_array_elements($1::jsonb) AS r) u
WHERE m.org_id = u.org_id AND m.execution_id = u.execution_id AND m.id = u.id;

-- INSERT_MESSAGES: $1 letters
INSERT INTO messages (org_id, execution_id, id, kind, create_time, sender, body)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, (r->>2)::uuid AS id, r->>3 AS kind,
    (r->>4)::timestamptz AS create_time, r->>5 AS sender, nullif(r->6, 'null') AS body
FROM jsonb_array_elements($1::jsonb) AS r
ON CONFLICT DO NOTHING;

-- INSERT_TASKS: $1 tasks
INSERT INTO tasks (org_id, execution_id, id, path, iteration, workflow_name, owner, state, title, outcomes, assignees, groups,
    create_time, update_time, due_time, waited, escalated, version, description, form)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, (r->>2)::uuid AS id, r->>3 AS path, (r->>4)::int AS iteration,
    r->>5 AS workflow_name, r->>6 AS owner, r->>7 AS state, r->>8 AS title,
    CASE WHEN r->9 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->9)) END AS outcomes,
    CASE WHEN r->10 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->10)) END AS assignees,
    CASE WHEN r->11 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->11)) END AS groups,
    (r->>12)::timestamptz AS create_time, (r->>13)::timestamptz AS update_time, (r->>14)::timestamptz AS due_time,
    (r->>15)::bool AS waited, (r->>16)::bool AS escalated, (r->>17)::int AS version, r->>18 AS description,
    nullif(r->19, 'null') AS form
FROM jsonb_array_elements($1::jsonb) AS r
ON CONFLICT DO NOTHING;

-- CHANGE_TASKS: $1 task_changes
UPDATE tasks t SET state = u.state, update_time = u.time, version = t.version + 1,
    end_time = CASE WHEN u.ends THEN u.time END,
    outcome = u.outcome,
    escalated = t.escalated OR NOT u.ends,
    assignees = CASE WHEN u.ends THEN t.assignees ELSE u.assignees END,
    groups = CASE WHEN u.ends THEN t.groups ELSE u.groups END,
    due_time = CASE WHEN u.ends THEN t.due_time ELSE u.due_time END,
    claimed_by = CASE WHEN u.ends THEN t.claimed_by END,
    claim_time = CASE WHEN u.ends THEN t.claim_time END
FROM (SELECT r->>0 AS org_id, (r->>1)::uuid AS id, r->>2 AS state, (r->>3)::timestamptz AS time, (r->>4)::bool AS ends,
    r->>5 AS outcome, CASE WHEN r->6 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->6)) END AS assignees,
    CASE WHEN r->7 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->7)) END AS groups,
    (r->>8)::timestamptz AS due_time
FROM jsonb_array_elements($1::jsonb) AS r) u
WHERE t.org_id = u.org_id AND t.id = u.id AND t.end_time IS NULL;

-- READ_CHANGED: $1 orgs, $2 execution_ids, $3 last_seqs
SELECT e.id, e.incarnation, e.epoch, e.last_seq, t.body
FROM unnest($1::text[], $2::uuid[], $3::int8[]) AS u(org_id, id, last_seq)
JOIN executions e ON e.org_id = u.org_id AND e.id = u.id
LEFT JOIN transitions t ON t.org_id = e.org_id AND t.execution_id = e.id AND t.seq = u.last_seq
FOR SHARE OF e;

-- READ_CREATED: $1 orgs, $2 execution_ids
SELECT e.org_id, e.id, e.owner, e.workflow_id, e.workflow_name, e.revision, e.state, CASE WHEN e.create_time < '0001-01-01 00:00:00+00' OR e.create_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.create_time END AS create_time, e.timeout, e.priority, e.tags, e.labels, e.correlation_id, e.request_id, CASE WHEN e.scheduled_time < '0001-01-01 00:00:00+00' OR e.scheduled_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.scheduled_time END AS scheduled_time, CASE WHEN e.start_time < '0001-01-01 00:00:00+00' OR e.start_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.start_time END AS start_time, CASE WHEN e.end_time < '0001-01-01 00:00:00+00' OR e.end_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.end_time END AS end_time, CASE WHEN e.deadline_time < '0001-01-01 00:00:00+00' OR e.deadline_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.deadline_time END AS deadline_time, e.progress, e.steps_total, e.steps_completed, e.steps_failed, e.steps_skipped, e.steps_running, e.steps_cancelled, e.last_seq, e.failure, e.ending, e.pause, e.mail, e.incarnation, e.epoch, CASE WHEN e.wake_time < '0001-01-01 00:00:00+00' OR e.wake_time > '9999-12-31 23:59:59.999999+00' THEN '0001-01-01 00:00:00+00' ELSE e.wake_time END AS wake_time, e.deaths, e.bytes, e.run, e.usage, e.reopened_seq, e.lineage, e.breakpoints, e.held_back, e.dry_run
FROM unnest($1::text[], $2::uuid[]) AS u(org_id, id)
JOIN executions e ON e.org_id = u.org_id AND e.id = u.id
FOR KEY SHARE OF e;

-- SINGLE: $1 steps, $2 history, $3 changes, $4 change_count, $5 step_count
WITH kept AS (
INSERT INTO steps AS s (org_id, execution_id, path, iteration, handler, state, attempt, failures, progress, input, output, failure,
    failed_attempts, assigned, skip_reason, start_time, attempt_time, end_time, wait, end_seq, worker, position,
    items, usage, fixed, mocked, shared)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, r->>2 AS path, (r->>3)::int AS iteration, r->>4 AS handler,
    r->>5 AS state, (r->>6)::int AS attempt, (r->>7)::int AS failures, (r->>8)::int AS progress,
    nullif(r->9, 'null') AS input, nullif(r->10, 'null') AS output, nullif(r->11, 'null') AS failure,
    nullif(r->12, 'null') AS failed_attempts, nullif(r->13, 'null') AS assigned, r->>14 AS skip_reason,
    (r->>15)::timestamptz AS start_time, (r->>16)::timestamptz AS attempt_time, (r->>17)::timestamptz AS end_time,
    nullif(r->18, 'null') AS wait, (r->>19)::int8 AS end_seq, r->>20 AS worker, (r->>21)::int AS position,
    (r->>22)::int[] AS items, nullif(r->23, 'null') AS usage, (r->>24)::bool AS fixed, (r->>25)::bool AS mocked,
    nullif(r->26, 'null') AS shared
FROM jsonb_array_elements($1::jsonb) AS r
ON CONFLICT (execution_id, path, iteration) DO UPDATE SET
    handler = excluded.handler, state = excluded.state, attempt = excluded.attempt, failures = excluded.failures,
    progress = excluded.progress, output = excluded.output, failure = excluded.failure,
    failed_attempts = excluded.failed_attempts, assigned = excluded.assigned, skip_reason = excluded.skip_reason,
    start_time = excluded.start_time, attempt_time = excluded.attempt_time, end_time = excluded.end_time,
    wait = excluded.wait, end_seq = excluded.end_seq, worker = excluded.worker, position = excluded.position,
    items = excluded.items, usage = excluded.usage, fixed = excluded.fixed, mocked = excluded.mocked,
    input = CASE WHEN excluded.shared->'input' = 'true' THEN s.input ELSE excluded.input END,
    shared = CASE WHEN excluded.shared->'input' = 'true'
        THEN nullif(jsonb_strip_nulls(excluded.shared || jsonb_build_object('input', s.shared->'input')), '{}')
        ELSE excluded.shared END
WHERE s.end_time IS NULL OR (s.state = 'COMPLETED' AND excluded.state = 'COMPENSATED') RETURNING 1),
told AS (
INSERT INTO transitions (execution_id, seq, time, org_id, layout, body, shared)
SELECT (r->>0)::uuid AS execution_id, (r->>1)::int8 AS seq, (r->>2)::timestamptz AS time, r->>3 AS org_id, r->>4 AS layout,
    decode(r->>5, 'base64') AS body, nullif(r->6, 'null') AS shared
FROM jsonb_array_elements($2::jsonb) AS r),
moved AS (
UPDATE executions e SET state = u.state, last_seq = u.last_seq, steps_total = u.steps_total, steps_completed = u.steps_completed,
    steps_failed = u.steps_failed, steps_skipped = u.steps_skipped, steps_running = u.steps_running,
    steps_cancelled = u.steps_cancelled, progress = u.progress, start_time = u.start_time, end_time = u.end_time,
    deadline_time = u.deadline_time, result = u.result, failure = u.failure, ending = u.ending, pause = u.pause,
    breakpoints = u.breakpoints, bytes = u.bytes, usage = u.usage,
    deaths = CASE WHEN u.survived THEN 0 ELSE e.deaths END,
    incarnation = CASE WHEN NOT u.released THEN e.incarnation END,
    wake_time = CASE
        WHEN NOT u.released OR u.end_time IS NOT NULL THEN NULL
        -- What the owner gave up without having seen must not wait for a timer.
        WHEN e.mail > u.mail_seen THEN clock_timestamp()
        ELSE coalesce(u.wake_time, clock_timestamp()) END,
    held_back = CASE WHEN u.start_time IS NULL THEN e.held_back END,
    awaits = CASE WHEN u.released AND u.end_time IS NULL THEN u.awaits END,
    signals = CASE WHEN u.signals IS NULL THEN e.signals WHEN u.signals <> '[]' THEN u.signals END,
    edited_vars = coalesce(u.edited_vars, e.edited_vars)
FROM (SELECT r->>0 AS org_id, (r->>1)::uuid AS id, (r->>2)::uuid AS incarnation, (r->>3)::int8 AS epoch,
    (r->>4)::int8 AS base_seq, (r->>5)::int8 AS last_seq, r->>6 AS state, (r->>7)::int8 AS mail_seen,
    (r->>8)::int8 AS bound, (r->>9)::bool AS released, (r->>10)::bool AS survived, (r->>11)::int AS steps_total,
    (r->>12)::int AS steps_completed, (r->>13)::int AS steps_failed, (r->>14)::int AS steps_skipped,
    (r->>15)::int AS steps_running, (r->>16)::int AS steps_cancelled, (r->>17)::int AS progress,
    (r->>18)::timestamptz AS start_time, (r->>19)::timestamptz AS end_time, (r->>20)::timestamptz AS deadline_time,
    (r->>21)::timestamptz AS wake_time, nullif(r->22, 'null') AS result, nullif(r->23, 'null') AS awaits,
    nullif(r->24, 'null') AS failure, nullif(r->25, 'null') AS ending, nullif(r->26, 'null') AS pause,
    nullif(r->27, 'null') AS breakpoints, (r->>28)::int8 AS bytes, nullif(r->29, 'null') AS usage,
    nullif(r->30, 'null') AS signals, nullif(r->31, 'null') AS edited_vars
FROM jsonb_array_elements($3::jsonb) AS r) u
WHERE e.org_id = u.org_id AND e.id = u.id
    -- Not `=`: the index of incarnations must never be chosen, it finds all that a replica drives.
    AND e.incarnation IS NOT DISTINCT FROM u.incarnation AND e.epoch = u.epoch AND e.last_seq = u.base_seq
    AND (u.bound IS NULL OR e.mail <= u.bound)
RETURNING e.id)
SELECT 1 / ((SELECT count(*) FROM moved) = $4
    AND (SELECT count(*) FROM kept) = $5)::int;

-- SINGLE_WITH_ALL: $1 shared, $2 steps, $3 history, $4 changes, $5 consumed, $6 letters, $7 tasks, $8 task_changes, $9 workflow_orgs, $10 workflow_ids, $11 workflow_revisions, $12 requests, $13 executions, $14 inputs, $15 request_count, $16 execution_count, $17 change_count, $18 step_count
WITH pooled AS (
INSERT INTO shared_payloads (org_id, execution_id, digest, document, message)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, r->>2 AS digest, nullif(r->3, 'null') AS document,
    decode(r->>4, 'base64') AS message
FROM jsonb_array_elements($1::jsonb) AS r
ON CONFLICT DO NOTHING),
kept AS (
INSERT INTO steps AS s (org_id, execution_id, path, iteration, handler, state, attempt, failures, progress, input, output, failure,
    failed_attempts, assigned, skip_reason, start_time, attempt_time, end_time, wait, end_seq, worker, position,
    items, usage, fixed, mocked, shared)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, r->>2 AS path, (r->>3)::int AS iteration, r->>4 AS handler,
    r->>5 AS state, (r->>6)::int AS attempt, (r->>7)::int AS failures, (r->>8)::int AS progress,
    nullif(r->9, 'null') AS input, nullif(r->10, 'null') AS output, nullif(r->11, 'null') AS failure,
    nullif(r->12, 'null') AS failed_attempts, nullif(r->13, 'null') AS assigned, r->>14 AS skip_reason,
    (r->>15)::timestamptz AS start_time, (r->>16)::timestamptz AS attempt_time, (r->>17)::timestamptz AS end_time,
    nullif(r->18, 'null') AS wait, (r->>19)::int8 AS end_seq, r->>20 AS worker, (r->>21)::int AS position,
    (r->>22)::int[] AS items, nullif(r->23, 'null') AS usage, (r->>24)::bool AS fixed, (r->>25)::bool AS mocked,
    nullif(r->26, 'null') AS shared
FROM jsonb_array_elements($2::jsonb) AS r
ON CONFLICT (execution_id, path, iteration) DO UPDATE SET
    handler = excluded.handler, state = excluded.state, attempt = excluded.attempt, failures = excluded.failures,
    progress = excluded.progress, output = excluded.output, failure = excluded.failure,
    failed_attempts = excluded.failed_attempts, assigned = excluded.assigned, skip_reason = excluded.skip_reason,
    start_time = excluded.start_time, attempt_time = excluded.attempt_time, end_time = excluded.end_time,
    wait = excluded.wait, end_seq = excluded.end_seq, worker = excluded.worker, position = excluded.position,
    items = excluded.items, usage = excluded.usage, fixed = excluded.fixed, mocked = excluded.mocked,
    input = CASE WHEN excluded.shared->'input' = 'true' THEN s.input ELSE excluded.input END,
    shared = CASE WHEN excluded.shared->'input' = 'true'
        THEN nullif(jsonb_strip_nulls(excluded.shared || jsonb_build_object('input', s.shared->'input')), '{}')
        ELSE excluded.shared END
WHERE s.end_time IS NULL OR (s.state = 'COMPLETED' AND excluded.state = 'COMPENSATED') RETURNING 1),
told AS (
INSERT INTO transitions (execution_id, seq, time, org_id, layout, body, shared)
SELECT (r->>0)::uuid AS execution_id, (r->>1)::int8 AS seq, (r->>2)::timestamptz AS time, r->>3 AS org_id, r->>4 AS layout,
    decode(r->>5, 'base64') AS body, nullif(r->6, 'null') AS shared
FROM jsonb_array_elements($3::jsonb) AS r),
moved AS (
UPDATE executions e SET state = u.state, last_seq = u.last_seq, steps_total = u.steps_total, steps_completed = u.steps_completed,
    steps_failed = u.steps_failed, steps_skipped = u.steps_skipped, steps_running = u.steps_running,
    steps_cancelled = u.steps_cancelled, progress = u.progress, start_time = u.start_time, end_time = u.end_time,
    deadline_time = u.deadline_time, result = u.result, failure = u.failure, ending = u.ending, pause = u.pause,
    breakpoints = u.breakpoints, bytes = u.bytes, usage = u.usage,
    deaths = CASE WHEN u.survived THEN 0 ELSE e.deaths END,
    incarnation = CASE WHEN NOT u.released THEN e.incarnation END,
    wake_time = CASE
        WHEN NOT u.released OR u.end_time IS NOT NULL THEN NULL
        -- What the owner gave up without having seen must not wait for a timer.
        WHEN e.mail > u.mail_seen THEN clock_timestamp()
        ELSE coalesce(u.wake_time, clock_timestamp()) END,
    held_back = CASE WHEN u.start_time IS NULL THEN e.held_back END,
    awaits = CASE WHEN u.released AND u.end_time IS NULL THEN u.awaits END,
    signals = CASE WHEN u.signals IS NULL THEN e.signals WHEN u.signals <> '[]' THEN u.signals END,
    edited_vars = coalesce(u.edited_vars, e.edited_vars)
FROM (SELECT r->>0 AS org_id, (r->>1)::uuid AS id, (r->>2)::uuid AS incarnation, (r->>3)::int8 AS epoch,
    (r->>4)::int8 AS base_seq, (r->>5)::int8 AS last_seq, r->>6 AS state, (r->>7)::int8 AS mail_seen,
    (r->>8)::int8 AS bound, (r->>9)::bool AS released, (r->>10)::bool AS survived, (r->>11)::int AS steps_total,
    (r->>12)::int AS steps_completed, (r->>13)::int AS steps_failed, (r->>14)::int AS steps_skipped,
    (r->>15)::int AS steps_running, (r->>16)::int AS steps_cancelled, (r->>17)::int AS progress,
    (r->>18)::timestamptz AS start_time, (r->>19)::timestamptz AS end_time, (r->>20)::timestamptz AS deadline_time,
    (r->>21)::timestamptz AS wake_time, nullif(r->22, 'null') AS result, nullif(r->23, 'null') AS awaits,
    nullif(r->24, 'null') AS failure, nullif(r->25, 'null') AS ending, nullif(r->26, 'null') AS pause,
    nullif(r->27, 'null') AS breakpoints, (r->>28)::int8 AS bytes, nullif(r->29, 'null') AS usage,
    nullif(r->30, 'null') AS signals, nullif(r->31, 'null') AS edited_vars
FROM jsonb_array_elements($4::jsonb) AS r) u
WHERE e.org_id = u.org_id AND e.id = u.id
    -- Not `=`: the index of incarnations must never be chosen, it finds all that a replica drives.
    AND e.incarnation IS NOT DISTINCT FROM u.incarnation AND e.epoch = u.epoch AND e.last_seq = u.base_seq
    AND (u.bound IS NULL OR e.mail <= u.bound)
RETURNING e.id),
of_consumed AS (
DELETE FROM messages m USING (SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, (r->>2)::uuid AS id
FROM jsonb_array_elements($5::jsonb) AS r) u
WHERE m.org_id = u.org_id AND m.execution_id = u.execution_id AND m.id = u.id),
of_letters AS (
INSERT INTO messages (org_id, execution_id, id, kind, create_time, sender, body)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, (r->>2)::uuid AS id, r->>3 AS kind,
    (r->>4)::timestamptz AS create_time, r->>5 AS sender, nullif(r->6, 'null') AS body
FROM jsonb_array_elements($6::jsonb) AS r
ON CONFLICT DO NOTHING),
of_tasks AS (
INSERT INTO tasks (org_id, execution_id, id, path, iteration, workflow_name, owner, state, title, outcomes, assignees, groups,
    create_time, update_time, due_time, waited, escalated, version, description, form)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, (r->>2)::uuid AS id, r->>3 AS path, (r->>4)::int AS iteration,
    r->>5 AS workflow_name, r->>6 AS owner, r->>7 AS state, r->>8 AS title,
    CASE WHEN r->9 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->9)) END AS outcomes,
    CASE WHEN r->10 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->10)) END AS assignees,
    CASE WHEN r->11 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->11)) END AS groups,
    (r->>12)::timestamptz AS create_time, (r->>13)::timestamptz AS update_time, (r->>14)::timestamptz AS due_time,
    (r->>15)::bool AS waited, (r->>16)::bool AS escalated, (r->>17)::int AS version, r->>18 AS description,
    nullif(r->19, 'null') AS form
FROM jsonb_array_elements($7::jsonb) AS r
ON CONFLICT DO NOTHING),
of_task_changes AS (
UPDATE tasks t SET state = u.state, update_time = u.time, version = t.version + 1,
    end_time = CASE WHEN u.ends THEN u.time END,
    outcome = u.outcome,
    escalated = t.escalated OR NOT u.ends,
    assignees = CASE WHEN u.ends THEN t.assignees ELSE u.assignees END,
    groups = CASE WHEN u.ends THEN t.groups ELSE u.groups END,
    due_time = CASE WHEN u.ends THEN t.due_time ELSE u.due_time END,
    claimed_by = CASE WHEN u.ends THEN t.claimed_by END,
    claim_time = CASE WHEN u.ends THEN t.claim_time END
FROM (SELECT r->>0 AS org_id, (r->>1)::uuid AS id, r->>2 AS state, (r->>3)::timestamptz AS time, (r->>4)::bool AS ends,
    r->>5 AS outcome, CASE WHEN r->6 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->6)) END AS assignees,
    CASE WHEN r->7 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->7)) END AS groups,
    (r->>8)::timestamptz AS due_time
FROM jsonb_array_elements($8::jsonb) AS r) u
WHERE t.org_id = u.org_id AND t.id = u.id AND t.end_time IS NULL),
live AS (
SELECT w.org_id, w.id, u.revision, w.pause IS NOT NULL AS is_paused, coalesce(w.breakpoints_left > 0 AND w.breakpoints_until > clock_timestamp() AND w.breakpoints IS NOT NULL, false) AS is_held
FROM unnest($9::text[], $10::uuid[], $11::int[]) AS u(org_id, id, revision)
JOIN workflows w ON w.org_id = u.org_id AND w.id = u.id
WHERE w.delete_time IS NULL AND (u.revision = 0 OR u.revision = w.revision) FOR KEY SHARE OF w),
taken AS (
INSERT INTO requests (org_id, request_id, method, execution_id, content_hash, create_time)
SELECT r->>0 AS org_id, r->>1 AS request_id, r->>2 AS method, (r->>3)::uuid AS execution_id,
    decode(r->>4, 'base64') AS content_hash, (r->>5)::timestamptz AS create_time
FROM jsonb_array_elements($12::jsonb) AS r
ON CONFLICT DO NOTHING RETURNING execution_id),
made AS (
INSERT INTO executions (org_id, id, owner, workflow_id, workflow_name, revision, state, create_time, timeout, priority, tags, labels,
    correlation_id, request_id, scheduled_time, start_time, end_time, deadline_time, progress, steps_total,
    steps_completed, steps_failed, steps_skipped, steps_running, steps_cancelled, last_seq, result, failure, ending,
    mail, incarnation, epoch, wake_time, bytes, run, lineage, pause, breakpoints, held_back, signals, dry_run)
SELECT r->>0 AS org_id, (r->>1)::uuid AS id, r->>2 AS owner, (r->>3)::uuid AS workflow_id, r->>4 AS workflow_name,
    (r->>5)::int AS revision, r->>6 AS state, (r->>7)::timestamptz AS create_time, (r->>8)::float8 AS timeout,
    (r->>9)::int AS priority,
    CASE WHEN r->10 <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(r->10)) END AS tags,
    nullif(r->11, 'null') AS labels, r->>12 AS correlation_id, r->>13 AS request_id,
    (r->>14)::timestamptz AS scheduled_time, (r->>15)::timestamptz AS start_time, (r->>16)::timestamptz AS end_time,
    (r->>17)::timestamptz AS deadline_time, (r->>18)::int AS progress, (r->>19)::int AS steps_total,
    (r->>20)::int AS steps_completed, (r->>21)::int AS steps_failed, (r->>22)::int AS steps_skipped,
    (r->>23)::int AS steps_running, (r->>24)::int AS steps_cancelled, (r->>25)::int8 AS last_seq,
    nullif(r->26, 'null') AS result, nullif(r->27, 'null') AS failure, nullif(r->28, 'null') AS ending,
    (r->>29)::int8 AS mail, (r->>30)::uuid AS incarnation, (r->>31)::int8 AS epoch,
    (r->>32)::timestamptz AS wake_time, (r->>33)::int8 AS bytes, (r->>34)::int AS run,
    nullif(r->35, 'null') AS lineage, nullif(r->36, 'null') AS pause, nullif(r->37, 'null') AS breakpoints,
    (r->>38)::bool AS held_back, nullif(r->39, 'null') AS signals, (r->>40)::bool AS dry_run
FROM jsonb_array_elements($13::jsonb) AS r
ON CONFLICT DO NOTHING RETURNING id),
given AS (
INSERT INTO execution_inputs (org_id, execution_id, input, vars, dry_run)
SELECT r->>0 AS org_id, (r->>1)::uuid AS execution_id, nullif(r->2, 'null') AS input, nullif(r->3, 'null') AS vars,
    nullif(r->4, 'null') AS dry_run
FROM jsonb_array_elements($14::jsonb) AS r)
SELECT 1 / ((SELECT count(*) FROM taken) = $15
    AND (SELECT count(*) FROM live WHERE NOT is_paused AND NOT is_held) = cardinality($10)
    AND (SELECT count(*) FROM made) = $16
    AND (SELECT count(*) FROM moved) = $17
    AND (SELECT count(*) FROM kept) = $18)::int;
