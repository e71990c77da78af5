-- The tables of the last release before the schema began anew, as its migrations 0001 to 0005 left them, without their comments.
-- tests/integration/test_migrations.py and tests/e2e/test_data_folder.py hold that such a database is refused.

CREATE TABLE schema_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT schema_version_pkc PRIMARY KEY (version_num));

INSERT INTO schema_version VALUES ('0005');

COMMENT ON TABLE schema_version IS '0004';

CREATE TABLE events (
    org_id VARCHAR(256) NOT NULL,
    execution_id UUID NOT NULL,
    seq BIGINT NOT NULL,
    transition_seq BIGINT NOT NULL,
    kind VARCHAR(64) NOT NULL,
    time TIMESTAMP WITH TIME ZONE NOT NULL,
    body BYTEA NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (org_id, execution_id, seq),
    CONSTRAINT events_seq CHECK (seq >= 1 AND transition_seq >= seq)
) PARTITION BY RANGE (execution_id);

CREATE TABLE execution_payloads (
    org_id VARCHAR(256) NOT NULL,
    execution_id UUID NOT NULL,
    input JSONB NOT NULL,
    result JSONB,
    CONSTRAINT execution_payloads_pkey PRIMARY KEY (org_id, execution_id)
) PARTITION BY RANGE (execution_id);

CREATE TABLE execution_requests (
    org_id VARCHAR(256) NOT NULL,
    request_id VARCHAR(128) NOT NULL,
    execution_id UUID NOT NULL,
    content_hash BYTEA NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT execution_requests_pkey PRIMARY KEY (org_id, request_id)
);

CREATE TABLE executions (
    org_id VARCHAR(256) NOT NULL,
    id UUID NOT NULL,
    owner VARCHAR(256) NOT NULL,
    workflow_id UUID NOT NULL,
    workflow_name VARCHAR(128) NOT NULL,
    revision INTEGER NOT NULL,
    state VARCHAR(16) NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    timeout FLOAT(53) NOT NULL,
    priority INTEGER NOT NULL,
    tags TEXT[] NOT NULL,
    metadata JSONB NOT NULL,
    correlation_id VARCHAR(256) NOT NULL,
    request_id VARCHAR(128) NOT NULL,
    scheduled_time TIMESTAMP WITH TIME ZONE,
    start_time TIMESTAMP WITH TIME ZONE,
    end_time TIMESTAMP WITH TIME ZONE,
    deadline_time TIMESTAMP WITH TIME ZONE,
    progress SMALLINT NOT NULL,
    steps_total INTEGER NOT NULL,
    steps_completed INTEGER NOT NULL,
    steps_failed INTEGER NOT NULL,
    steps_skipped INTEGER NOT NULL,
    steps_running INTEGER NOT NULL,
    steps_cancelled INTEGER NOT NULL,
    last_seq BIGINT NOT NULL,
    failure JSONB,
    cancel_time TIMESTAMP WITH TIME ZONE,
    cancel_by VARCHAR(256),
    cancel_reason VARCHAR(2048),
    incarnation UUID,
    epoch BIGINT NOT NULL,
    wake_time TIMESTAMP WITH TIME ZONE,
    duration FLOAT(53) GENERATED ALWAYS AS (EXTRACT(epoch FROM (end_time - COALESCE(start_time, create_time)))::double precision) STORED,
    CONSTRAINT executions_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT executions_state CHECK (state IN ('CANCELLED', 'CANCELLING', 'COMPLETED', 'FAILED', 'PAUSED', 'PENDING', 'RUNNING', 'TIMED_OUT')),
    CONSTRAINT executions_end CHECK ((state IN ('CANCELLED', 'COMPLETED', 'FAILED', 'TIMED_OUT')) = (end_time IS NOT NULL)),
    CONSTRAINT executions_owner CHECK (CASE WHEN end_time IS NOT NULL THEN incarnation IS NULL AND wake_time IS NULL ELSE (incarnation IS NULL) = (wake_time IS NOT NULL) END),
    CONSTRAINT executions_progress CHECK (progress BETWEEN 0 AND 100 AND (progress < 100 OR state = 'COMPLETED')),
    CONSTRAINT executions_counts CHECK (least(steps_completed, steps_failed, steps_skipped, steps_running, steps_cancelled) >= 0 AND steps_completed + steps_failed + steps_skipped + steps_running + steps_cancelled <= steps_total),
    CONSTRAINT executions_numbers CHECK (last_seq >= 0 AND epoch >= 1 AND timeout >= 0 AND revision >= 1),
    CONSTRAINT executions_cancel CHECK ((cancel_time IS NULL) = (cancel_by IS NULL) AND (cancel_time IS NULL) = (cancel_reason IS NULL))
) PARTITION BY RANGE (id);

CREATE INDEX executions_by_state ON executions (state, org_id, id);

CREATE INDEX executions_claimable ON executions (priority DESC, wake_time, id) WHERE incarnation IS NULL AND end_time IS NULL;

CREATE INDEX executions_correlation ON executions (correlation_id, org_id, id) WHERE correlation_id <> '';

CREATE INDEX executions_driven ON executions (incarnation, id) WHERE incarnation IS NOT NULL;

CREATE INDEX executions_ended ON executions (org_id, end_time, id) WHERE end_time IS NOT NULL;

CREATE INDEX executions_longest ON executions (org_id, duration, id) WHERE end_time IS NOT NULL;

CREATE INDEX executions_metadata ON executions USING gin (metadata jsonb_path_ops) WHERE metadata <> '{}';

CREATE INDEX executions_owned_by ON executions (owner, org_id, id);

CREATE INDEX executions_tags ON executions USING gin (tags) WHERE tags <> '{}';

CREATE INDEX executions_workflow ON executions (workflow_id, org_id, id);

CREATE INDEX executions_workflow_name ON executions (workflow_name, org_id, id);

CREATE TABLE replicas (
    incarnation UUID NOT NULL,
    name VARCHAR(256) NOT NULL,
    register_time TIMESTAMP WITH TIME ZONE NOT NULL,
    lease_until TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT replicas_pkey PRIMARY KEY (incarnation)
);

CREATE TABLE steps (
    org_id VARCHAR(256) NOT NULL,
    execution_id UUID NOT NULL,
    path VARCHAR(1024) NOT NULL,
    handler VARCHAR(128) NOT NULL,
    state VARCHAR(16) NOT NULL,
    attempt INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    progress SMALLINT NOT NULL,
    input JSONB,
    output JSONB,
    failure JSONB,
    failed_attempts JSONB,
    assigned JSONB,
    skip_reason VARCHAR(8192) NOT NULL,
    start_time TIMESTAMP WITH TIME ZONE,
    attempt_time TIMESTAMP WITH TIME ZONE,
    end_time TIMESTAMP WITH TIME ZONE,
    wake_time TIMESTAMP WITH TIME ZONE,
    end_seq BIGINT,
    worker VARCHAR(256) NOT NULL,
    CONSTRAINT steps_pkey PRIMARY KEY (org_id, execution_id, path),
    CONSTRAINT steps_state CHECK (state IN ('CANCELLED', 'COMPENSATED', 'COMPLETED', 'FAILED', 'PENDING', 'RUNNING', 'SKIPPED', 'WAITING')),
    CONSTRAINT steps_end CHECK ((state IN ('PENDING', 'RUNNING', 'WAITING')) = (end_time IS NULL)),
    CONSTRAINT steps_numbers CHECK (attempt >= 0 AND failures >= 0 AND progress BETWEEN 0 AND 100)
) PARTITION BY RANGE (execution_id);

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

-- 0002
ALTER TABLE executions ADD COLUMN deaths SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE executions ADD CONSTRAINT executions_deaths CHECK (deaths >= 0);
CREATE INDEX executions_suspect ON executions (deaths, id) WHERE deaths >= 2 AND end_time IS NULL;
DROP INDEX executions_claimable;
CREATE INDEX executions_claimable ON executions (priority DESC, org_id, wake_time, id) WHERE incarnation IS NULL AND end_time IS NULL;

-- 0003
ALTER TABLE steps ADD COLUMN position INTEGER;

-- 0004
ALTER TABLE executions ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE executions ADD CONSTRAINT executions_bytes CHECK (bytes >= 0);
ALTER TABLE steps ADD COLUMN shared JSONB;
ALTER TABLE events ADD COLUMN shared JSONB;
ALTER TABLE replicas ADD COLUMN revision VARCHAR(32) NOT NULL DEFAULT '';
ALTER TABLE replicas ADD CONSTRAINT replicas_revision CHECK (revision >= '0004' OR lease_until = '-infinity');
CREATE TABLE shared_payloads (
    org_id VARCHAR(256) NOT NULL,
    execution_id UUID NOT NULL,
    digest VARCHAR(64) NOT NULL,
    document JSONB,
    message BYTEA,
    CONSTRAINT shared_payloads_pkey PRIMARY KEY (org_id, execution_id, digest),
    CONSTRAINT shared_payloads_content CHECK ((document IS NULL) <> (message IS NULL))
) PARTITION BY RANGE (execution_id);

-- 0005
CREATE TABLE secrets (
    name VARCHAR(64) NOT NULL CONSTRAINT secrets_pkey PRIMARY KEY,
    value BYTEA NOT NULL,
    create_time TIMESTAMPTZ NOT NULL,
    CONSTRAINT secrets_value CHECK (octet_length(value) = 32)
);

-- What it holds.
CREATE TABLE events_default PARTITION OF events DEFAULT;
INSERT INTO workflows (org_id, id, name, revision, create_time)
VALUES ('development', '01900000-0000-7000-8000-000000000001', 'onboarding', 1, '2026-01-01 00:00:00+00');
INSERT INTO events (org_id, execution_id, seq, transition_seq, kind, time, body)
VALUES ('development', '01900000-0000-7000-8000-000000000002', 1, 1, 'created', '2026-01-01 00:00:00+00', 'old');
