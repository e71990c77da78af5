"""The handlers that the planner runs itself: every process has them, and what is kept is compiled by them."""

from __future__ import annotations

from collections.abc import Mapping

from service.engine.handlers.condition import condition
from service.engine.handlers.create_task import create_task
from service.engine.handlers.model import Handler
from service.engine.handlers.transform import transform
from service.engine.handlers.wait import wait
from service.engine.handlers.wait_signal import wait_signal

ENGINE_HANDLERS: Mapping[str, Handler] = {
    handler.name: handler for handler in (wait(), condition(), transform(), create_task(), wait_signal())
}
