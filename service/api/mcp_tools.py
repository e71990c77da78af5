"""The tools of MCP servers, domain to wire: bounded, since servers say what they like."""

from __future__ import annotations

from collections.abc import Sequence

from flowkeep.v1.handler_pb2 import McpServer, McpTool
from service.api.payloads import filled_struct
from service.engine import payload
from service.engine.failure import storable
from service.engine.mcp.listing import Offer
from service.engine.mcp.tools import LONGEST_DESCRIPTION, Tool
from service.engine.slices import Work
from service.engine.violations import ValidationError

MOST_BYTES = 2 << 20
"""Of all tools in one answer."""

LONGEST_NAME, LONGEST_ERROR = 256, 1_000

_BYTES_A_MICROSECOND = 8


def server_messages(offers: Sequence[Offer]) -> Work[list[McpServer]]:
    """Return offers as messages, with the tools for which there is room."""
    messages, left = [], MOST_BYTES
    for offer in offers:
        message = McpServer(name=offer.server, error=storable(offer.error, LONGEST_ERROR))
        for tool in offer.tools:
            if storable(tool.name, LONGEST_NAME) != tool.name:  # no step can name it
                continue
            shown = (yield from _tool_message(tool)) if left > 0 else None
            left -= shown.ByteSize() if shown is not None else 0
            if shown is None or left < 0:
                message.omitted_tools += 1
            else:
                message.tools.append(shown)
        messages.append(message)
    return messages


def _tool_message(tool: Tool) -> Work[McpTool]:
    yield payload.size(tool.input_schema) // _BYTES_A_MICROSECOND
    message = McpTool(
        name=tool.name, description=storable(tool.description, LONGEST_DESCRIPTION), schema_hash=tool.schema_hash
    )
    try:
        schema = yield from payload.normalising(tool.input_schema, "input_schema")
    except ValidationError:  # larger or deeper than payloads are
        return message
    yield from filled_struct(message.input_schema, schema)
    message.input_schema.SetInParent()
    return message
