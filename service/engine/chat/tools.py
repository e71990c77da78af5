"""The tools of a step that asks a model: those that steps run, as its params name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def of_step(step: Mapping[str, Any]) -> Sequence[tuple[int, Mapping[str, Any]]]:
    """Return the tools of a step as written that have a handler, each with its place; none if it asks no model."""
    params = step.get("params")
    tools = params.get("tools") if isinstance(params, Mapping) and step.get("handler") == "ask_model" else None
    given = enumerate(tools) if isinstance(tools, list) else ()
    return [(index, tool) for index, tool in given if isinstance(tool, Mapping) and "handler" in tool]
