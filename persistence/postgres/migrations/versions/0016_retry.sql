ALTER TABLE executions ADD COLUMN reopened_seq BIGINT;
COMMENT ON COLUMN executions.reopened_seq IS 'Number of the event with which its run began; NULL in the first.';

ALTER TABLE execution_inputs ADD COLUMN edit JSONB;
COMMENT ON COLUMN execution_inputs.edit IS 'What one step has in this run instead of what its definition says: path, value.';
