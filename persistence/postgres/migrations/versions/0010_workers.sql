CREATE TABLE worker_handlers (
    org_id VARCHAR(256) NOT NULL,
    name VARCHAR(128) NOT NULL,
    description TEXT NOT NULL,
    params_schema JSONB NOT NULL,
    effect VARCHAR(16) NOT NULL,
    version VARCHAR(64) NOT NULL,
    seen_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT worker_handlers_pkey PRIMARY KEY (org_id, name),
    CONSTRAINT worker_handlers_effect CHECK (effect IN ('external', 'idempotent', 'none'))
);

COMMENT ON TABLE worker_handlers IS 'Handlers that workers have registered: definitions may name them while no worker is connected.';
COMMENT ON COLUMN worker_handlers.org_id IS 'Org of the workers.';
COMMENT ON COLUMN worker_handlers.name IS 'Name by which steps call it.';
COMMENT ON COLUMN worker_handlers.description IS 'What it does, for people.';
COMMENT ON COLUMN worker_handlers.params_schema IS 'JSON Schema of its parameters.';
COMMENT ON COLUMN worker_handlers.effect IS 'What an attempt does outside: none, idempotent, external.';
COMMENT ON COLUMN worker_handlers.version IS 'Version of the worker that registered it last.';
COMMENT ON COLUMN worker_handlers.seen_time IS 'When a worker registered it last, to the hour.';

CREATE TABLE workers (
    incarnation UUID NOT NULL,
    org_id VARCHAR(256) NOT NULL,
    subject VARCHAR(256) NOT NULL,
    worker_id VARCHAR(64) NOT NULL,
    name VARCHAR(128) NOT NULL,
    version VARCHAR(64) NOT NULL,
    handlers JSONB NOT NULL,
    capacity INTEGER NOT NULL,
    running INTEGER NOT NULL,
    is_draining BOOLEAN NOT NULL,
    connect_time TIMESTAMP WITH TIME ZONE NOT NULL,
    heartbeat_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT workers_pkey PRIMARY KEY (incarnation, org_id, subject, worker_id)
);

COMMENT ON TABLE workers IS 'Workers that are connected to any process, for those who ask; no attempt is given by it.';
COMMENT ON COLUMN workers.incarnation IS 'Process that it is connected to.';
COMMENT ON COLUMN workers.org_id IS 'Org of the worker.';
COMMENT ON COLUMN workers.subject IS 'Subject of its identity.';
COMMENT ON COLUMN workers.worker_id IS 'Id that it has made for itself.';
COMMENT ON COLUMN workers.name IS 'Name for people.';
COMMENT ON COLUMN workers.version IS 'Version of its code.';
COMMENT ON COLUMN workers.handlers IS 'Names of its handlers, an array.';
COMMENT ON COLUMN workers.capacity IS 'How many attempts it runs at a time.';
COMMENT ON COLUMN workers.running IS 'How many it ran when this was written.';
COMMENT ON COLUMN workers.is_draining IS 'Whether it takes no more attempts.';
COMMENT ON COLUMN workers.connect_time IS 'When it connected.';
COMMENT ON COLUMN workers.heartbeat_time IS 'When it had last been heard of when this was written.';
