"""What can go wrong in a store.

PersistenceError
├── NotFoundError
│   ├── WorkflowNotFoundError
│   ├── RevisionNotFoundError
│   ├── ExecutionNotFoundError
│   ├── TaskNotFoundError
│   └── BulkNotFoundError
├── NameTakenError
├── EtagMismatchError
├── WorkflowInUseError
├── RequestIdReusedError
├── ExecutionFinishedError
├── ExecutionStateError
├── SignalsFullError
├── TooManyBulksError
├── TaskEndedError
├── TaskClaimedError
├── TaskNotAssignedError
├── CursorAheadError
├── CursorExpiredError
├── UnreadableError
├── QueueFullError
├── UnavailableError
│   ├── StorageFullError
│   └── DamagedError
├── SchemaError
└── EmbeddedPostgresError
        └── EmbeddedPostgresInUseError
"""

from __future__ import annotations

from uuid import UUID


class PersistenceError(Exception):
    """Anything a store refuses or cannot do."""


class NotFoundError(PersistenceError):
    """The thing does not exist, or lies outside the scope of the caller: the two are never told apart."""


class WorkflowNotFoundError(NotFoundError):
    """There is no such workflow in the scope."""

    def __init__(self, workflow: str) -> None:
        super().__init__(f"workflow {workflow!r} not found")
        self.workflow = workflow


class RevisionNotFoundError(NotFoundError):
    """The workflow exists and has no such revision."""

    def __init__(self, workflow: str, revision: int) -> None:
        super().__init__(f"workflow {workflow!r} has no revision {revision}")
        self.workflow = workflow
        self.revision = revision


class ExecutionNotFoundError(NotFoundError):
    """There is no such execution in the scope."""

    def __init__(self, execution_id: UUID) -> None:
        super().__init__(f"execution {execution_id} not found")
        self.execution_id = execution_id


class TaskNotFoundError(NotFoundError):
    """There is no such task that the person sees."""

    def __init__(self, task_id: UUID) -> None:
        super().__init__(f"task {task_id} not found")
        self.task_id = task_id


class BulkNotFoundError(NotFoundError):
    """There is no such operation in bulk in the scope."""

    def __init__(self, bulk_id: UUID) -> None:
        super().__init__(f"operation {bulk_id} not found")
        self.bulk_id = bulk_id


class NameTakenError(PersistenceError):
    """Another workflow of the org has the name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a workflow named {name!r} exists already")
        self.name = name


class EtagMismatchError(PersistenceError):
    """The workflow was changed since the caller read it."""

    def __init__(self, workflow: str) -> None:
        super().__init__(f"workflow {workflow!r} was changed since its etag was read; read it again")
        self.workflow = workflow


class WorkflowInUseError(PersistenceError):
    """The workflow has executions that have not ended."""

    def __init__(self, workflow: str, running: int) -> None:
        super().__init__(f"workflow {workflow!r} has {running} executions that have not ended")
        self.workflow = workflow
        self.running = running


class RequestIdReusedError(PersistenceError):
    """The request id was used before, with other content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id {request_id!r} was used before with other content")
        self.request_id = request_id


class ExecutionFinishedError(PersistenceError):
    """The execution has ended, and not by being cancelled."""

    def __init__(self, execution_id: UUID, state: str) -> None:
        super().__init__(f"execution {execution_id} has ended: {state}")
        self.execution_id = execution_id
        self.state = state


class ExecutionStateError(PersistenceError):
    """The execution is in a state in which that cannot be asked of it; `wanted` says what would be right."""

    def __init__(self, execution_id: UUID, state: str, wanted: str) -> None:
        super().__init__(f"execution {execution_id} is {state}: {wanted}")
        self.execution_id = execution_id
        self.state = state


class SignalsFullError(PersistenceError):
    """The execution keeps as many signals as it may that no step has taken."""

    def __init__(self, execution_id: UUID, most: int, most_bytes: int) -> None:
        super().__init__(
            f"execution {execution_id} keeps signals that no step has taken, of which there may be {most:,} with"
            f" {most_bytes:,} bytes of payloads in all; the new one was not kept"
        )
        self.execution_id = execution_id


class TooManyBulksError(PersistenceError):
    """As many operations in bulk of the org run as may at a time."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} operations in bulk of the org run, which is the most: wait for one, or stop one")
        self.most = most


class TaskEndedError(PersistenceError):
    """The task has ended."""

    def __init__(self, task_id: UUID, state: str, completed_by: str) -> None:
        super().__init__(f"task {task_id} has ended: {state}" + (f" by {completed_by}" if completed_by else ""))
        self.task_id = task_id
        self.state = state
        self.completed_by = completed_by


class TaskClaimedError(PersistenceError):
    """Somebody else works on the task."""

    def __init__(self, task_id: UUID, claimed_by: str) -> None:
        super().__init__(f"task {task_id} is claimed by {claimed_by}")
        self.task_id = task_id
        self.claimed_by = claimed_by


class TaskNotAssignedError(PersistenceError):
    """The task is for others."""

    def __init__(self, task_id: UUID) -> None:
        super().__init__(f"task {task_id} is for others")
        self.task_id = task_id


class CursorAheadError(PersistenceError):
    """The resume position lies beyond the newest event or notification."""

    def __init__(self, after_seq: int, last_seq: int) -> None:
        super().__init__(f"seq {after_seq} is beyond the newest one, {last_seq}")
        self.after_seq = after_seq
        self.last_seq = last_seq


class CursorExpiredError(PersistenceError):
    """Events after the resume position are no longer kept."""

    def __init__(self, oldest_seq: int) -> None:
        super().__init__(f"the oldest event that is kept is {oldest_seq}")
        self.oldest_seq = oldest_seq


class UnreadableError(PersistenceError):
    """What the store holds of a revision of a workflow cannot be read."""

    def __init__(self, workflow: str, revision: int, why: str) -> None:
        super().__init__(f"revision {revision} of workflow {workflow!r} cannot be read: {why}")
        self.workflow = workflow
        self.revision = revision
        self.why = why


class QueueFullError(PersistenceError):
    """The bounded queue before the store is full; nothing was written."""


class UnavailableError(PersistenceError):
    """The store cannot be reached, or cannot do it now; for a write it is unknown whether it happened.

    `told` is what is wrong, as callers may know it.
    """

    def __init__(self, text: str, told: str = "the database cannot be reached") -> None:
        super().__init__(text)
        self.told = told


class StorageFullError(UnavailableError):
    """There is no space left where the store writes; nothing was written."""


class DamagedError(UnavailableError):
    """The store has found its own files damaged."""


class SchemaError(PersistenceError):
    """The database has a schema that this program cannot work with."""


class EmbeddedPostgresError(PersistenceError):
    """The embedded Postgres cannot be started or is owned by another process."""


class EmbeddedPostgresInUseError(EmbeddedPostgresError):
    """Another process owns the folder of the embedded Postgres."""
