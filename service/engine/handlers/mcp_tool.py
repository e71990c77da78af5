"""The handler `mcp_tool`: one call of a tool that an MCP server of the deployment offers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from service.engine.durations import TEN_YEARS
from service.engine.egress.routes import RouteError
from service.engine.failure import (
    INVALID_PARAMS,
    NOT_CONFIGURED,
    SECRET_NOT_FOUND,
    SECRETS_UNAVAILABLE,
    SERVER_ERROR,
)
from service.engine.handlers.credentials import of_fields
from service.engine.handlers.http_answer import CONNECTION_FAILED, INVALID_RESPONSE, RESPONSE_TOO_LARGE
from service.engine.handlers.model import Effect, Handler, HandlerError, StepContext
from service.engine.mcp import errors
from service.engine.mcp.result import Answer, read
from service.engine.mcp.servers import Server
from service.engine.mcp.sessions import Sessions
from service.engine.mcp.tools import Tool
from service.engine.pauses import seconds
from service.engine.schema import Problem, locate
from service.engine.schema_places import Path
from service.engine.secrets import SecretNotFoundError, SecretsUnavailableError

if TYPE_CHECKING:
    from service.engine.mcp.session import Session

SERVER_NOT_FOUND = "SERVER_NOT_FOUND"
TOOL_NOT_FOUND = "TOOL_NOT_FOUND"
TOOL_CHANGED = "TOOL_CHANGED"
TOOL_ERROR = "TOOL_ERROR"
NOT_INSTALLED = "NOT_INSTALLED"

DESCRIPTION = """\
Calls a tool of an MCP server. Gives {content, structured}: `content` is the list of what the tool answers, each as the
protocol has it: {type: text, text}, {type: image or audio, data (base64), mimeType}, {type: resource_link, uri, name}
and {type: resource, resource}; `structured` is its structuredContent, null if it gives none.

Servers are the deployment's: its setting FLOWKEEP_MCP_SERVERS gives each a name. The calls of an org share one session
with a server, apart from those of other orgs. It is opened at the first call, within 30 s, and closed after 5 min
without one; after it broke, or the server did not list its tools within 30 s, the next call opens it anew. 64 calls are
under way at a time, 48 of one org; more wait.

`arguments` are checked against the input schema that the server lists for the tool: at most 5 min old, or asked for
anew where `schema_hash` is given. A schema that is none, or too costly to check, is left to the server. Progress with a
total is shown as that of the step; other progress, and log messages while no other call is under way in the session,
are shown to watchers and not kept. The server gets `flowkeep/idempotency_token` and `flowkeep/attempt` in the `_meta`
of the call. A cancelled call, or one whose time is over, is cancelled at the server (notifications/cancelled), and the
session goes on. Messages up to 512 KiB and 16,000 values are read; what a tool gives is not checked against its output
schema.

Fails with these codes; details hold `server` and `tool`:
TOOL_ERROR: the tool says that it failed; the message is its text. Retried, since nobody can tell whether it helps: name
it in `non_retryable_codes` where another call would do harm.
TOOL_CHANGED: the input schema is not the one of `schema_hash`; details hold the present `schema_hash`. Not retried.
TOOL_NOT_FOUND: the server has no such tool; the message names those that it has. Not retried.
SERVER_NOT_FOUND: the deployment has no server of this name; the message names those that it has. Not retried.
SERVER_ERROR: the server answered with an error of JSON-RPC; details hold its `number`. Retried unless it says that the
request is wrong (-32700, -32602, -32601, -32600).
CONNECTION_FAILED: the server cannot be started or reached, it ended or broke off, or it was not done within `timeout`.
Retried.
INVALID_RESPONSE: what came is no answer of MCP, or asks a person for more. Not retried.
RESPONSE_TOO_LARGE: an answer over 256 KiB as JSON, or of over 10,240 values. Not retried.
NOT_CONFIGURED: the certificates or the proxy of the server are not for this org. Not retried.
INVALID_PARAMS: params that are wrong once their templates are filled in, such as `arguments`. Not retried.
NOT_INSTALLED: the server of Flowkeep lacks the library of MCP: pip install 'flowkeep[mcp]'. Not retried."""

_MISSING = """\
Not installed on this server: each call fails as NOT_INSTALLED until it has the library of MCP, by
pip install 'flowkeep[mcp]'.

"""

PARAMS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "server": {
            "description": "The name of a server in FLOWKEEP_MCP_SERVERS.",
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
        },
        "tool": {
            "description": "The name of a tool of the server.",
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
        },
        "arguments": {"description": "What the tool is given, as its input schema says. Default {}.", "type": "object"},
        "timeout": {
            "description": 'For the whole call: seconds, or text such as "2s". The step\'s timeout holds in any case.',
            "type": ["number", "string"],
            "exclusiveMinimum": 0,
            "maximum": TEN_YEARS,
        },
        "schema_hash": {
            "description": (
                "What the input schema of the tool must be: the SHA-256, in hexadecimal, of its JSON with sorted keys "
                "and without spaces. If it is another, the step fails as TOOL_CHANGED, which tells the present one."
            ),
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
        },
    },
    "required": ["server", "tool"],
    "additionalProperties": False,
}

_WRONG_REQUEST = frozenset({-32700, -32602, -32601, -32600})
_NAMES_TOLD = 50
_MOST_SAID = 4_096


def mcp_tool(sessions: Sessions | None = None) -> Handler:
    """Return the handler, which calls in these sessions; by default there is no server."""
    caller = _Caller(sessions or Sessions({}))
    return Handler(
        name="mcp_tool",
        description=DESCRIPTION if find_spec("mcp") else _MISSING + DESCRIPTION,
        params_schema=PARAMS,
        effect=Effect.EXTERNAL,
        run=caller.run,
        check=check,
        credentials=credentials,
        close=caller.close,
    )


def check(params: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the schema cannot say."""
    if isinstance(timeout := params.get("timeout"), str):
        try:
            if not seconds(timeout):
                yield Problem(("timeout",), "must be more than 0 s")
        except ValueError as error:
            yield Problem(("timeout",), str(error))


def credentials(params: Mapping[str, Any]) -> Iterator[Path]:
    """Return which arguments are credentials, by their names: their schema is the server's."""
    yield from of_fields(params.get("arguments"), ("arguments",))


class _Listener:
    """Shows what a tool says while it works."""

    def __init__(self, context: StepContext, server: Server) -> None:
        self._context = context
        self._server = server

    async def progressed(self, progress: float, total: float | None, message: str | None) -> None:
        text = self._server.hide((message or "")[:_MOST_SAID])
        if total is not None and total > 0 and math.isfinite(share := progress / total):
            self._context.report(100 * share, text)
        elif text:
            self.said(text)

    def said(self, text: str) -> None:
        self._context.emit(f"{text[:_MOST_SAID]}\n")


class _Caller:
    """Makes calls, each in the session of its org with the server."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def run(self, params: Mapping[str, Any], context: StepContext) -> Any:
        call = _named(params, context, self._sessions)
        async with call.bounded(), call.told():
            answer, session = await self._answer(call)
            if answer.is_error:
                text = session.server.hide(answer.text) or "the tool failed and does not say why"
                raise call.error(TOOL_ERROR, text)
            return await self._sessions.hidden(session, answer.output)

    async def close(self) -> None:
        await self._sessions.close()

    async def _answer(self, call: _Call) -> tuple[Answer, Session]:
        """Return what a tool answers, and the session in which it does."""
        async with self._sessions.session(call.context.org, call.server) as session:
            tool = await _found(call, session)
            arguments = call.params.get("arguments", {})
            if problems := await tool.problems(arguments):
                text = "; ".join(f"{locate('arguments', each.path)} {each.message}" for each in problems)
                raise call.error(INVALID_PARAMS, text, retryable=False)
            meta = {
                "flowkeep/idempotency_token": call.context.idempotency_token,
                "flowkeep/attempt": call.context.attempt,
            }
            return read(
                await session.call(call.tool, arguments, meta, _Listener(call.context, session.server))
            ), session


async def find_tool(sessions: Sessions, params: Mapping[str, Any], context: StepContext) -> Tool:
    """Return the tool that params of `mcp_tool` name, as its server describes it now, without the secrets of that.

    Raises HandlerError as a call of it would.
    """
    call = _named(params, context, sessions)
    async with call.told(), sessions.session(context.org, call.server) as session:
        tool = await _found(call, session)
        return Tool(tool.name, tool.input_schema, session.server.hide(tool.description))


def _named(params: Mapping[str, Any], context: StepContext, sessions: Sessions) -> _Call:
    call = _Call(params, context)
    if call.server not in sessions.servers:
        text = f"there is no server of this name{_listed(list(sessions.servers))}"
        raise call.error(SERVER_NOT_FOUND, text, retryable=False)
    return call


async def _found(call: _Call, session: Session) -> Tool:
    wanted = call.params.get("schema_hash")
    tool = await session.tool(call.tool, is_fresh=wanted is not None)
    if tool is None:
        text = f"the server has no tool of this name{_listed(session.tool_names)}"
        raise call.error(TOOL_NOT_FOUND, text, retryable=False)
    if wanted not in (None, tool.schema_hash):
        text = f"its input schema has changed: its hash is {tool.schema_hash}"
        raise call.error(TOOL_CHANGED, text, retryable=False, schema_hash=tool.schema_hash)
    return tool


class _Call:
    """One call, and how its failures are told."""

    def __init__(self, params: Mapping[str, Any], context: StepContext) -> None:
        self.params = params
        self.context = context
        self.server: str = params["server"]
        self.tool: str = params["tool"]

    def error(self, code: str, text: str, *, retryable: bool = True, **details: Any) -> HandlerError:
        """Return the error of this call."""
        details = {"server": self.server, "tool": self.tool, **details}
        return HandlerError(code, f"{self.server} {self.tool}: {text}", details, retryable)

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Give the call its time."""
        timeout = self.params.get("timeout")
        limit = asyncio.timeout(None if timeout is None else seconds(timeout))
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            text = timeout if isinstance(timeout, str) else f"{timeout:g} s"
            raise self.error(CONNECTION_FAILED, f"no answer within {text}; the server was told to stop") from None

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Make what goes wrong a failure of the step."""
        try:
            yield
        except SecretNotFoundError as error:
            raise self.error(SECRET_NOT_FOUND, f"FLOWKEEP_MCP_SERVERS: {error}", retryable=False) from None
        except SecretsUnavailableError as error:
            raise self.error(SECRETS_UNAVAILABLE, f"FLOWKEEP_MCP_SERVERS: {error}") from None
        except RouteError as error:
            raise self.error(NOT_CONFIGURED, f"FLOWKEEP_MCP_SERVERS: {error}", retryable=False) from None
        except errors.NotInstalledError as error:
            raise self.error(NOT_INSTALLED, str(error), retryable=False) from None
        except errors.BrokenError as error:
            raise self.error(CONNECTION_FAILED, str(error)) from error
        except errors.TooLargeError as error:
            raise self.error(RESPONSE_TOO_LARGE, str(error), retryable=False) from None
        except errors.UnreadableError as error:
            raise self.error(INVALID_RESPONSE, str(error), retryable=False) from None
        except errors.RefusedError as error:
            is_retryable = error.number not in _WRONG_REQUEST
            raise self.error(SERVER_ERROR, str(error), retryable=is_retryable, number=error.number) from None


def _listed(names: list[str]) -> str:
    """Return the end of a sentence that says which names there are."""
    if not names:
        return "; there are none"
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return f"; there are {', '.join(name[:64] for name in sorted(names)[:_NAMES_TOLD])}{more}"
