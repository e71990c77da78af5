"""Notifications that steps send to people: the values that a store takes and gives, and its contract for them.

They are numbered per org, in the order in which they are committed: a reader that goes on behind a number misses none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from persistence.requests import Request

KEPT_FOR = timedelta(days=30)
"""For so long a notification is kept, and the token of the step that sent it remembered."""

KEPT_EACH = 1_000
"""So many notifications of each recipient are kept, the newest."""

LONGEST_TITLE, LONGEST_TEXT, LONGEST_LINK = 200, 4_000, 2_000
"""Characters."""


class Severity(StrEnum):
    """How much a notification matters. The names are what the database holds."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class RecipientKind(StrEnum):
    """Whether a recipient is one person or several. The names are what the database holds."""

    SUBJECT = "SUBJECT"
    GROUP = "GROUP"


@dataclass(frozen=True, slots=True, order=True)
class Recipient:
    """Whom a notification is addressed to: a subject or a group of an org."""

    kind: RecipientKind
    name: str


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks for notifications: a subject of an org, which sees its own and those of its groups."""

    org: str
    subject: str
    groups: tuple[str, ...] = ()

    @property
    def recipients(self) -> list[Recipient]:
        """All that a notification for this reader may be addressed to."""
        return [subject(self.subject), *(group(each) for each in self.groups)]


@dataclass(frozen=True, slots=True)
class NewNotification:
    """What a step sends. `token` is that of the step: with it, the org is sent one notification at most."""

    org: str
    token: str
    recipients: tuple[Recipient, ...]
    title: str
    text: str
    link: str
    data: Mapping[str, Any] | None
    severity: Severity
    workflow_name: str
    execution_id: UUID
    step_path: str


@dataclass(frozen=True, slots=True)
class UserNotification:
    """A notification as its reader sees it; `read_time` is None while that one has not read it."""

    seq: int
    title: str
    text: str
    link: str
    data: Mapping[str, Any] | None
    severity: Severity
    workflow_name: str
    execution_id: UUID
    step_path: str
    create_time: datetime
    read_time: datetime | None


class UserNotificationRepository(Protocol):
    """Notifications of an org. A reader never sees, counts or marks one that is not addressed to it."""

    async def send_notification(self, new: NewNotification) -> int:
        """Keep a notification and return its number; with a token that was used before, that of the first, unchanged.

        Of each recipient the oldest beyond KEPT_EACH are dropped. Other processes are told, as topics of `listen`.
        """
        ...

    async def list_notifications(
        self, reader: Reader, before: int | None, limit: int, *, unread_only: bool = False
    ) -> Sequence[UserNotification]:
        """Return up to `limit` notifications, newest first, with numbers below `before`."""
        ...

    async def follow_notifications(self, reader: Reader, after: int, limit: int) -> Sequence[UserNotification]:
        """Return the next notifications behind number `after`, up to `limit`, oldest first.

        Raises CursorAheadError when the org has no such number yet.
        """
        ...

    async def last_notification(self, org: str) -> int:
        """Return the number of the newest notification of the org, 0 when it never had one."""
        ...

    async def count_unread(self, reader: Reader) -> int:
        """Return how many notifications the reader has not read."""
        ...

    async def unread(self, reader: Reader, limit: int) -> Sequence[int]:
        """Return the numbers of the newest notifications that the reader has not read, up to `limit`, newest first."""
        ...

    async def mark_read(self, reader: Reader, seqs: Sequence[int], up_to: int, request: Request | None = None) -> None:
        """Mark those of these numbers, or with none all up to `up_to`, as read by the reader; others see no difference.

        What is read already keeps its time. A `request` that was kept before changes nothing; RequestIdReusedError when
        it was another one. Other processes are told, as the topic of the reader's subject.
        """
        ...

    async def forget_notifications(self, limit: int) -> int:
        """Remove up to `limit` notifications that are older than KEPT_FOR, and return how many.

        Callable at any time by any number of replicas.
        """
        ...


def subject(name: str) -> Recipient:
    """Return the recipient that is a subject."""
    return Recipient(RecipientKind.SUBJECT, name)


def group(name: str) -> Recipient:
    """Return the recipient that is a group."""
    return Recipient(RecipientKind.GROUP, name)


def topic(org: str, recipient: Recipient) -> UUID:
    """Return the id by which processes tell each other that somebody was sent something."""
    content = "\0".join((org, recipient.kind, recipient.name)).encode()
    return UUID(bytes=hashlib.sha256(content).digest()[:16])
