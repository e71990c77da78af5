ALTER TABLE workflows ADD COLUMN breakpoints JSONB;
COMMENT ON COLUMN workflows.breakpoints IS 'Where its next executions are held: id, by, points, time; or NULL.';
ALTER TABLE workflows ADD COLUMN breakpoints_left INTEGER;
COMMENT ON COLUMN workflows.breakpoints_left IS 'How many more executions take these breakpoints up; or NULL.';
ALTER TABLE workflows ADD COLUMN breakpoints_until TIMESTAMP WITH TIME ZONE;
COMMENT ON COLUMN workflows.breakpoints_until IS 'Until when executions take them up; or NULL.';
ALTER TABLE requests DROP CONSTRAINT requests_method;
ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ('APPLY_WORKFLOWS', 'BREAKPOINTS', 'BREAK_WORKFLOW', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW', 'DELEGATE_TASK', 'DELETE_WORKFLOW', 'EDIT', 'EXECUTE', 'MARK_NOTIFICATIONS_READ', 'PAUSE', 'PAUSE_WORKFLOW', 'RELEASE_TASK', 'RESUME', 'RESUME_WORKFLOW', 'RETRY', 'SIGNAL', 'START_BULK', 'TERMINATE', 'UPDATE_WORKFLOW'));
