CREATE TABLE execution_inputs (
    org_id VARCHAR(256) NOT NULL,
    execution_id UUID NOT NULL,
    input JSONB NOT NULL,
    CONSTRAINT execution_inputs_pkey PRIMARY KEY (execution_id)
) PARTITION BY RANGE (execution_id);

COMMENT ON TABLE execution_inputs IS 'Input of each execution, which may be large and is never changed.';
COMMENT ON COLUMN execution_inputs.org_id IS 'Org that the execution belongs to.';
COMMENT ON COLUMN execution_inputs.execution_id IS 'Execution.';
COMMENT ON COLUMN execution_inputs.input IS 'Input, an object.';

CREATE TABLE executions (
    id UUID NOT NULL,
    workflow_id UUID NOT NULL,
    incarnation UUID,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    scheduled_time TIMESTAMP WITH TIME ZONE,
    start_time TIMESTAMP WITH TIME ZONE,
    end_time TIMESTAMP WITH TIME ZONE,
    deadline_time TIMESTAMP WITH TIME ZONE,
    wake_time TIMESTAMP WITH TIME ZONE,
    timeout FLOAT(53) NOT NULL,
    duration FLOAT(53) GENERATED ALWAYS AS (EXTRACT(epoch FROM (end_time - COALESCE(start_time, create_time)))::double precision) STORED,
    last_seq BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    mail BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    revision INTEGER NOT NULL,
    run INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    steps_total INTEGER NOT NULL,
    steps_completed INTEGER NOT NULL,
    steps_failed INTEGER NOT NULL,
    steps_skipped INTEGER NOT NULL,
    steps_running INTEGER NOT NULL,
    steps_cancelled INTEGER NOT NULL,
    progress SMALLINT NOT NULL,
    deaths SMALLINT DEFAULT 0 NOT NULL,
    org_id VARCHAR(256) NOT NULL,
    owner VARCHAR(256) NOT NULL,
    workflow_name VARCHAR(128) NOT NULL,
    state VARCHAR(16) NOT NULL,
    correlation_id VARCHAR(256) NOT NULL,
    request_id VARCHAR(128) NOT NULL,
    tags TEXT[],
    labels JSONB,
    awaits JSONB,
    result JSONB,
    failure JSONB,
    ending JSONB,
    usage JSONB,
    CONSTRAINT executions_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT executions_ending CHECK (CASE WHEN end_time IS NOT NULL THEN ending IS NULL WHEN state = 'CANCELLING' THEN ending IS NOT NULL ELSE true END),
    CONSTRAINT executions_deaths CHECK (deaths >= 0),
    CONSTRAINT executions_bytes CHECK (bytes >= 0),
    CONSTRAINT executions_state CHECK (state IN ('CANCELLED', 'CANCELLING', 'COMPENSATING', 'COMPLETED', 'FAILED', 'PAUSED', 'PENDING', 'RUNNING', 'TIMED_OUT')),
    CONSTRAINT executions_end CHECK ((state IN ('CANCELLED', 'COMPLETED', 'FAILED', 'TIMED_OUT')) = (end_time IS NOT NULL)),
    CONSTRAINT executions_owner CHECK (CASE WHEN end_time IS NOT NULL THEN incarnation IS NULL AND wake_time IS NULL ELSE (incarnation IS NULL) = (wake_time IS NOT NULL) END),
    CONSTRAINT executions_progress CHECK (progress BETWEEN 0 AND 100 AND (progress < 100 OR state = 'COMPLETED')),
    CONSTRAINT executions_counts CHECK (least(steps_completed, steps_failed, steps_skipped, steps_running, steps_cancelled) >= 0 AND steps_completed + steps_failed + steps_skipped + steps_running + steps_cancelled <= steps_total),
    CONSTRAINT executions_numbers CHECK (last_seq >= 0 AND epoch >= 1 AND timeout >= 0 AND revision >= 1 AND run >= 1 AND mail >= 0)
) PARTITION BY RANGE (id);

CREATE INDEX executions_awaiting ON executions USING gin (awaits) WHERE awaits IS NOT NULL;

CREATE INDEX executions_by_state ON executions (state, org_id, id, workflow_id) WHERE state <> 'COMPLETED';

CREATE INDEX executions_claimable ON executions (priority DESC, org_id, wake_time, id) WHERE incarnation IS NULL AND end_time IS NULL;

CREATE INDEX executions_correlation ON executions (hashtextextended(correlation_id, hashtextextended(org_id, 0)), id) WHERE correlation_id <> '';

CREATE INDEX executions_driven ON executions (incarnation, id) WHERE incarnation IS NOT NULL;

CREATE INDEX executions_ended ON executions (org_id, end_time) WHERE end_time IS NOT NULL;

CREATE INDEX executions_labels ON executions USING gin (labels jsonb_path_ops) WHERE labels <> '{}';

CREATE INDEX executions_longest ON executions (org_id, duration, id) WHERE end_time IS NOT NULL;

CREATE INDEX executions_owned_by ON executions (hashtextextended(owner, hashtextextended(org_id, 0)), id);

CREATE INDEX executions_suspect ON executions (deaths, id) WHERE deaths >= 2 AND end_time IS NULL;

CREATE INDEX executions_tags ON executions USING gin (tags) WHERE tags <> '{}';

CREATE INDEX executions_workflow ON executions (workflow_id, id);

COMMENT ON TABLE executions IS 'Executions, one row each; inputs, steps and events are in their own tables.';
COMMENT ON COLUMN executions.id IS 'Id, a UUIDv7: by time of creation.';
COMMENT ON COLUMN executions.workflow_id IS 'Workflow that it runs.';
COMMENT ON COLUMN executions.incarnation IS 'Process that drives it (replicas), NULL when nobody does.';
COMMENT ON COLUMN executions.create_time IS 'When it was accepted.';
COMMENT ON COLUMN executions.scheduled_time IS 'When it is to start, if a delay was asked for.';
COMMENT ON COLUMN executions.start_time IS 'When it started.';
COMMENT ON COLUMN executions.end_time IS 'When it ended; set exactly in the states that are ends.';
COMMENT ON COLUMN executions.deadline_time IS 'When it is cut off with TIMED_OUT.';
COMMENT ON COLUMN executions.wake_time IS 'From when on it may be taken; set while it is open and nobody drives it.';
COMMENT ON COLUMN executions.timeout IS 'Seconds that it may take from its start.';
COMMENT ON COLUMN executions.duration IS 'Seconds from start (or creation) to end.';
COMMENT ON COLUMN executions.last_seq IS 'Number of the newest event.';
COMMENT ON COLUMN executions.epoch IS 'Rises at each change of owner; earlier ones write no more.';
COMMENT ON COLUMN executions.mail IS 'Binding messages that it was ever sent; they precede its end.';
COMMENT ON COLUMN executions.bytes IS 'Bytes written: payloads as JSON, and 512 for each event.';
COMMENT ON COLUMN executions.revision IS 'Revision that it runs.';
COMMENT ON COLUMN executions.run IS 'Number of the run: 1, and more when it is reopened after its end.';
COMMENT ON COLUMN executions.priority IS '-100 to 100; higher goes first.';
COMMENT ON COLUMN executions.steps_total IS 'Number of steps; those in no other count are pending.';
COMMENT ON COLUMN executions.steps_completed IS 'Steps that ended well.';
COMMENT ON COLUMN executions.steps_failed IS 'Steps that failed for good.';
COMMENT ON COLUMN executions.steps_skipped IS 'Steps that were skipped.';
COMMENT ON COLUMN executions.steps_running IS 'Steps that run or wait.';
COMMENT ON COLUMN executions.steps_cancelled IS 'Steps that were cancelled.';
COMMENT ON COLUMN executions.progress IS 'Percentage, 100 only when COMPLETED.';
COMMENT ON COLUMN executions.deaths IS 'Owners in a row that died.';
COMMENT ON COLUMN executions.org_id IS 'Org that the execution belongs to.';
COMMENT ON COLUMN executions.owner IS 'Subject that started it.';
COMMENT ON COLUMN executions.workflow_name IS 'Name of that workflow.';
COMMENT ON COLUMN executions.state IS 'PENDING, RUNNING, PAUSED, CANCELLING, COMPENSATING, or an end: COMPLETED, FAILED, CANCELLED, TIMED_OUT.';
COMMENT ON COLUMN executions.correlation_id IS 'Id of the thing outside that it belongs to, or empty.';
COMMENT ON COLUMN executions.request_id IS 'Id of the request that started it, or empty.';
COMMENT ON COLUMN executions.tags IS 'Tags of workflow and request, if there are any.';
COMMENT ON COLUMN executions.labels IS 'Labels of the request, an object of texts, if there are any.';
COMMENT ON COLUMN executions.awaits IS 'Names of the handlers that it waits for while nobody drives it; or NULL.';
COMMENT ON COLUMN executions.result IS 'What it answers, once COMPLETED.';
COMMENT ON COLUMN executions.failure IS 'Why it did not complete: code, message, details, step_path.';
COMMENT ON COLUMN executions.ending IS 'End that is decided while attempts are being stopped: state, failure.';
COMMENT ON COLUMN executions.usage IS 'What its steps used up: input_tokens, output_tokens, cost_micros; or NULL.';

CREATE TABLE messages (
    org_id VARCHAR(256) NOT NULL,
    execution_id UUID NOT NULL,
    id UUID NOT NULL,
    kind VARCHAR(32) NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    sender VARCHAR(256) NOT NULL,
    body JSONB NOT NULL,
    CONSTRAINT messages_pkey PRIMARY KEY (execution_id, id),
    CONSTRAINT messages_kind CHECK (kind IN ('CANCEL', 'CHILD_ENDED'))
) PARTITION BY RANGE (execution_id);

COMMENT ON TABLE messages IS 'What executions were sent and nobody has seen: the transition that has seen it removes it.';
COMMENT ON COLUMN messages.org_id IS 'Org that the execution belongs to.';
COMMENT ON COLUMN messages.execution_id IS 'Execution that it is for.';
COMMENT ON COLUMN messages.id IS 'Id; that of the execution for CANCEL, of which there is one at most.';
COMMENT ON COLUMN messages.kind IS 'What it says: CANCEL, CHILD_ENDED.';
COMMENT ON COLUMN messages.create_time IS 'When it was sent.';
COMMENT ON COLUMN messages.sender IS 'Subject or execution that sent it.';
COMMENT ON COLUMN messages.body IS 'What belongs to it, an object; of CANCEL the reason.';

CREATE TABLE replicas (
    incarnation UUID NOT NULL,
    name VARCHAR(256) NOT NULL,
    register_time TIMESTAMP WITH TIME ZONE NOT NULL,
    lease_until TIMESTAMP WITH TIME ZONE NOT NULL,
    revision VARCHAR(32) NOT NULL,
    CONSTRAINT replicas_pkey PRIMARY KEY (incarnation)
);

COMMENT ON TABLE replicas IS 'Processes that drive executions, and until when they may.';
COMMENT ON COLUMN replicas.incarnation IS 'Id, a new one at each start.';
COMMENT ON COLUMN replicas.name IS 'Name for people.';
COMMENT ON COLUMN replicas.register_time IS 'When it began.';
COMMENT ON COLUMN replicas.lease_until IS 'Until when it may drive executions; -infinity when it has ended.';
COMMENT ON COLUMN replicas.revision IS 'Schema revision that it works with.';

CREATE TABLE requests (
    org_id VARCHAR(256) NOT NULL,
    request_id VARCHAR(128) NOT NULL,
    method VARCHAR(32) NOT NULL,
    execution_id UUID,
    content_hash BYTEA NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    workflow_ids UUID[],
    revisions INTEGER[],
    outcomes TEXT[],
    CONSTRAINT requests_pkey PRIMARY KEY (org_id, request_id),
    CONSTRAINT requests_method CHECK (method IN ('APPLY_WORKFLOWS', 'CANCEL', 'CREATE_WORKFLOW', 'DELETE_WORKFLOW', 'EXECUTE', 'UPDATE_WORKFLOW')),
    CONSTRAINT requests_outcomes CHECK (outcomes <@ ARRAY['CREATED', 'UNCHANGED', 'UPDATED'])
);

CREATE INDEX requests_age ON requests (create_time);

COMMENT ON TABLE requests IS 'Request ids, each kept for at least 30 days and as long as the execution that it started or cancelled.';
COMMENT ON COLUMN requests.org_id IS 'Org of the caller.';
COMMENT ON COLUMN requests.request_id IS 'Id that the caller gave.';
COMMENT ON COLUMN requests.method IS 'What was called: EXECUTE, CANCEL, CREATE_WORKFLOW, ...';
COMMENT ON COLUMN requests.execution_id IS 'Execution that it started or cancelled.';
COMMENT ON COLUMN requests.content_hash IS 'First half of the SHA-256 of what was asked for: tells a repeated request from a reused id.';
COMMENT ON COLUMN requests.create_time IS 'When it came first.';
COMMENT ON COLUMN requests.workflow_ids IS 'Workflows that it was answered, or that it deleted.';
COMMENT ON COLUMN requests.revisions IS 'Revisions of them that it was answered.';
COMMENT ON COLUMN requests.outcomes IS 'What became of them: CREATED, UPDATED, UNCHANGED.';

CREATE TABLE secrets (
    name VARCHAR(64) NOT NULL,
    value BYTEA NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT secrets_pkey PRIMARY KEY (name),
    CONSTRAINT secrets_value CHECK (octet_length(value) = 32)
);

COMMENT ON TABLE secrets IS 'What all servers of the database share and nobody else may guess.';
COMMENT ON COLUMN secrets.name IS 'What it is for: page_tokens, which are signed with it.';
COMMENT ON COLUMN secrets.value IS 'Random bytes. Without the row a new one is made; what was signed before is refused.';
COMMENT ON COLUMN secrets.create_time IS 'When it was made.';

CREATE TABLE shared_payloads (
    org_id VARCHAR(256) NOT NULL,
    execution_id UUID NOT NULL,
    digest VARCHAR(64) NOT NULL,
    document JSONB,
    message BYTEA,
    CONSTRAINT shared_payloads_pkey PRIMARY KEY (execution_id, digest),
    CONSTRAINT shared_payloads_content CHECK ((document IS NULL) <> (message IS NULL))
) PARTITION BY RANGE (execution_id);

COMMENT ON TABLE shared_payloads IS 'Payloads of 8 KiB and more, once for each execution: steps and events refer to them.';
COMMENT ON COLUMN shared_payloads.org_id IS 'Org that the execution belongs to.';
COMMENT ON COLUMN shared_payloads.execution_id IS 'Execution.';
COMMENT ON COLUMN shared_payloads.digest IS 'SHA-256 of the payload, as hexadecimal digits.';
COMMENT ON COLUMN shared_payloads.document IS 'Payload of a step.';
COMMENT ON COLUMN shared_payloads.message IS 'Payload of an event, as protobuf.';

CREATE TABLE steps (
    execution_id UUID NOT NULL,
    start_time TIMESTAMP WITH TIME ZONE,
    attempt_time TIMESTAMP WITH TIME ZONE,
    end_time TIMESTAMP WITH TIME ZONE,
    end_seq BIGINT,
    iteration INTEGER NOT NULL,
    position INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    failures INTEGER,
    progress SMALLINT NOT NULL,
    org_id VARCHAR(256) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    handler VARCHAR(128) NOT NULL,
    state VARCHAR(16) NOT NULL,
    worker VARCHAR(256),
    input JSONB,
    output JSONB,
    failure JSONB,
    failed_attempts JSONB,
    assigned JSONB,
    skip_reason VARCHAR(8192),
    wait JSONB,
    shared JSONB,
    items INTEGER[],
    usage JSONB,
    CONSTRAINT steps_pkey PRIMARY KEY (execution_id, path, iteration),
    CONSTRAINT steps_state CHECK (state IN ('CANCELLED', 'COMPENSATED', 'COMPLETED', 'FAILED', 'PENDING', 'RUNNING', 'SKIPPED', 'WAITING')),
    CONSTRAINT steps_end CHECK ((state IN ('PENDING', 'RUNNING', 'WAITING')) = (end_time IS NULL)),
    CONSTRAINT steps_wait CHECK (CASE state WHEN 'WAITING' THEN wait IS NOT NULL WHEN 'CANCELLED' THEN true ELSE wait IS NULL END),
    CONSTRAINT steps_numbers CHECK (iteration >= 1 AND attempt >= 0 AND failures >= 0 AND progress BETWEEN 0 AND 100)
) PARTITION BY RANGE (execution_id);

CREATE INDEX steps_of_items ON steps (execution_id, position, items) WHERE items IS NOT NULL;

COMMENT ON TABLE steps IS 'Steps of executions; one that never left PENDING has no row.';
COMMENT ON COLUMN steps.execution_id IS 'Execution.';
COMMENT ON COLUMN steps.start_time IS 'When its first attempt started.';
COMMENT ON COLUMN steps.attempt_time IS 'When its newest attempt started, if that is not the first.';
COMMENT ON COLUMN steps.end_time IS 'When it ended.';
COMMENT ON COLUMN steps.end_seq IS 'Number of the event that ended it.';
COMMENT ON COLUMN steps.iteration IS 'Number of the whole run of the step: 1, and more when it is revised or retried in place.';
COMMENT ON COLUMN steps.position IS 'Place, from 1, of the step of the root that it is, or is of.';
COMMENT ON COLUMN steps.attempt IS 'Number of the newest attempt.';
COMMENT ON COLUMN steps.failures IS 'Attempts that failed and count for the retry policy, if any did.';
COMMENT ON COLUMN steps.progress IS 'Percentage that the running attempt reported.';
COMMENT ON COLUMN steps.org_id IS 'Org that the execution belongs to.';
COMMENT ON COLUMN steps.path IS 'Path in the execution, such as the id of the step.';
COMMENT ON COLUMN steps.handler IS 'Handler that runs it.';
COMMENT ON COLUMN steps.state IS 'RUNNING, WAITING, COMPLETED, FAILED, SKIPPED, CANCELLED, COMPENSATED.';
COMMENT ON COLUMN steps.worker IS 'Process that ran the newest attempt.';
COMMENT ON COLUMN steps.input IS 'Parameters of the newest attempt, templates filled in.';
COMMENT ON COLUMN steps.output IS 'What it gave, once COMPLETED; what it will give, while a handler waits.';
COMMENT ON COLUMN steps.failure IS 'Why it failed, or why its newest attempt did: code, message, details.';
COMMENT ON COLUMN steps.failed_attempts IS 'The last 20 attempts that failed.';
COMMENT ON COLUMN steps.assigned IS 'Variables that it assigned.';
COMMENT ON COLUMN steps.skip_reason IS 'Why it was skipped.';
COMMENT ON COLUMN steps.wait IS 'What it waits for: kind, start_time, wake_time, reason; kept when it was cancelled meanwhile.';
COMMENT ON COLUMN steps.shared IS 'Columns whose payload is in shared_payloads, and NULL here, with its digest.';
COMMENT ON COLUMN steps.items IS 'Of the step of an item: its number and place, for each item around it.';
COMMENT ON COLUMN steps.usage IS 'What its attempts used up: input_tokens, output_tokens, cost_micros; or NULL.';

CREATE TABLE transitions (
    execution_id UUID NOT NULL,
    seq BIGINT NOT NULL,
    time TIMESTAMP WITH TIME ZONE NOT NULL,
    org_id VARCHAR(256) NOT NULL,
    layout TEXT NOT NULL,
    body BYTEA NOT NULL,
    shared JSONB,
    CONSTRAINT transitions_pkey PRIMARY KEY (execution_id, seq),
    CONSTRAINT transitions_seq CHECK (seq >= 1)
) PARTITION BY RANGE (execution_id);

COMMENT ON TABLE transitions IS 'Histories of executions, never changed: the events that were written at once are one row.';
COMMENT ON COLUMN transitions.execution_id IS 'Execution.';
COMMENT ON COLUMN transitions.seq IS 'Number of the last of the events.';
COMMENT ON COLUMN transitions.time IS 'When they happened.';
COMMENT ON COLUMN transitions.org_id IS 'Org that the execution belongs to.';
COMMENT ON COLUMN transitions.layout IS 'Kind, by a letter, and size in body of each event: a comma between them, a semicolon where a transition ends.';
COMMENT ON COLUMN transitions.body IS 'Each event as protobuf, one behind the other.';
COMMENT ON COLUMN transitions.shared IS 'What was cut out of which events (seq): its digest in shared_payloads, where (at), its size.';

CREATE TABLE workflows (
    org_id VARCHAR(256) NOT NULL,
    id UUID NOT NULL,
    name VARCHAR(128) NOT NULL,
    revision INTEGER NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    delete_time TIMESTAMP WITH TIME ZONE,
    deleted_by VARCHAR(256),
    CONSTRAINT workflows_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT workflows_revision CHECK (revision >= 1),
    CONSTRAINT workflows_deleted CHECK ((delete_time IS NULL) = (deleted_by IS NULL))
);

CREATE INDEX workflows_deleted_ones ON workflows (org_id, id) WHERE delete_time IS NOT NULL;

CREATE UNIQUE INDEX workflows_name ON workflows (org_id, name) WHERE delete_time IS NULL;

COMMENT ON TABLE workflows IS 'Workflows; the definitions of each are in workflow_revisions.';
COMMENT ON COLUMN workflows.org_id IS 'Org that the workflow belongs to.';
COMMENT ON COLUMN workflows.id IS 'Id, a UUIDv7: by time of creation.';
COMMENT ON COLUMN workflows.name IS 'Name, unique in the org among those that are not deleted; it never changes.';
COMMENT ON COLUMN workflows.revision IS 'Number of the latest revision.';
COMMENT ON COLUMN workflows.create_time IS 'When it was created.';
COMMENT ON COLUMN workflows.delete_time IS 'When it was deleted. It is removed with the last of its executions.';
COMMENT ON COLUMN workflows.deleted_by IS 'Subject that deleted it.';

CREATE TABLE workflow_revisions (
    org_id VARCHAR(256) NOT NULL,
    workflow_id UUID NOT NULL,
    revision INTEGER NOT NULL,
    document JSONB NOT NULL,
    update_time TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_by VARCHAR(256) NOT NULL,
    CONSTRAINT workflow_revisions_pkey PRIMARY KEY (org_id, workflow_id, revision),
    CONSTRAINT workflow_revisions_workflow FOREIGN KEY(org_id, workflow_id) REFERENCES workflows (org_id, id) ON DELETE CASCADE,
    CONSTRAINT workflow_revisions_revision CHECK (revision >= 1)
);

COMMENT ON TABLE workflow_revisions IS 'Definitions: a revision is never changed, and executions run the one that they were started with.';
COMMENT ON COLUMN workflow_revisions.org_id IS 'Org that the workflow belongs to.';
COMMENT ON COLUMN workflow_revisions.workflow_id IS 'Workflow that it is a revision of.';
COMMENT ON COLUMN workflow_revisions.revision IS 'Number, from 1.';
COMMENT ON COLUMN workflow_revisions.document IS 'Definition as canonical JSON: short names of enums, seconds, no defaults.';
COMMENT ON COLUMN workflow_revisions.update_time IS 'When it was written.';
COMMENT ON COLUMN workflow_revisions.updated_by IS 'Subject that wrote it.';

CREATE VIEW events AS
SELECT t.org_id, t.execution_id, t.seq - e.count + e.number AS seq, t.seq - e.count + e.last AS transition_seq,
    e.kind, t.time, substr(t.body, (e.behind - e.size + 1)::int, e.size) AS body,
    (SELECT r FROM jsonb_array_elements(t.shared) r WHERE r->'seq' = to_jsonb(t.seq - e.count + e.number)) AS shared
FROM transitions t, LATERAL (
    SELECT e.kind, e.size, e.number, count(*) OVER () AS count, max(e.number) OVER (PARTITION BY e.part) AS last,
        sum(e.size) OVER (ORDER BY e.number) AS behind
    FROM (
        SELECT p.part, row_number() OVER (ORDER BY p.part, e.place) AS number,
            coalesce(k.kind, split_part(e.entry, ' ', 1)) AS kind, substring(e.entry FROM '[0-9]+$')::int AS size
        FROM unnest(string_to_array(t.layout, ';')) WITH ORDINALITY AS p(entries, part),
            unnest(string_to_array(p.entries, ',')) WITH ORDINALITY AS e(entry, place)
            LEFT JOIN (VALUES
                ('c', 'created'), ('s', 'started'), ('S', 'step_started'), ('P', 'step_progressed'),
                ('W', 'step_waiting'), ('R', 'step_retrying'), ('C', 'step_completed'), ('F', 'step_failed'),
                ('K', 'step_skipped'), ('X', 'step_cancelled'), ('V', 'variables_assigned'), ('p', 'paused'),
                ('r', 'resumed'), ('g', 'signal_received'), ('x', 'cancelling'), ('f', 'finished'),
                ('o', 'reopened')) AS k(letter, kind)
            ON e.entry ~ '^[A-Za-z][0-9]' AND k.letter = left(e.entry, 1)) e) e;

COMMENT ON VIEW events IS 'Histories of executions, event by event: numbered without gaps; body is ExecutionEvent as protobuf, without the payload where shared is set.';
