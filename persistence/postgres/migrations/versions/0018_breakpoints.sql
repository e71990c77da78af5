ALTER TABLE executions ADD COLUMN breakpoints JSONB;

COMMENT ON COLUMN executions.breakpoints IS 'Where it is held before steps begin: by, points, halt, step; or NULL.';

ALTER TABLE steps ADD COLUMN fixed BOOLEAN;

COMMENT ON COLUMN steps.fixed IS 'True where its attempts are called with its input as it is; else NULL.';

ALTER TABLE messages DROP CONSTRAINT messages_kind;

ALTER TABLE messages ADD CONSTRAINT messages_kind CHECK (kind IN (
    'BREAKPOINTS', 'CANCEL', 'CHILD_ENDED', 'EDIT', 'PAUSE', 'RESUME', 'SIGNAL', 'TASK_COMPLETED', 'TERMINATE'
));

ALTER TABLE requests DROP CONSTRAINT requests_method;

ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN (
    'APPLY_WORKFLOWS', 'BREAKPOINTS', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW',
    'DELEGATE_TASK', 'DELETE_WORKFLOW', 'EDIT', 'EXECUTE', 'MARK_NOTIFICATIONS_READ', 'PAUSE', 'RELEASE_TASK',
    'RESUME', 'RETRY', 'SIGNAL', 'TERMINATE', 'UPDATE_WORKFLOW'
));
