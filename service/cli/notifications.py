"""Commands about notifications that workflows send to you: list, read, watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.arguments import RequestId
from service.cli.session import Session, command

if TYPE_CHECKING:
    from flowkeep.v1.notification_pb2 import Notification

_PANEL = "Notifications"


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(no_args_is_help=True, help="List, mark and watch what workflows tell you.")
    command(group, "list")(list_notifications)
    command(group, "read")(read)
    command(group, "watch")(watch)
    app.add_typer(group, name="notifications", rich_help_panel=_PANEL)


async def list_notifications(
    session: Session,
    unread: Annotated[bool, typer.Option("--unread", help="Only those that you have not read.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = 50,
) -> None:
    """List your notifications, newest first."""
    from service.cli.json_form import json_form
    from service.cli.notification_view import notifications_table
    from service.cli.rendering import show, show_json

    found: list[Notification] = []
    async for each in session.client.list_notifications(unread_only=unread, page_size=min(limit, 200)):
        found.append(each)
        if len(found) == limit:
            break
    if session.json:
        show_json({"notifications": [json_form(each) for each in found]})
    elif found:
        show(notifications_table(found))
    else:
        show("There are no unread notifications." if unread else "There are no notifications.")


async def read(
    session: Session,
    numbers: Annotated[
        list[int] | None, typer.Argument(min=1, help="Numbers of notifications.", show_default=False)
    ] = None,
    up_to: Annotated[int, typer.Option(min=0, help="All up to this number.", show_default=False)] = 0,
    request_id: RequestId = None,
) -> None:
    """Mark notifications as read, by their numbers or all up to one."""
    from service.cli.rendering import show, show_json

    if bool(numbers) == bool(up_to):
        raise typer.BadParameter("give the numbers of notifications, or --up-to for all up to one")
    left = await session.client.mark_notifications_read(numbers or (), up_to_seq=up_to, request_id=request_id)
    if session.json:
        show_json({"unread_count": left})
    else:
        show(f"{left} unread" if left else "All are read.")


async def watch(
    session: Session,
    after: Annotated[
        int | None,
        typer.Option(min=0, help="Those after this number, 0 for all that are kept; default: from now on."),
    ] = None,
) -> None:
    """Show your notifications as they come, until interrupted; with JSON, one a line."""
    from contextlib import aclosing

    from service.cli.json_form import json_form
    from service.cli.notification_view import notification_view
    from service.cli.rendering import show, show_json

    async with aclosing(session.client.watch_notifications(after)) as notifications:
        async for each in notifications:
            if session.json:
                show_json(json_form(each), line=True)
            else:
                show(notification_view(each))
