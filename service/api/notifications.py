"""Notifications, domain to wire."""

from __future__ import annotations

from flowkeep.v1.notification_pb2 import Notification
from persistence.user_notifications import UserNotification
from service.api.payloads import filled_struct
from service.api.times import put_time
from service.engine.slices import Work


def notification_message(notification: UserNotification) -> Work[Notification]:
    """Return the message of a notification; its data take milliseconds."""
    message = Notification(
        seq=notification.seq,
        severity=Notification.Severity.Value(f"SEVERITY_{notification.severity}"),
        title=notification.title,
        text=notification.text,
        link=notification.link,
        workflow_name=notification.workflow_name,
        execution_id=str(notification.execution_id),
        step_path=notification.step_path,
    )
    if notification.data is not None:
        message.data.SetInParent()
        yield from filled_struct(message.data, notification.data)
    put_time(message.create_time, notification.create_time)
    if notification.read_time is not None:
        put_time(message.read_time, notification.read_time)
    return message
