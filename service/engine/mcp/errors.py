"""What goes wrong between us and an MCP server.

McpError
    NotInstalledError       the library is missing
    BrokenError             no connection, or it broke off; another call opens a new one
    TooLargeError           a message of the server is larger than what is read
    RefusedError            the server answered with an error of JSON-RPC
    UnreadableError         the server answered with what is no answer
"""

from __future__ import annotations


class McpError(Exception):
    """The text says what happened, without secrets."""


class NotInstalledError(McpError):
    """The library of MCP is not installed."""

    def __init__(self) -> None:
        super().__init__("the library of MCP is not installed; install it with pip install 'flowkeep[mcp]'")


class BrokenError(McpError):
    """The server was not reached, or the session with it broke off."""


class TooLargeError(McpError):
    """A message has too many bytes or values."""


class RefusedError(McpError):
    """The server refused a request. `number` is the code of JSON-RPC."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class UnreadableError(McpError):
    """What the server gave is not what the protocol asks for."""
