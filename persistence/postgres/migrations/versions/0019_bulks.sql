CREATE TABLE bulks (
    org_id VARCHAR(256) NOT NULL,
    id UUID NOT NULL,
    incarnation UUID,
    cursor UUID NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    end_time TIMESTAMP WITH TIME ZONE,
    epoch BIGINT NOT NULL,
    most INTEGER NOT NULL,
    rate INTEGER NOT NULL,
    matched INTEGER NOT NULL,
    done INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    not_found INTEGER NOT NULL,
    matched_more BOOLEAN NOT NULL,
    state VARCHAR(16) NOT NULL,
    action VARCHAR(16) NOT NULL,
    owner VARCHAR(256),
    created_by VARCHAR(256) NOT NULL,
    stopped_by VARCHAR(256) NOT NULL,
    request_id VARCHAR(128) NOT NULL,
    reason VARCHAR(1024) NOT NULL,
    options JSONB NOT NULL,
    filter JSONB NOT NULL,
    asked JSONB NOT NULL,
    under_way UUID[],
    CONSTRAINT bulks_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT bulks_state CHECK (state IN ('COMPLETED', 'RUNNING', 'STOPPED')),
    CONSTRAINT bulks_action CHECK (action IN ('CANCEL', 'PAUSE', 'RESUME', 'RETRY', 'TERMINATE')),
    CONSTRAINT bulks_end CHECK ((state = 'RUNNING') = (end_time IS NULL)),
    CONSTRAINT bulks_numbers CHECK (least(most, rate, matched, done, refused, not_found, epoch) >= 0)
);
CREATE INDEX bulks_ended ON bulks (end_time) WHERE end_time IS NOT NULL;
CREATE UNIQUE INDEX bulks_request ON bulks (org_id, request_id) WHERE request_id <> '';
CREATE INDEX bulks_running ON bulks (create_time) WHERE end_time IS NULL;
COMMENT ON TABLE bulks IS 'Operations in bulk: one action on many executions, with how far they have come.';
COMMENT ON COLUMN bulks.org_id IS 'Org that the operation belongs to.';
COMMENT ON COLUMN bulks.id IS 'Id, a UUIDv7: by time of creation.';
COMMENT ON COLUMN bulks.incarnation IS 'Process that carries it out, NULL when none does yet.';
COMMENT ON COLUMN bulks.cursor IS 'It comes next to executions with ids below.';
COMMENT ON COLUMN bulks.create_time IS 'When it was started.';
COMMENT ON COLUMN bulks.end_time IS 'When it ended; set exactly in the states that are ends.';
COMMENT ON COLUMN bulks.epoch IS 'Rises at each change of process.';
COMMENT ON COLUMN bulks.most IS 'Executions after which it ends.';
COMMENT ON COLUMN bulks.rate IS 'Executions a second at most, 0 for as many as fit.';
COMMENT ON COLUMN bulks.matched IS 'Executions that met the filter at its start, as counted.';
COMMENT ON COLUMN bulks.done IS 'Executions of which the action was asked.';
COMMENT ON COLUMN bulks.refused IS 'Executions whose state did not allow it.';
COMMENT ON COLUMN bulks.not_found IS 'Executions that were removed before.';
COMMENT ON COLUMN bulks.matched_more IS 'Whether more met the filter than were counted.';
COMMENT ON COLUMN bulks.state IS 'RUNNING, or an end: COMPLETED, STOPPED.';
COMMENT ON COLUMN bulks.action IS 'What it does: CANCEL, PAUSE, RESUME, TERMINATE, RETRY.';
COMMENT ON COLUMN bulks.owner IS 'Subject whose executions it sees alone, NULL for all of the org.';
COMMENT ON COLUMN bulks.created_by IS 'Subject that started it.';
COMMENT ON COLUMN bulks.stopped_by IS 'Subject that stopped it, or empty.';
COMMENT ON COLUMN bulks.request_id IS 'Id of the request that started it, or empty.';
COMMENT ON COLUMN bulks.reason IS 'Why, in the words of the caller.';
COMMENT ON COLUMN bulks.options IS 'What belongs to the action, an object.';
COMMENT ON COLUMN bulks.filter IS 'Which executions, an object.';
COMMENT ON COLUMN bulks.asked IS 'The filter as the caller gave it, an object.';
COMMENT ON COLUMN bulks.under_way IS 'Executions that it retries now; NULL where there are none.';
CREATE TABLE bulk_results (
    org_id VARCHAR(256) NOT NULL,
    bulk_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    number INTEGER NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    reason TEXT NOT NULL,
    CONSTRAINT bulk_results_pkey PRIMARY KEY (org_id, bulk_id, number),
    CONSTRAINT bulk_results_outcome CHECK (outcome IN ('DONE', 'NOT_FOUND', 'REFUSED'))
);
COMMENT ON TABLE bulk_results IS 'What came of each execution in an operation in bulk.';
COMMENT ON COLUMN bulk_results.org_id IS 'Org.';
COMMENT ON COLUMN bulk_results.bulk_id IS 'Operation.';
COMMENT ON COLUMN bulk_results.execution_id IS 'Execution; it may be gone.';
COMMENT ON COLUMN bulk_results.number IS 'Number in the operation, from 1, in its order.';
COMMENT ON COLUMN bulk_results.outcome IS 'DONE, REFUSED, NOT_FOUND.';
COMMENT ON COLUMN bulk_results.reason IS 'Why it was refused, or empty.';
ALTER TABLE requests DROP CONSTRAINT requests_method;
ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ('APPLY_WORKFLOWS', 'BREAKPOINTS', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW', 'DELEGATE_TASK', 'DELETE_WORKFLOW', 'EDIT', 'EXECUTE', 'MARK_NOTIFICATIONS_READ', 'PAUSE', 'RELEASE_TASK', 'RESUME', 'RETRY', 'SIGNAL', 'START_BULK', 'TERMINATE', 'UPDATE_WORKFLOW'));
