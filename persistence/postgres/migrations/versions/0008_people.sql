ALTER TABLE messages DROP CONSTRAINT messages_kind;
ALTER TABLE messages ADD CONSTRAINT messages_kind CHECK (kind IN ('CANCEL', 'CHILD_ENDED', 'TASK_COMPLETED'));
COMMENT ON COLUMN messages.kind IS 'What it says: CANCEL, CHILD_ENDED, TASK_COMPLETED.';

ALTER TABLE requests DROP CONSTRAINT requests_method;
ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ('APPLY_WORKFLOWS', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW', 'DELEGATE_TASK', 'DELETE_WORKFLOW', 'EXECUTE', 'RELEASE_TASK', 'UPDATE_WORKFLOW'));

CREATE TABLE tasks (
    org_id VARCHAR(256) NOT NULL,
    id UUID NOT NULL,
    execution_id UUID NOT NULL,
    iteration INTEGER NOT NULL,
    version INTEGER NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    update_time TIMESTAMP WITH TIME ZONE NOT NULL,
    due_time TIMESTAMP WITH TIME ZONE,
    claim_time TIMESTAMP WITH TIME ZONE,
    end_time TIMESTAMP WITH TIME ZONE,
    waited BOOLEAN NOT NULL,
    escalated BOOLEAN NOT NULL,
    state VARCHAR(16) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    workflow_name VARCHAR(128) NOT NULL,
    owner VARCHAR(256) NOT NULL,
    claimed_by VARCHAR(256),
    completed_by VARCHAR(256),
    outcome VARCHAR(64),
    title VARCHAR(256) NOT NULL,
    outcomes TEXT[] NOT NULL,
    assignees TEXT[],
    groups TEXT[],
    description TEXT NOT NULL,
    form JSONB,
    values JSONB,
    comments JSONB,
    CONSTRAINT tasks_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT tasks_state CHECK (state IN ('CANCELLED', 'CLAIMED', 'COMPLETED', 'EXPIRED', 'OPEN')),
    CONSTRAINT tasks_end CHECK ((state IN ('CANCELLED', 'COMPLETED', 'EXPIRED')) = (end_time IS NOT NULL)),
    CONSTRAINT tasks_completed CHECK ((state = 'COMPLETED') = (completed_by IS NOT NULL)),
    CONSTRAINT tasks_claimed CHECK ((claimed_by IS NULL) = (claim_time IS NULL)),
    CONSTRAINT tasks_numbers CHECK (iteration >= 1 AND version >= 1)
);

CREATE INDEX tasks_of_execution ON tasks (execution_id);

CREATE INDEX tasks_open ON tasks (org_id, id) WHERE end_time IS NULL;

COMMENT ON TABLE tasks IS 'Tasks of people; a step that waits for one names it in its wait.';
COMMENT ON COLUMN tasks.org_id IS 'Org that the task belongs to.';
COMMENT ON COLUMN tasks.id IS 'Id, a UUIDv7: by time of creation.';
COMMENT ON COLUMN tasks.execution_id IS 'Execution whose step made it.';
COMMENT ON COLUMN tasks.iteration IS 'Iteration of that step.';
COMMENT ON COLUMN tasks.version IS 'Rises with each change.';
COMMENT ON COLUMN tasks.create_time IS 'When it was made.';
COMMENT ON COLUMN tasks.update_time IS 'When it was changed last.';
COMMENT ON COLUMN tasks.due_time IS 'When it is to be done.';
COMMENT ON COLUMN tasks.claim_time IS 'When it was claimed.';
COMMENT ON COLUMN tasks.end_time IS 'When it ended; set exactly in the states that are ends.';
COMMENT ON COLUMN tasks.waited IS 'Whether the step waits for it.';
COMMENT ON COLUMN tasks.escalated IS 'Whether it was overdue once, and handed to others.';
COMMENT ON COLUMN tasks.state IS 'OPEN, CLAIMED, or an end: COMPLETED, EXPIRED, CANCELLED.';
COMMENT ON COLUMN tasks.path IS 'Path of the step.';
COMMENT ON COLUMN tasks.workflow_name IS 'Name of the workflow.';
COMMENT ON COLUMN tasks.owner IS 'Subject that started the execution.';
COMMENT ON COLUMN tasks.claimed_by IS 'Subject that works on it.';
COMMENT ON COLUMN tasks.completed_by IS 'Subject that completed it.';
COMMENT ON COLUMN tasks.outcome IS 'What it ended with.';
COMMENT ON COLUMN tasks.title IS 'What is to be done, in a line.';
COMMENT ON COLUMN tasks.outcomes IS 'What it can end with.';
COMMENT ON COLUMN tasks.assignees IS 'Subjects that it is for, if it is for some.';
COMMENT ON COLUMN tasks.groups IS 'Groups whose members it is for, if it is for some.';
COMMENT ON COLUMN tasks.description IS 'All that a person needs to know.';
COMMENT ON COLUMN tasks.form IS 'JSON Schema of the values to fill in.';
COMMENT ON COLUMN tasks.values IS 'What was filled in.';
COMMENT ON COLUMN tasks.comments IS 'What was said about it: author, time, text.';
