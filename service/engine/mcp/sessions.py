"""The sessions with MCP servers: one for each org and server, opened when it is asked for, closed when it is idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from importlib import import_module
from typing import TYPE_CHECKING, Any

from service.engine.egress.allowed import Allowed
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.places import Places
from service.engine.egress.routes import DIRECT, Route, Routes
from service.engine.mcp.errors import BrokenError, NotInstalledError
from service.engine.mcp.servers import HttpServer, Server, filled, texts_of
from service.engine.secrets import Hiding, Secrets, setting
from service.engine.tasks import TaskRegistry

if TYPE_CHECKING:
    from service.engine.mcp.session import Session

CALLS, CALLS_OF_ONE_ORG = 64, 48
"""Calls under way at a time, and so sessions; more wait."""

IDLE = 300.0
"""Seconds without a call after which a session is closed."""

CLOSE_SECONDS = 3.0
"""That sessions have to end in good order."""

_LOOK = 30.0


class Sessions:
    """Gives sessions to calls. One that broke is opened anew for the next call; no org meets with another's."""

    def __init__(
        self, servers: Mapping[str, Server], secrets: Secrets | None = None, routes: Routes | None = None
    ) -> None:
        self.servers = servers
        self._secrets = secrets or Secrets()
        targets = {server.target for server in servers.values() if isinstance(server, HttpServer)}
        # Where these calls go the deployment has named, and they go nowhere else.
        self._egress = Egress(Guard(Allowed(targets)), routes=routes)
        self._places = Places(CALLS, CALLS_OF_ONE_ORG)
        self._sessions: dict[tuple[str, str], Session] = {}
        self._running: dict[Session, asyncio.Task[Any]] = {}
        self._tasks = TaskRegistry()

    @asynccontextmanager
    async def session(self, org: str, name: str) -> AsyncIterator[Session]:
        """Give the session of an org with a server, which is there. Raises McpError.

        One that was opened with other secrets than the server has now is left. Raises what finding them raises, and
        RouteError where the certificates or the proxy of the server are not for the org.
        """
        async with self._places.place(org):
            kind = await _kind()
            found = await setting.find(self._secrets, org, texts_of(self.servers[name]))
            route = await self._route(org, self.servers[name])
            session = self._find(org, name, found, route, kind)
            session.enter()
            try:
                await session.opened()
                yield session
            finally:
                session.leave()

    async def tend(self) -> None:
        """Close what is idle, until cancelled."""
        connections = self._tasks.keep(self._egress.tend, "idle connections to MCP servers")
        try:
            await self._close_idle()
        finally:
            connections.cancel()

    async def close(self) -> None:
        """End all sessions. They are opened again when there are more calls."""
        ending = list(self._running)
        await self._end(ending)
        await self._tasks.cancel_all()
        await self._egress.close()

    async def hidden(self, session: Session, value: Any) -> Any:
        """Return JSON of a server without the secrets that its session was opened with."""
        if not session.secrets:
            return value

        def hide() -> Any:
            return Hiding(session.secrets).hidden(value)

        return await asyncio.get_running_loop().run_in_executor(self._secrets.threads, hide)

    async def _route(self, org: str, server: Server) -> Route:
        """Return how calls of an org go to a server, whose proxy can be used: a session in work has nobody to tell."""
        if not isinstance(server, HttpServer):
            return DIRECT
        route = server.route(self._egress.routes, org)
        await self._egress.routes.revealed(org, route)
        return route

    def _find(self, org: str, name: str, found: setting.Found, route: Route, kind: type[Session]) -> Session:
        known = self._sessions.get((org, name))
        if known is not None and known.is_usable:
            if known.secrets == found.values:
                return known
            known.end_when_left()
            if not known.users:
                known.end()
        if len(self._running) >= CALLS:
            # A call has a place and no session yet, so that one of them is idle, or ending.
            idle = [session for session in self._running if not session.users]
            if idle:
                min(idle, key=lambda session: session.idle_since).end()
        try:
            server = filled(self.servers[name], found.filled)
        except ValueError as error:
            raise BrokenError(str(error)) from None
        session = kind(name, server, org, self._egress, route, found.values)
        self._sessions[org, name] = session
        # In a context of its own: it outlives the attempt that asked for it.
        task = self._tasks.spawn(session.run(), f"MCP session {name}", Context())
        self._running[session] = task
        task.add_done_callback(lambda _: self._ended((org, name), session))
        return session

    def _ended(self, key: tuple[str, str], session: Session) -> None:
        self._running.pop(session, None)
        if self._sessions.get(key) is session:
            del self._sessions[key]

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            since = time.monotonic() - IDLE
            await self._end([each for each in self._running if not each.users and each.idle_since < since])

    async def _end(self, sessions: Iterable[Session]) -> None:
        tasks = []
        for session in sessions:
            session.end()
            tasks.append(self._running[session])
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)


async def _kind() -> type[Session]:
    """Return the class of sessions. The library of MCP takes half a second to load, which is done in a thread."""
    try:
        module = await asyncio.to_thread(import_module, "service.engine.mcp.session")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("mcp", "mcp_types"):
            raise NotInstalledError from None
        raise
    kind: type[Session] = module.Session
    return kind
