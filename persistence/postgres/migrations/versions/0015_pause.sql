ALTER TABLE executions ADD COLUMN pause JSONB;

COMMENT ON COLUMN executions.pause IS 'Of a PAUSED one: by, reason, time, is_hard, stops_deadline; or NULL.';
