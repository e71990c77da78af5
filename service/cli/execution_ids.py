"""Ids of executions as people type them: whole, or the beginning of one."""

from __future__ import annotations

import re

import grpc

from flowkeep.client import Client
from flowkeep.errors import InvalidArgumentError, NotFoundError, Violation
from service.cli.rendering import time_text
from service.cli.tables import state_name

_DIGITS = 32
_LEAST_DIGITS = 8
_SHOWN = 10


async def whole_id(client: Client, text: str) -> str:
    """Return the id of the one execution, among those that the caller may see, whose id begins with a text.

    A whole id is returned as it is, without asking whether it exists. Raises InvalidArgumentError for a text that is
    too short, is no beginning of an id, or is that of several ids, which it names; NotFoundError.
    """
    text = text.strip()
    digits = text.lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{{_LEAST_DIGITS},{_DIGITS}}}", digits):
        wanted = f"must be an id, or its first {_LEAST_DIGITS} or more hexadecimal digits, not {text!r}"
        raise _invalid(f"execution_id: {wanted}", [Violation("execution_id", wanted)])
    if len(digits) == _DIGITS:
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    page = await client.list_page(page_size=_SHOWN, execution_id_prefix=digits)
    if not page.executions:
        message = f"no id of an execution begins with {text}"
        raise NotFoundError(grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND", message, metadata={"execution_id": text})
    if len(page.executions) == 1:
        return page.executions[0].execution_id
    found = [
        Violation(each.execution_id, f"{each.workflow_name}, {state_name(each)}, created {time_text(each.create_time)}")
        for each in page.executions
    ]
    number = f"more than {_SHOWN}" if page.next_page_token else str(len(found))
    raise _invalid(f"{text} is the beginning of {number} ids", found)


def _invalid(message: str, violations: list[Violation]) -> InvalidArgumentError:
    return InvalidArgumentError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", message, violations)
