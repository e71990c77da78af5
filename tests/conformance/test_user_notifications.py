"""Notifications that steps send to people: once for each step, in order, and seen by those that they are for alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from persistence.errors import CursorAheadError, PersistenceError, RequestIdReusedError
from persistence.repository import Repository
from persistence.requests import Method, Request
from persistence.user_notifications import NewNotification, Reader, Severity, group, subject
from tests.conformance.builders import ORG
from tests.conformance.conftest import OpenRepository

EXECUTION = UUID("01930000-0000-7000-8000-000000000000")
ANN, BOB = Reader(ORG, "ann"), Reader(ORG, "bob")


def told(token: str, *recipients: str, **more: Any) -> NewNotification:
    """A notification to subjects, to ann by default."""
    new = NewNotification(
        org=ORG,
        token=token,
        recipients=tuple(subject(each) for each in recipients or ("ann",)),
        title=f"title {token}",
        text="text",
        link="/x",
        data={"n": 1, "deep": [None, True]},
        severity=Severity.WARNING,
        workflow_name="research",
        execution_id=EXECUTION,
        step_path="fan_out[3].tell",
    )
    return replace(new, **more)


async def titles(repository: Repository, reader: Reader, **how: Any) -> list[str]:
    return [each.title.removeprefix("title ") for each in await repository.list_notifications(reader, None, 10, **how)]


async def test_what_is_sent_is_what_is_read(repository: Repository) -> None:
    new = told("a", "ann", "bob")
    seq = await repository.send_notification(new)
    for reader in (ANN, BOB):
        (found,) = await repository.list_notifications(reader, None, 10)
        assert await repository.follow_notifications(reader, 0, 10) == [found]
        assert (found.seq, found.read_time) == (seq, None)
        for name in ("title", "text", "link", "data", "severity", "workflow_name", "execution_id", "step_path"):
            assert getattr(found, name) == getattr(new, name)
    assert await repository.last_notification(ORG) == seq


async def test_a_step_sends_one_however_often_it_is_tried(open_repository: OpenRepository) -> None:
    first, second = await open_repository(), await open_repository()
    sent = await asyncio.gather(*(each.send_notification(told("a")) for each in (first, second) * 4))
    assert len(set(sent)) == 1
    assert await second.send_notification(told("a", title="another")) == sent[0]
    assert await titles(first, ANN) == ["a"]
    assert await first.send_notification(told("a", org="globex")) > 0
    assert await titles(first, Reader("globex", "ann")) == ["a"]


async def test_nobody_sees_counts_or_marks_what_is_for_others(repository: Repository) -> None:
    seq = await repository.send_notification(told("a"))
    for reader in (BOB, Reader("globex", "ann"), Reader(ORG, "x", ("ann",))):
        assert await repository.list_notifications(reader, None, 10) == []
        assert await repository.count_unread(reader) == 0
        await repository.mark_read(reader, [seq], 0)
    assert await repository.follow_notifications(BOB, 0, 10) == []
    assert await repository.count_unread(ANN) == 1


async def test_pages_follow_each_other_in_both_directions(repository: Repository) -> None:
    seqs = [await repository.send_notification(told(str(n), "ann" if n % 2 else "bob")) for n in range(6)]
    assert seqs == sorted(seqs)
    newest = await repository.list_notifications(ANN, None, 2)
    older = await repository.list_notifications(ANN, newest[-1].seq, 2)
    assert [each.seq for each in (*newest, *older)] == [seqs[5], seqs[3], seqs[1]]
    first = await repository.follow_notifications(ANN, 0, 2)
    rest = await repository.follow_notifications(ANN, first[-1].seq, 2)
    assert [each.seq for each in (*first, *rest)] == [seqs[1], seqs[3], seqs[5]]


async def test_a_group_is_told_once_and_each_of_it_reads_for_itself(repository: Repository) -> None:
    seq = await repository.send_notification(told("a", recipients=(subject("ann"), group("ops"), group("dev"))))
    ann, bob = Reader(ORG, "ann", ("ops", "dev")), Reader(ORG, "bob", ("ops",))
    assert await titles(repository, ann) == await titles(repository, bob) == ["a"]
    await repository.mark_read(ann, [seq], 0)
    assert [await repository.count_unread(each) for each in (ann, bob)] == [0, 1]
    assert await titles(repository, ann, unread_only=True) == []
    assert await titles(repository, bob, unread_only=True) == ["a"]


async def test_what_is_read_stays_read_since_then(repository: Repository) -> None:
    seqs = [await repository.send_notification(told(str(n))) for n in range(4)]
    await repository.mark_read(ANN, [seqs[2], seqs[2] + 100], 0)
    assert await titles(repository, ANN, unread_only=True) == ["3", "1", "0"]
    (before,) = (each for each in await repository.list_notifications(ANN, None, 10) if each.read_time)
    await repository.mark_read(ANN, [], seqs[2])
    assert await titles(repository, ANN, unread_only=True) == ["3"]
    assert before in await repository.list_notifications(ANN, None, 10)
    assert await repository.count_unread(ANN) == 1


async def test_marking_with_a_request_id_is_done_once(repository: Repository) -> None:
    await repository.send_notification(told("a"))
    request = Request("r", Method.MARK_NOTIFICATIONS_READ, b"content".ljust(16))
    await repository.mark_read(ANN, [], 1, request)
    later = await repository.send_notification(told("b"))
    await repository.mark_read(ANN, [], later, request)
    assert await titles(repository, ANN, unread_only=True) == ["b"]
    with pytest.raises(RequestIdReusedError):
        await repository.mark_read(ANN, [], later, replace(request, content_hash=b"other".ljust(16)))


async def test_a_number_that_the_org_has_not_reached_cannot_be_followed(repository: Repository) -> None:
    seq = await repository.send_notification(told("a", "bob"))
    assert await repository.follow_notifications(ANN, seq, 10) == []
    with pytest.raises(CursorAheadError) as caught:
        await repository.follow_notifications(ANN, seq + 1, 10)
    assert (caught.value.after_seq, caught.value.last_seq) == (seq + 1, seq)
    assert await repository.last_notification("globex") == 0


async def test_of_each_recipient_the_newest_are_kept(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    for store in ("memory", "postgres"):
        monkeypatch.setattr(f"persistence.{store}.user_notifications.KEPT_EACH", 3)
    await repository.send_notification(told("first", "ann", "bob"))
    for number in range(3):
        await repository.send_notification(told(str(number)))
    assert await titles(repository, ANN) == ["2", "1", "0"]
    assert await repository.count_unread(ANN) == 3
    assert await titles(repository, BOB) == ["first"]


async def test_nothing_is_removed_before_its_time(repository: Repository) -> None:
    await repository.send_notification(told("a"))
    assert await repository.forget_notifications(10) == 0
    assert await titles(repository, ANN) == ["a"]


@pytest.mark.parametrize(
    "more",
    [{"title": "x" * 201}, {"text": "x" * 4_001}, {"text": "a\0b"}, {"data": {"x": float("nan")}}],
    ids=["title", "text", "NUL", "data"],
)
async def test_what_cannot_be_kept_is_refused_and_leaves_nothing(repository: Repository, more: dict[str, Any]) -> None:
    with pytest.raises(PersistenceError):
        await repository.send_notification(told("a", **more))
    assert await titles(repository, ANN) == []
    assert await repository.last_notification(ORG) == 0


async def test_what_is_not_read_is_told_by_number(repository: Repository) -> None:
    for token in ("a", "b", "c"):
        await repository.send_notification(told(token, "ann", "bob"))
    await repository.send_notification(told("d", "bob"))
    assert await repository.unread(ANN, 10) == [3, 2, 1]
    await repository.mark_read(ANN, [2], 0)
    assert await repository.unread(ANN, 10) == [3, 1]
    assert await repository.unread(ANN, 1) == [3]
    assert await repository.unread(BOB, 2) == [4, 3]
