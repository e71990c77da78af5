"""One session with an MCP server, which the calls of one org share. It is imported at the first call, as it is slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, Protocol

import anyio
import msgspec
import structlog
from mcp import ClientSession, MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    LoggingMessageNotificationParams,
    PaginatedRequestParams,
)
from pydantic import ValidationError

from service.engine.egress.egress import Egress
from service.engine.egress.routes import Route
from service.engine.mcp import stdio, streamable
from service.engine.mcp.errors import BrokenError, McpError, RefusedError, TooLargeError, UnreadableError
from service.engine.mcp.screen import SMALL_VALUES, TOO_LARGE, TOO_LARGE_TEXT, exceeds
from service.engine.mcp.servers import HttpServer, Server, StdioServer
from service.engine.mcp.tools import MOST_TOOLS, Tool, described

log = structlog.get_logger(__name__)

OPEN_SECONDS = 30.0
"""In which a server must have started and said what it is."""
LIST_SECONDS = 30.0
"""In which a server must have listed its tools; one that has not is taken to hang."""
LISTED_FOR = 300.0
"""Seconds for which tools are taken for what they were when the server listed them."""
MOST_PAGES = 8
_CLOSED = "Connection closed"  # as the library says it
MOST_ABANDONED = 32
"""Calls that were cancelled; a server may go on with each of them, and a new session begins without."""

# What a server answered to the request that the present task makes.
_RAW: ContextVar[list[dict[str, Any]] | None] = ContextVar("answers of an MCP server", default=None)


class Listener(Protocol):
    """Hears what a tool says while it works."""

    async def progressed(self, progress: float, total: float | None, message: str | None) -> None:
        """Hear how far it is."""

    def said(self, text: str) -> None:
        """Hear a message."""


class _Dispatcher(JSONRPCDispatcher[Any]):
    """Keeps results about tools from the models of the library (LIBRARIES MC1)."""

    async def send_raw_request(self, method: str, params: Any, opts: Any = None, **more: Any) -> dict[str, Any]:
        """Return what stands for the result, which the task that asked finds in `_RAW`."""
        result: dict[str, Any] = await super().send_raw_request(method, params, opts, **more)
        kept = _RAW.get()
        if kept is None:
            if exceeds(result, SMALL_VALUES):
                raise MCPError(TOO_LARGE, TOO_LARGE_TEXT)
            return result
        kept.append(result)
        rest: dict[str, Any] = {name: result[name] for name in ("resultType", "ttlMs", "cacheScope") if name in result}
        if method != "tools/list":
            return {"content": [], **rest, "resultType": "complete"}
        tools = result["tools"] if isinstance(result.get("tools"), list) else []
        plain = [
            {"name": each["name"], "inputSchema": {**each["inputSchema"], "type": "object"}}
            for each in tools[:MOST_TOOLS]
            if isinstance(each, dict)
            and isinstance(each.get("name"), str)
            and isinstance(each.get("inputSchema"), dict)
        ]
        return {"tools": plain, **rest}


class Session:
    """A session, in a task of its own: `run`. It may be used once `opened`, until it `is_over`."""

    def __init__(
        self, name: str, server: Server, org: str, egress: Egress, route: Route, secrets: Mapping[str, str]
    ) -> None:
        self.users = 0
        self.idle_since = time.monotonic()
        self.is_over = False
        """Whether it can be used no more."""
        self.secrets = secrets
        """Those that the server has been given, by their names."""
        self._name = name
        self._server = server
        self._way = streamable.Way(egress, org, route)
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ending = asyncio.Event()
        self._client: ClientSession | None = None
        self._listeners: list[Listener] = []
        self._tools: dict[str, Tool] = {}
        self._listed_at: float | None = None
        self._listing = asyncio.Lock()
        self._abandoned = 0
        self._is_doubted = False
        """Whether a call had no answer, and none has come since."""

    @property
    def server(self) -> Server:
        """The server as it is spoken to."""
        return self._server

    @property
    def is_usable(self) -> bool:
        """Whether another call may begin in it."""
        return not (self.is_over or self._way.is_lost or self._ending.is_set() or self._abandoned > MOST_ABANDONED)

    def enter(self) -> None:
        """Count a call."""
        self.users += 1

    def leave(self) -> None:
        """Count a call no more. The last one out of a session that is not usable ends it."""
        self.users -= 1
        self.idle_since = time.monotonic()
        if not (self.users or self.is_usable):
            self.end()

    def end(self) -> None:
        """End the session; `run` returns when that is done."""
        self._ending.set()

    async def opened(self) -> None:
        """Return when the session can be used. Raises McpError."""
        await asyncio.shield(self._opened)

    async def run(self) -> None:
        """Have the session, until it is told to end or breaks."""
        limit, reason = asyncio.timeout(OPEN_SECONDS), "the session ended"
        try:
            async with limit, self._transport() as (incoming, outgoing), self._session(incoming, outgoing) as client:
                await _shake_hands(client)
                limit.reschedule(None)
                self._client = client
                self._opened.set_result(None)
                await self._ending.wait()
        except TimeoutError:
            reason = f"the server was not ready within {OPEN_SECONDS:g} s"
        except Exception as error:
            reason = self._broken(_cause(error))
            log.info("MCP session broke", server=self._name, reason=reason)
        finally:
            self.is_over = True
            if not self._opened.done():
                self._opened.set_exception(BrokenError(reason))
                self._opened.exception()  # whether somebody waits for it or not

    async def tool(self, name: str, *, is_fresh: bool = False) -> Tool | None:
        """Return a tool of the server; as it is now where it `is_fresh`. Raises McpError."""
        return (await self._listed(lambda: is_fresh or self._is_doubted or name not in self._tools)).get(name)

    async def tools(self) -> Mapping[str, Tool]:
        """Return all tools of the server, by name. Raises McpError."""
        return await self._listed(lambda: self._is_doubted)

    async def _listed(self, has_doubt: Callable[[], bool]) -> Mapping[str, Tool]:
        """Return the tools as they are kept, or now where there is a doubt."""
        now = time.monotonic()
        async with self._listing:  # one asks, and the others have the answer
            at = self._listed_at
            if at is None or now - at > LISTED_FOR or (has_doubt() and at < now):
                self._tools = await self._list_in_time()
                self._listed_at, self._is_doubted = time.monotonic(), False
        return self._tools

    @property
    def tool_names(self) -> list[str]:
        """The names of the tools that were listed last, sorted."""
        return sorted(self._tools)

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: Mapping[str, Any], listener: Listener
    ) -> dict[str, Any]:
        """Return what the server answers, as it came. Raises McpError. Cancelled, it tells the server."""
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments, _meta=dict(meta)))
        self._listeners.append(listener)
        try:
            return await self._ask(request, CallToolResult, listener.progressed)
        except asyncio.CancelledError:
            self._abandoned += 1
            self._is_doubted = True
            raise
        finally:
            self._listeners.remove(listener)

    async def _list_in_time(self) -> dict[str, Tool]:
        limit = asyncio.timeout(LIST_SECONDS)
        try:
            async with limit:
                return await self._list()
        except TimeoutError:
            if not limit.expired():
                raise
            self.end_when_left()
            raise BrokenError(f"the server did not list its tools within {LIST_SECONDS:g} s") from None

    async def _list(self) -> dict[str, Tool]:
        assert self._client is not None  # noqa: S101 - it is open
        tools: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            kept: list[dict[str, Any]] = []
            token = _RAW.set(kept)
            try:
                await self._client.list_tools(params=PaginatedRequestParams(cursor=cursor))
            except Exception as error:
                raise self._translated(error) from error
            finally:
                _RAW.reset(token)
            tools = {**described(kept[0].get("tools")), **tools}
            cursor = kept[0].get("nextCursor")
            if not isinstance(cursor, str) or len(tools) >= MOST_TOOLS:
                break
        return tools

    async def _ask(self, request: Any, kind: Any, progressed: Any) -> dict[str, Any]:
        assert self._client is not None  # noqa: S101 - it is open
        kept: list[dict[str, Any]] = []
        token = _RAW.set(kept)
        try:
            await self._client.send_request(request, kind, progress_callback=progressed)
        except Exception as error:
            raise self._translated(error) from error
        finally:
            _RAW.reset(token)
        return kept[0]

    def _translated(self, error: Exception) -> McpError:
        match error:
            case MCPError() if error.code == TOO_LARGE:
                return TooLargeError(TOO_LARGE_TEXT)
            case MCPError() if error.code == CONNECTION_CLOSED or self._way.is_lost or self.is_over:
                self.end_when_left()
                return BrokenError(self._broken(error.message))
            case MCPError():
                return RefusedError(error.code, self._server.hide(error.message)[:1000])
            case ValidationError() | RuntimeError() | ValueError():
                return UnreadableError("the answer is none that the protocol knows")
            case _:
                self.end_when_left()
                return BrokenError(type(error).__name__)

    def _broken(self, text: str) -> str:
        """Return what is told of a session that broke. What the program said last is the operator's, in the log."""
        if isinstance(self._server, StdioServer) and text == _CLOSED:
            return "the program of the server ended, or could not be started"
        return self._server.hide(text)[:1000]

    def end_when_left(self) -> None:
        """Let no other call begin, and end when those that are under way have ended."""
        self._abandoned = MOST_ABANDONED + 1

    def _transport(self) -> AbstractAsyncContextManager[tuple[Any, Any]]:
        if isinstance(self._server, HttpServer):
            return streamable.connected(self._server, self._way)
        return stdio.connected(self._server, self._name, self.end)

    def _session(self, incoming: Any, outgoing: Any) -> ClientSession:
        return ClientSession(
            dispatcher=_Dispatcher(incoming, outgoing),
            logging_callback=self._logged,
            message_handler=self._came,
            client_info=Implementation(name="flowkeep", version="1"),
            log_level="info",
        )

    async def _logged(self, params: LoggingMessageNotificationParams) -> None:
        # A message does not say which call it is about. Those of others are not to be shown to anybody.
        if len(self._listeners) == 1:
            text = params.data if isinstance(params.data, str) else msgspec.json.encode(params.data).decode()
            self._listeners[0].said(self._server.hide(text))

    async def _came(self, message: Any) -> None:
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            self._listed_at = None
        await anyio.lowlevel.checkpoint()


async def _shake_hands(client: ClientSession) -> None:
    """Agree on a version: the way of before 2026, which nearly all servers know, else the way of since then."""
    try:
        await client.initialize()
    except MCPError as error:
        if error.code in (CONNECTION_CLOSED, TOO_LARGE):
            raise
        await client.discover()


def _cause(error: BaseException) -> str:
    """Return why a session broke."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case MCPError():
            return str(error.message)[:1000]
        case OSError():
            return error.strerror or type(error).__name__
        case _:
            return f"the session broke ({type(error).__name__})"
