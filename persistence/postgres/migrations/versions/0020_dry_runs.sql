ALTER TABLE executions ADD COLUMN dry_run BOOLEAN;

COMMENT ON COLUMN executions.dry_run IS 'True where it sends nothing outside; else NULL.';

CREATE INDEX executions_dry_runs ON executions (org_id, id) WHERE dry_run IS TRUE;

ALTER TABLE execution_inputs ADD COLUMN dry_run JSONB;

COMMENT ON COLUMN execution_inputs.dry_run IS 'Mocks of a dry run: mocks, handlers, default, skips_waits; or NULL.';

ALTER TABLE steps ADD COLUMN mocked BOOLEAN;

COMMENT ON COLUMN steps.mocked IS 'True where a mock stood in its place; else NULL.';
