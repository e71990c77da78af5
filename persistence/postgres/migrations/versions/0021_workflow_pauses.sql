ALTER TABLE workflows ADD COLUMN pause JSONB;
COMMENT ON COLUMN workflows.pause IS 'While it is paused: id, by, reason, time, pauses_running; else NULL.';
ALTER TABLE executions ADD COLUMN held_back BOOLEAN;
COMMENT ON COLUMN executions.held_back IS 'True where it waits for the resume of its workflow before it starts.';
ALTER TABLE requests DROP CONSTRAINT requests_method;
ALTER TABLE requests ADD CONSTRAINT requests_method CHECK (method IN ('APPLY_WORKFLOWS', 'BREAKPOINTS', 'CANCEL', 'CLAIM_TASK', 'COMMENT_TASK', 'COMPLETE_TASK', 'CREATE_WORKFLOW', 'DELEGATE_TASK', 'DELETE_WORKFLOW', 'EDIT', 'EXECUTE', 'MARK_NOTIFICATIONS_READ', 'PAUSE', 'PAUSE_WORKFLOW', 'RELEASE_TASK', 'RESUME', 'RESUME_WORKFLOW', 'RETRY', 'SIGNAL', 'START_BULK', 'TERMINATE', 'UPDATE_WORKFLOW'));
