"""What was sent to an execution, as its owner knows it."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from persistence.model import Mail, Message


class Inbox:
    """Lets each message of an execution through once, and counts the binding ones that its transitions have seen.

    `mail` is how many binding messages the execution had been sent when its row was read.
    """

    def __init__(self, mail: int) -> None:
        self.seen = mail
        """How many binding messages of all that were ever sent the transitions so far have seen."""
        self._came = mail  # how many of them have come here
        # Delivered once, a message may be delivered again until the transition that consumes it is committed.
        self._taken: set[UUID] = set()
        self.standing: set[UUID] = set()
        """Messages that were taken and that the store has still, as far as is known."""
        self.unread: dict[UUID, Message] = {}
        """Messages that were taken and have not been applied: until they are, nothing may be final, nor begin before
        the commit of its start.

        A transition that ends the execution, or changes a task, is refused while it has not seen all that binds. Were
        it made for the first of two messages, it would be refused again and again, by whoever read the two.
        """

    def open(self, unseen: Iterable[Message]) -> None:
        """Note which messages were unseen when the row was read: they are among those that it counts."""
        binding = sum(message.binds for message in unseen)
        self.seen -= binding
        self._came -= binding

    def lacks(self, mail: Mail) -> bool:
        """Whether messages that were sent before these have not come."""
        return mail.sent is not None and self._came < mail.sent - sum(message.binds for message in mail.messages)

    def take(self, messages: Iterable[Message]) -> list[Message]:
        """Return those that were not taken before."""
        fresh = [message for message in messages if message.id not in self._taken]
        self._taken.update(message.id for message in fresh)
        self.standing.update(message.id for message in fresh)
        self.unread.update((message.id, message) for message in fresh)
        self._came += sum(message.binds for message in fresh)
        return fresh

    def read(self, message: Message) -> None:
        """Note that a message is being applied."""
        self.unread.pop(message.id, None)

    def forget_unread(self) -> None:
        """Let messages come again that were taken and not applied."""
        self._taken -= self.unread.keys()
        self.standing -= self.unread.keys()
        self._came -= sum(message.binds for message in self.unread.values())
        self.unread.clear()

    def consume(self, messages: Iterable[Message]) -> None:
        """Note that a transition has seen messages."""
        self.seen += sum(message.binds for message in messages)

    def remove(self, ids: Iterable[UUID]) -> None:
        """Note that a transition which consumes these messages is committed."""
        self.standing.difference_update(ids)
