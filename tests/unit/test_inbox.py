"""What a run makes of its messages: each happens once, and what binds is counted when it was seen."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from persistence.model import Mail, Message, MessageKind
from service.engine.running.inbox import Inbox


def message(number: int, kind: str = MessageKind.CANCEL) -> Message:
    return Message(UUID(int=number), kind, datetime(2026, 1, 1, tzinfo=UTC), "ann", {})


def test_a_message_comes_once_however_often_it_is_delivered():
    inbox, first, second = Inbox(0), message(1), message(2)
    assert inbox.take([first]) == [first]
    assert inbox.take([first, second]) == [second]
    assert inbox.take([second, first]) == []


def test_a_message_stands_until_what_consumes_it_is_committed():
    inbox, first, second = Inbox(0), message(1), message(2)
    inbox.consume(inbox.take([first, second]))
    assert inbox.standing == {first.id, second.id}
    inbox.remove([first.id])
    assert inbox.standing == {second.id}


def test_what_binds_counts_as_seen_when_a_transition_consumes_it():
    inbox, binding, other = Inbox(3), message(1), message(2, MessageKind.CHILD_ENDED)
    inbox.open([binding, other])
    assert inbox.seen == 2
    inbox.take([binding, other])
    assert inbox.seen == 2
    inbox.consume([binding, other])
    assert inbox.seen == 3


def test_a_message_that_came_later_adds_to_those_that_the_row_counted():
    inbox, late = Inbox(1), message(1)
    inbox.consume(inbox.take([late]))
    assert inbox.seen == 2


def test_what_was_sent_before_and_has_not_come_is_lacking():
    """A resume that was handed in at once came before its pause, which a look was to bring, and held for ever."""
    inbox, first, second = Inbox(1), message(1), message(2)
    later = Mail(UUID(int=9), 1, (second,), 3)
    inbox.open([])
    assert inbox.lacks(later)
    inbox.take([first])
    assert not inbox.lacks(later)
    inbox.forget_unread()
    assert inbox.lacks(later)
    opened = Inbox(3)
    opened.open([first, second])
    assert opened.lacks(later)
    opened.take([first])
    assert not opened.lacks(later)


def test_all_that_is_unseen_lacks_nothing():
    assert not Inbox(1).lacks(Mail(UUID(int=9), 1, (message(1),)))
