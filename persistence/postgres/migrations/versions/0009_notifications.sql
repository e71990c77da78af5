CREATE TABLE notification_counters (
    org_id VARCHAR(256) NOT NULL,
    last_seq BIGINT NOT NULL,
    CONSTRAINT notification_counters_pkey PRIMARY KEY (org_id)
);

COMMENT ON TABLE notification_counters IS 'Numbers of notifications: its row is locked until they are committed, so that they appear in order.';
COMMENT ON COLUMN notification_counters.org_id IS 'Org.';
COMMENT ON COLUMN notification_counters.last_seq IS 'Number that was given last.';

CREATE TABLE notifications (
    org_id VARCHAR(256) NOT NULL,
    seq BIGINT NOT NULL,
    token VARCHAR(64) NOT NULL,
    title VARCHAR(200) NOT NULL,
    text VARCHAR(4000) NOT NULL,
    link VARCHAR(2000) NOT NULL,
    data JSONB,
    severity VARCHAR(8) NOT NULL,
    workflow_name VARCHAR(128) NOT NULL,
    execution_id UUID NOT NULL,
    step_path TEXT NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT notifications_pkey PRIMARY KEY (org_id, seq),
    CONSTRAINT notifications_severity CHECK (severity IN ('ERROR', 'INFO', 'WARNING'))
);

CREATE INDEX notifications_age ON notifications (create_time);

CREATE UNIQUE INDEX notifications_token ON notifications (org_id, token);

COMMENT ON TABLE notifications IS 'What steps tell people, kept for 30 days: to whom is in notification_recipients.';
COMMENT ON COLUMN notifications.org_id IS 'Org of the execution that sent it.';
COMMENT ON COLUMN notifications.seq IS 'Number in the org, in the order of commits.';
COMMENT ON COLUMN notifications.token IS 'Idempotency token of the step: it sends one at most.';
COMMENT ON COLUMN notifications.title IS 'One line.';
COMMENT ON COLUMN notifications.text IS 'Text, empty for none.';
COMMENT ON COLUMN notifications.link IS 'Where it leads, empty for nowhere.';
COMMENT ON COLUMN notifications.data IS 'What a program may want to know, an object.';
COMMENT ON COLUMN notifications.severity IS 'How much it matters: INFO, WARNING, ERROR.';
COMMENT ON COLUMN notifications.workflow_name IS 'Workflow that sent it.';
COMMENT ON COLUMN notifications.execution_id IS 'Execution that sent it; it may be gone.';
COMMENT ON COLUMN notifications.step_path IS 'Step that sent it.';
COMMENT ON COLUMN notifications.create_time IS 'When it was sent.';

CREATE TABLE notification_recipients (
    org_id VARCHAR(256) NOT NULL,
    kind VARCHAR(8) NOT NULL,
    name VARCHAR(256) NOT NULL,
    seq BIGINT NOT NULL,
    number BIGINT NOT NULL,
    CONSTRAINT notification_recipients_pkey PRIMARY KEY (org_id, kind, name, seq),
    CONSTRAINT notification_recipients_notification FOREIGN KEY(org_id, seq) REFERENCES notifications (org_id, seq) ON DELETE CASCADE,
    CONSTRAINT notification_recipients_kind CHECK (kind IN ('GROUP', 'SUBJECT'))
);

CREATE INDEX notification_recipients_seq ON notification_recipients (org_id, seq);

COMMENT ON TABLE notification_recipients IS 'Whom notifications are for, the newest 1,000 of each.';
COMMENT ON COLUMN notification_recipients.org_id IS 'Org.';
COMMENT ON COLUMN notification_recipients.kind IS 'What the name is of: SUBJECT, GROUP.';
COMMENT ON COLUMN notification_recipients.name IS 'Whom it is for.';
COMMENT ON COLUMN notification_recipients.seq IS 'Notification.';
COMMENT ON COLUMN notification_recipients.number IS 'Number among those of this recipient.';

CREATE TABLE notification_reads (
    org_id VARCHAR(256) NOT NULL,
    seq BIGINT NOT NULL,
    subject VARCHAR(256) NOT NULL,
    read_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT notification_reads_pkey PRIMARY KEY (org_id, seq, subject),
    CONSTRAINT notification_reads_notification FOREIGN KEY(org_id, seq) REFERENCES notifications (org_id, seq) ON DELETE CASCADE
);

COMMENT ON TABLE notification_reads IS 'Which notifications were read, and by whom.';
COMMENT ON COLUMN notification_reads.org_id IS 'Org.';
COMMENT ON COLUMN notification_reads.seq IS 'Notification.';
COMMENT ON COLUMN notification_reads.subject IS 'Who has read it.';
COMMENT ON COLUMN notification_reads.read_time IS 'When.';

