ALTER TABLE workers ADD COLUMN labels JSONB DEFAULT '{}' NOT NULL;

COMMENT ON COLUMN workers.labels IS 'Its labels, an object.';

CREATE TABLE awaited_workers (
    org_id VARCHAR(256) NOT NULL,
    handler VARCHAR(128) NOT NULL,
    digest VARCHAR(64) NOT NULL,
    wishes TEXT NOT NULL,
    seen_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT awaited_workers_pkey PRIMARY KEY (org_id, handler, digest)
);

COMMENT ON TABLE awaited_workers IS 'What is wished of workers that are waited for: processes whose workers have it claim by it.';
COMMENT ON COLUMN awaited_workers.org_id IS 'Org of the executions that wait, or did.';
COMMENT ON COLUMN awaited_workers.handler IS 'Handler that a worker must have for them.';
COMMENT ON COLUMN awaited_workers.digest IS 'SHA-256 of wishes, in hexadecimal digits.';
COMMENT ON COLUMN awaited_workers.wishes IS 'Labels and versions that it must have, as JSON.';
COMMENT ON COLUMN awaited_workers.seen_time IS 'When an execution began to wait so, to the hour.';
