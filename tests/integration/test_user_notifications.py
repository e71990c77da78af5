"""In-app notifications: what a step sends, those whom it is for list, mark as read and watch, by any server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

import flowkeep
from flowkeep.payload import from_struct
from flowkeep.v1 import notification_service_pb2 as pb
from flowkeep.v1.notification_pb2 import Notification
from flowkeep.v1.notification_service_pb2_grpc import NotificationServiceStub
from persistence.errors import UnavailableError
from tests.integration.conftest import Serve
from tests.integration.credentials import AUDIENCE, ISSUER, PUBLIC_PEM, token
from tests.integration.stage import Store, ended, eventually, made, refusal, step
from tests.patience import PATIENCE

ME = "developer"
"""The subject of callers without tokens."""


def tell(**more: Any) -> dict[str, Any]:
    """A step that tells the developer, or others."""
    return step("tell", "send_notification", in_app={"to": ME, "title": "Order ${ input.order } is late", **more})


async def test_what_a_step_sends_is_listed_until_and_after_it_is_read(serve: Serve) -> None:
    served = await serve()
    client = served.client
    name = await made(
        client,
        tell(text="by a day", link="/orders/${ input.order }", data={"order": "${ input.order }"}, severity="error"),
    )
    started = await client.execute(name, {"order": 7})
    output = (await ended(client, started.execution_id)).steps[0].output
    (found,) = [each async for each in client.list_notifications()]
    assert from_struct(output.struct_value) == {"channel": "in_app", "seq": found.seq}
    assert (found.title, found.text, found.link) == ("Order 7 is late", "by a day", "/orders/7")
    assert from_struct(found.data) == {"order": 7}
    assert found.severity == Notification.SEVERITY_ERROR
    assert (found.workflow_name, found.execution_id, found.step_path) == (name, started.execution_id, "tell")
    assert await client.count_unread_notifications() == 1
    assert await client.mark_notifications_read([found.seq]) == 0
    assert [each async for each in client.list_notifications(unread_only=True)] == []
    (read,) = [each async for each in client.list_notifications()]
    assert read.HasField("read_time") and not found.HasField("read_time")


async def test_a_step_that_is_tried_again_tells_once(serve: Serve) -> None:
    """The first answer of the database is lost after the commit."""
    lost = 0

    def wrapped(real: Any) -> Any:
        async def send(new: Any) -> int:
            nonlocal lost
            seq = int(await real.send_notification(new))
            if not lost:
                lost = seq
                raise UnavailableError("lost")
            return seq

        return Store(real, send_notification=send)

    served = await serve(wrap=wrapped)
    name = await made(served.client, tell() | {"retry_policy": {"max_attempts": 3, "initial_interval": 0.01}})
    started = await served.client.execute(name, {"order": 7})
    tried = (await ended(served.client, started.execution_id)).steps[0]
    assert [each.failure.code for each in tried.failed_attempts] == ["NOTIFICATION_NOT_KEPT"]
    assert from_struct(tried.output.struct_value)["seq"] == lost
    assert [each.seq async for each in served.client.list_notifications()] == [lost]


async def test_a_watch_has_all_in_order_through_servers_that_end(serve: Serve) -> None:
    """Some are sent before it begins, some while it runs by another server, and some after its own is gone."""
    sender, watched = await serve(), await serve()
    name = await made(sender.client, tell())
    seen: list[str] = []

    async def send(order: int) -> None:
        await ended(sender.client, (await sender.client.execute(name, {"order": order})).execution_id)

    async def watch(client: flowkeep.Client, after: int, count: int) -> int:
        async with asyncio.timeout(PATIENCE), aclosing(client.watch_notifications(after)) as notifications:
            async for each in notifications:
                seen.append(each.title)
                if len(seen) >= count:
                    return each.seq
        raise AssertionError("a watch has no end")

    await send(0)
    cursor = await watch(watched.client, 0, 1)
    watching = asyncio.create_task(watch(watched.client, cursor, 3))
    await send(1)
    await send(2)
    cursor = await watching
    await watched.stop()
    await send(3)
    await watch(sender.client, cursor, 4)
    assert seen == [f"Order {n} is late" for n in range(4)]


async def test_another_server_hears_of_it_without_looking(serve: Serve) -> None:
    """Its watch would look at the table in ten minutes only."""
    sender, watched = await serve(), await serve(watch_poll=600.0, watch_bookmark=600.0)
    name = await made(sender.client, tell())
    stub: Any = NotificationServiceStub(watched.channel)
    stream = stub.WatchNotifications(pb.WatchNotificationsRequest())
    begun = await asyncio.wait_for(stream.read(), PATIENCE)
    assert not begun.notifications
    await sender.client.execute(name, {"order": 7}, wait=True)
    told = await asyncio.wait_for(stream.read(), PATIENCE)
    assert [each.title for each in told.notifications] == ["Order 7 is late"]
    assert told.seq == told.notifications[-1].seq > begun.seq
    stream.cancel()


async def test_a_watch_tells_what_is_read_elsewhere(serve: Serve) -> None:
    """By another server, in whose place it would look at the table in ten minutes only."""
    other, watched = await serve(), await serve(watch_poll=600.0, watch_bookmark=600.0)
    name = await made(other.client, tell())
    for order in (1, 2):
        await other.client.execute(name, {"order": order}, wait=True)
    second, first = [each.seq async for each in other.client.list_notifications()]
    stub: Any = NotificationServiceStub(watched.channel)
    streams = [stub.WatchNotifications(pb.WatchNotificationsRequest(after_seq=after)) for after in (0, second)]
    begun = [await asyncio.wait_for(stream.read(), PATIENCE) for stream in streams]
    assert [[each.seq for each in found.notifications] for found in begun] == [[first, second], []]
    assert not any(found.read_seqs for found in begun)
    for numbers in ([first], [first, second]):
        await other.client.mark_notifications_read(numbers)
        for stream in streams:
            told = await asyncio.wait_for(stream.read(), PATIENCE)
            assert (list(told.read_seqs), list(told.notifications), told.seq) == ([numbers[-1]], [], second)
    for stream in streams:
        stream.cancel()


async def test_the_largest_come_in_messages_that_can_be_sent(serve: Serve) -> None:
    """8 KiB of numbers as JSON are 45 KB as a message."""
    served = await serve()
    name = await made(served.client, tell(data={"n": "${ input.n }"}))
    large = {"order": 1, "n": [0] * 4_000}
    ids = [(await served.client.execute(name, large, wait=True)).execution_id for _ in range(100)]
    async with asyncio.timeout(PATIENCE), aclosing(served.client.watch_notifications(0)) as notifications:
        seen = [(await anext(notifications)).execution_id for _ in ids]
    assert seen == ids


async def test_each_subject_has_its_own(serve: Serve, tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    served = await serve(jwt_key_file=key_file, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    async with served.client_with(token(sub="ann")) as ann, served.client_with(token(sub="bob")) as bob:
        name = await made(ann, tell(to=["bob", "carol"]))
        await ann.execute(name, {"order": 7}, wait=True)
        (found,) = [each async for each in bob.list_notifications()]
        assert [each async for each in ann.list_notifications()] == []
        assert await ann.mark_notifications_read(up_to_seq=found.seq) == 0
        assert await bob.count_unread_notifications() == 1
        async with served.client_with(token(org="globex", sub="bob")) as stranger:
            assert [each async for each in stranger.list_notifications()] == []
            with pytest.raises(flowkeep.OutOfRangeError):
                await anext(stranger.watch_notifications(found.seq))
        async with served.client_with(token(sub="bob", permissions=["executions.read"])) as refused:
            with pytest.raises(flowkeep.PermissionDeniedError):
                await refused.count_unread_notifications()


async def test_the_members_of_a_group_have_what_it_is_told_and_each_reads_it_alone(
    serve: Serve, tmp_path: Path
) -> None:
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    served = await serve(jwt_key_file=key_file, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    members = [token(sub=each, groups=["clerks", "night"]) for each in ("ann", "bob")]
    async with served.client_with(members[0]) as ann, served.client_with(members[1]) as bob:
        step_of_group = step("tell", "send_notification", in_app={"groups": "clerks", "title": "Late"})
        await ann.execute(await made(ann, step_of_group), wait=True)
        assert await ann.mark_notifications_read(up_to_seq=1) == 0
        assert [each.title async for each in bob.list_notifications(unread_only=True)] == ["Late"]
        async with served.client_with(token(sub="clerks", groups=["day"])) as stranger:
            assert [each async for each in stranger.list_notifications()] == []


async def test_pages_and_their_tokens_are_of_one_reader(serve: Serve) -> None:
    served = await serve()
    name = await made(served.client, tell())
    for order in range(3):
        await served.client.execute(name, {"order": order}, wait=True)
    pages = [each.title async for each in served.client.list_notifications(page_size=1)]
    assert pages == [f"Order {n} is late" for n in (2, 1, 0)]
    stub: Any = NotificationServiceStub(served.channel)
    page = await stub.ListNotifications(pb.ListNotificationsRequest(page_size=1, count_unread=True))
    assert page.unread_count == 3
    other = pb.ListNotificationsRequest(page_token=page.next_page_token, unread_only=True)
    refused = await refusal(stub.ListNotifications(other))
    assert (refused.code, refused.violations[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")
    for request in (pb.MarkNotificationsReadRequest(), pb.MarkNotificationsReadRequest(seqs=[1], up_to_seq=1)):
        assert (await refusal(stub.MarkNotificationsRead(request))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_old_is_removed(serve: Serve, database_dsn: str) -> None:
    served = await serve()
    name = await made(served.client, tell())
    await served.client.execute(name, {"order": 7}, wait=True)
    (found,) = [each async for each in served.client.list_notifications()]
    await served.client.mark_notifications_read([found.seq])
    connection = await asyncpg.connect(database_dsn)
    try:
        await connection.execute("UPDATE notifications SET create_time = create_time - interval '31 days'")
        await serve()  # which looks at its start

        async def is_gone() -> bool:
            return [each async for each in served.client.list_notifications()] == []

        await eventually(is_gone)
        for table in ("notifications", "notification_recipients", "notification_reads"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608 - our own names
    finally:
        await connection.close()
