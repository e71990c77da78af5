"""What all MCP servers of a deployment offer, as far as they say it in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.egress.routes import RouteError
from service.engine.mcp.errors import McpError
from service.engine.mcp.sessions import Sessions
from service.engine.mcp.tools import Tool
from service.engine.secrets import SecretNotFoundError, SecretsUnavailableError

ANSWER_SECONDS = 10.0
"""In which a server must have started and listed its tools."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools of a server, by their names, or why they are not known."""

    server: str
    tools: Sequence[Tool] = ()
    error: str = ""


async def offers(sessions: Sessions, org: str) -> Sequence[Offer]:
    """Return what each server offers to an org, by its name. All are asked at once, in sessions that calls use, too."""
    return await asyncio.gather(*(_offer(sessions, org, name) for name in sorted(sessions.servers)))


async def _offer(sessions: Sessions, org: str, name: str) -> Offer:
    limit = asyncio.timeout(ANSWER_SECONDS)
    try:
        async with limit, sessions.session(org, name) as session:
            tools = await session.tools()
            hide = session.server.hide
            shown = [Tool(each.name, each.input_schema, hide(each.description)) for each in tools.values()]
            return Offer(name, sorted(shown, key=lambda tool: tool.name))
    except TimeoutError:
        if not limit.expired():
            raise
        return Offer(name, error=f"the server did not list its tools within {ANSWER_SECONDS:g} s")
    except (McpError, RouteError, SecretNotFoundError, SecretsUnavailableError) as error:
        return Offer(name, error=str(error))
