CREATE TABLE worker_attempts (
    execution_id UUID NOT NULL,
    org_id VARCHAR(256) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    iteration INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    incarnation UUID NOT NULL,
    seen_time TIMESTAMP WITH TIME ZONE NOT NULL,
    report BYTEA NOT NULL,
    stop VARCHAR(16) NOT NULL,
    CONSTRAINT worker_attempts_pkey PRIMARY KEY (execution_id, org_id, path, iteration, attempt)
);

COMMENT ON TABLE worker_attempts IS 'Attempts that go on although their server died or lost them: the worker is connected to a process that does not drive the execution, or did not when it came.';
COMMENT ON COLUMN worker_attempts.execution_id IS 'Execution.';
COMMENT ON COLUMN worker_attempts.org_id IS 'Org of the execution.';
COMMENT ON COLUMN worker_attempts.path IS 'Path of the step.';
COMMENT ON COLUMN worker_attempts.iteration IS 'Iteration of the step.';
COMMENT ON COLUMN worker_attempts.attempt IS 'Number of the attempt.';
COMMENT ON COLUMN worker_attempts.incarnation IS 'Process that the worker is connected to.';
COMMENT ON COLUMN worker_attempts.seen_time IS 'When that process last said so.';
COMMENT ON COLUMN worker_attempts.report IS 'What the worker has said of it, for the owner of the execution; empty for nothing.';
COMMENT ON COLUMN worker_attempts.stop IS 'Why the owner wants it to stop; empty when it is to go on.';
