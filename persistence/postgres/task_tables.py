"""The table of the tasks of people."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from persistence.people import ENDED_TASKS, TaskState
from persistence.postgres.listed import listed

_TIME = DateTime(timezone=True)


def add_task_tables(metadata: MetaData) -> None:
    """Add the table to those of a schema."""
    # Not partitioned: a task is looked for without its execution, there are as many as people can do, and one for which
    # no step waits may be done when its execution has long ended.
    Table(
        "tasks",
        metadata,
        Column("org_id", String(256), nullable=False, comment="Org that the task belongs to."),
        Column("id", Uuid, nullable=False, comment="Id, a UUIDv7: by time of creation."),
        Column("execution_id", Uuid, nullable=False, comment="Execution whose step made it."),
        Column("iteration", Integer, nullable=False, comment="Iteration of that step."),
        Column("version", Integer, nullable=False, comment="Rises with each change."),
        Column("create_time", _TIME, nullable=False, comment="When it was made."),
        Column("update_time", _TIME, nullable=False, comment="When it was changed last."),
        Column("due_time", _TIME, comment="When it is to be done."),
        Column("claim_time", _TIME, comment="When it was claimed."),
        Column("end_time", _TIME, comment="When it ended; set exactly in the states that are ends."),
        Column("waited", Boolean, nullable=False, comment="Whether the step waits for it."),
        Column("escalated", Boolean, nullable=False, comment="Whether it was overdue once, and handed to others."),
        Column("state", String(16), nullable=False, comment="OPEN, CLAIMED, or an end: COMPLETED, EXPIRED, CANCELLED."),
        Column("path", String(1024), nullable=False, comment="Path of the step."),
        Column("workflow_name", String(128), nullable=False, comment="Name of the workflow."),
        Column("owner", String(256), nullable=False, comment="Subject that started the execution."),
        Column("claimed_by", String(256), comment="Subject that works on it."),
        Column("completed_by", String(256), comment="Subject that completed it."),
        Column("outcome", String(64), comment="What it ended with."),
        Column("title", String(256), nullable=False, comment="What is to be done, in a line."),
        Column("outcomes", ARRAY(Text), nullable=False, comment="What it can end with."),
        Column("assignees", ARRAY(Text), comment="Subjects that it is for, if it is for some."),
        Column("groups", ARRAY(Text), comment="Groups whose members it is for, if it is for some."),
        Column("description", Text, nullable=False, comment="All that a person needs to know."),
        Column("form", JSONB, comment="JSON Schema of the values to fill in."),
        Column("values", JSONB, comment="What was filled in."),
        Column("comments", JSONB, comment="What was said about it: author, time, text."),
        PrimaryKeyConstraint("org_id", "id", name="tasks_pkey"),
        CheckConstraint(f"state IN ({listed(TaskState)})", name="tasks_state"),
        CheckConstraint(f"(state IN ({listed(ENDED_TASKS)})) = (end_time IS NOT NULL)", name="tasks_end"),
        CheckConstraint("(state = 'COMPLETED') = (completed_by IS NOT NULL)", name="tasks_completed"),
        CheckConstraint("(claimed_by IS NULL) = (claim_time IS NULL)", name="tasks_claimed"),
        CheckConstraint("iteration >= 1 AND version >= 1", name="tasks_numbers"),
        Index("tasks_of_execution", "execution_id"),
        Index("tasks_open", "org_id", "id", postgresql_where=text("end_time IS NULL")),
        comment="Tasks of people; a step that waits for one names it in its wait.",
    )
