"""What the answer of a tool becomes: the output of a step, or the text of an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.engine import payload
from service.engine.mcp.errors import TooLargeError, UnreadableError

MOST_TEXT = 2_000
"""Characters of an error that are told."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool gave: `content` as the protocol has it, and `structured`; or, where it `is_error`, why not."""

    content: list[dict[str, Any]]
    structured: Any
    is_error: bool

    @property
    def output(self) -> dict[str, Any]:
        """The output of the step. Raises TooLargeError."""
        output = {"content": self.content, "structured": self.structured}
        size = payload.size(output)
        if size > payload.MAX_PAYLOAD_BYTES or payload.has_too_many_values(output):
            raise TooLargeError(
                f"the answer has {size:,} bytes as JSON, of which {payload.MAX_PAYLOAD_BYTES:,} are allowed, or over "
                f"{payload.MAX_NODES:,} values"
            )
        return output

    @property
    def text(self) -> str:
        """The texts of the content, cut."""
        found = (block["text"] for block in self.content if block["type"] == "text")
        return "\n".join(each for each in found if isinstance(each, str))[:MOST_TEXT]


def read(raw: Mapping[str, Any]) -> Answer:
    """Return what a server answered to a call. Raises UnreadableError."""
    if raw.get("resultType", "complete") != "complete":
        raise UnreadableError("the tool asks a person for more, which no workflow can give")
    content = raw.get("content", [])
    is_sound = isinstance(content, list) and all(
        isinstance(block, dict) and isinstance(block.get("type"), str) for block in content
    )
    if not is_sound:
        raise UnreadableError("the answer has a content that is no list of objects with a type")
    return Answer(content, raw.get("structuredContent"), raw.get("isError") is True)
