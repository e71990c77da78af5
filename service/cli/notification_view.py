"""Notifications as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.text import Text

from flowkeep.definition import short_name
from flowkeep.v1.notification_pb2 import Notification
from service.cli.columns import FittingTable, Prose
from service.cli.rendering import clean, one_line, plain, time_text

_STYLES = {"WARNING": "yellow", "ERROR": "red"}


def notifications_table(notifications: Iterable[Notification]) -> FittingTable:
    """Return notifications as rows; those that are unread are bold."""
    table = FittingTable(
        "NUMBER", "SENT", "SEVERITY", "TITLE", "WORKFLOW", "READ",
        leave_out=("READ", "WORKFLOW", "SENT", "SEVERITY"),
        wraps="TITLE",
    )  # fmt: skip
    for each in notifications:
        table.add_row(
            str(each.seq),
            time_text(each.create_time),
            _severity(each),
            plain(each.title, "" if each.HasField("read_time") else "bold"),
            plain(each.workflow_name),
            time_text(each.read_time),
        )
    return table


def notification_view(notification: Notification) -> Group:
    """Return a notification with its text and link."""
    head = plain(f"{notification.seq}  {time_text(notification.create_time)}  ", "dim")
    head.append_text(_severity(notification)).append("  ").append(one_line(clean(notification.title)), "bold")
    parts = [Prose(head)]
    if notification.text:
        parts.append(Prose(plain(notification.text)))
    if notification.link:
        parts.append(Prose(plain(notification.link, "underline")))
    return Group(*parts)


def _severity(notification: Notification) -> Text:
    name = short_name(Notification.Severity.DESCRIPTOR, notification.severity)
    return plain(name.lower(), _STYLES.get(name, ""))
