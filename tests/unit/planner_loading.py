"""What is read of an execution that is driven on."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from persistence.model import UNREAD, ExecutionDetail
from service.engine.definition import Definition
from service.engine.planning.reading import still_wanted


def loaded(definition: Definition, stored: ExecutionDetail) -> ExecutionDetail:
    """Return what a store gives to whoever drives an execution on: of payloads no more than is asked for."""
    wanted = still_wanted(definition, stored)
    steps = []
    for row in stored.steps:
        unread: dict[str, Any] = {} if row.key in wanted.inputs else {"input": UNREAD}
        if row.key not in wanted.outputs:
            unread |= {"output": UNREAD, "failed_attempts": ()}
        if row.key not in wanted.assigned:
            unread |= {"assigned": UNREAD}
        steps.append(replace(row, **unread))
    return replace(stored, steps=steps)
