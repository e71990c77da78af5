"""What tells a repeated call from a request id that is used for something else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

REMEMBERED = timedelta(days=30)
"""For so long a request id is remembered, and as long as the execution that it started or cancelled is kept."""


class Method(StrEnum):
    """A call that changes something, and so may have a request id. The names are what the database holds."""

    EXECUTE = "EXECUTE"
    CANCEL = "CANCEL"
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    BREAKPOINTS = "BREAKPOINTS"
    EDIT = "EDIT"
    RETRY = "RETRY"
    SIGNAL = "SIGNAL"
    TERMINATE = "TERMINATE"
    START_BULK = "START_BULK"
    CREATE_WORKFLOW = "CREATE_WORKFLOW"
    UPDATE_WORKFLOW = "UPDATE_WORKFLOW"
    APPLY_WORKFLOWS = "APPLY_WORKFLOWS"
    DELETE_WORKFLOW = "DELETE_WORKFLOW"
    PAUSE_WORKFLOW = "PAUSE_WORKFLOW"
    RESUME_WORKFLOW = "RESUME_WORKFLOW"
    BREAK_WORKFLOW = "BREAK_WORKFLOW"
    MARK_NOTIFICATIONS_READ = "MARK_NOTIFICATIONS_READ"
    CLAIM_TASK = "CLAIM_TASK"
    RELEASE_TASK = "RELEASE_TASK"
    COMPLETE_TASK = "COMPLETE_TASK"
    DELEGATE_TASK = "DELEGATE_TASK"
    COMMENT_TASK = "COMMENT_TASK"


@dataclass(frozen=True, slots=True)
class Request:
    """A call with a request id, which is used once in an org.

    `content_hash` is half the SHA-256 of all that the caller asked for.
    """

    id: str
    method: Method
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked under a request id before.

    `execution_id` is the execution that was started, or that something was sent to or done with, by its task too; None
    where it was about something else, such as a workflow.
    """

    execution_id: UUID | None
