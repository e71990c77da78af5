ALTER TABLE executions ADD COLUMN lineage JSONB;
COMMENT ON COLUMN executions.lineage IS 'Of one that was made from another one: source, seq, step_path; or NULL.';

CREATE INDEX executions_forks ON executions (org_id, (lineage->>'source'), id) WHERE lineage IS NOT NULL;

ALTER TABLE execution_inputs ADD COLUMN vars JSONB;
COMMENT ON COLUMN execution_inputs.vars IS 'Variables that one was given which was made from another one; or NULL.';
