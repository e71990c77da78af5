"""The handler `create_task`: asks people, and lets the step wait for what they say."""

from __future__ import annotations

from service.engine.definition import Ask
from service.engine.handlers.model import Effect, Handler
from service.engine.people import asking


def create_task() -> Handler:
    """Return the handler."""
    return Handler(
        name=Ask.handler,
        description=(
            "Makes a task for people, such as an approval or something to fill in, and waits until one of them has"
            " completed it. Gives {task_id, outcome, values, completed_by, comment, overdue}; with wait: false"
            " {task_id}, at once.\n"
            "Fails with TASK_OVERDUE when nobody does it in time and nothing else is to happen then. People see their"
            " tasks by TaskService, or by `flowkeep tasks`."
        ),
        params_schema=asking.PARAMS,
        effect=Effect.NONE,
        check=asking.check,
        compile=lambda params: Ask(params.template),
    )
