"""Definitions as documents, and what is wrong with them."""

from __future__ import annotations

from typing import Any

from service.engine.handlers.registry import Registry
from service.engine.parsing import Defaults, parse
from service.engine.violations import ValidationError

CATALOG = Registry.with_builtins()
DEFAULTS = Defaults()


_OF_ATTEMPTS = {"timeout", "total_timeout", "retry_policy", "delivery"}


def step(step_id: str = "a", **fields: Any) -> dict[str, Any]:
    """Return a step that needs nothing, or one that has attempts if the fields are about these."""
    if not _OF_ATTEMPTS.isdisjoint(fields) or fields.get("on_error") == "RETRY":
        return {"id": step_id, "handler": "call_api", "params": {"url": "https://example.com"}, **fields}
    return {"id": step_id, "handler": "transform", "params": {"value": 1}, **fields}


def workflow(*steps: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "w", "steps": list(steps) or [step()], **fields}


def graph(*steps: Any, **fields: Any) -> dict[str, Any]:
    return workflow(*steps, ordering="GRAPH", **fields)


def wrong(document: Any, catalog: Registry | None = CATALOG) -> list[tuple[str, str]]:
    """Return the violations; none means that the document parses."""
    try:
        parse(document, catalog, DEFAULTS)
    except ValidationError as error:
        return [(v.field, v.description) for v in error.violations]
    return []


def places(document: Any) -> list[str]:
    return [field for field, _ in wrong(document)]


def the_violation(document: Any) -> tuple[str, str]:
    (found,) = wrong(document)
    return found
