"""The handlers that this process can run: built-in ones, and those of modules named at start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from service.engine import payload
from service.engine.chat.models import Models
from service.engine.egress.egress import Egress
from service.engine.handlers import loading
from service.engine.handlers.ask_model import ask_model
from service.engine.handlers.builtin import ENGINE_HANDLERS
from service.engine.handlers.call_api import call_api
from service.engine.handlers.http_clients import with_clients
from service.engine.handlers.mcp_tool import mcp_tool
from service.engine.handlers.model import Handler, HandlerError, HandlerLoadError, Source, StepContext, Suspend
from service.engine.handlers.send_notification import InApp, send_notification
from service.engine.handlers.smtp import MailServer
from service.engine.mcp.sessions import Sessions
from service.engine.secrets import Secrets
from service.engine.wishes import NONE, Wishes, parted

__all__ = [
    "Handler",
    "HandlerError",
    "HandlerLoadError",
    "Registry",
    "Source",
    "StepContext",
    "Suspend",
]

MAX_NAME = 128
# All of them go out in one answer of ListHandlers.
MAX_BYTES = 2 << 20


class Catalog(Protocol):
    """What a definition may name."""

    def get(self, name: str) -> Handler | None:
        """Return the handler of this name."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names that are known."""
        ...


class OfWorkers(Protocol):
    """The handlers of workers that are connected."""

    def get(self, org: str, name: str, wishes: Wishes = NONE) -> Handler | None:
        """Return the handler of an org, if one that meets the wishes has it."""
        ...

    def names(self) -> Sequence[tuple[str, str]]:
        """Return all, by org and name."""
        ...


def of_workers(org: str, name: str) -> str:
    """Return what claims call the handler of workers of an org, or one with wishes: see `wishes.awaited`."""
    return f"{org}\t{name}"


def awaits(org: str, awaited: Iterable[str]) -> list[str]:
    """Return by what claims find an execution of an org that awaits handlers, of servers or of workers.

    `awaited` are as in State: with what is wished of a worker; a server that has the handler itself will do, too.
    """
    names = sorted(awaited)
    return [*sorted({parted(name)[0] for name in names}), *(of_workers(org, name) for name in names)]


class Registry:
    """Handlers by name: those of this process, and those of workers, which each org has for itself."""

    workers: OfWorkers | None = None

    def __init__(
        self, handlers: Iterable[Handler] = (), egress: Egress | None = None, mcp: Sessions | None = None
    ) -> None:
        self.mcp = mcp or Sessions({})
        """The sessions in which tools of MCP servers are called."""
        self._egress = egress
        self._handlers: dict[str, Handler] = {}
        self._loaded: dict[str, loading.Found] = {}
        self._bytes = 0
        for handler in handlers:
            self.register(handler)

    @classmethod
    def with_builtins(
        cls,
        egress: Egress | None = None,
        mail_server: MailServer | None = None,
        mcp: Sessions | None = None,
        models: Models | None = None,
        in_app: InApp | None = None,
        secrets: Secrets | None = None,
    ) -> Registry:
        """Return a registry of the built-in handlers.

        They call by `egress`, else public addresses, send e-mail by `mail_server`, else none, whose account may name
        `secrets`, call tools in the sessions `mcp`, else in none, ask `models` by name, else none, and keep in-app
        notifications by `in_app`, else none.
        """
        notifier = send_notification(egress, mail_server, in_app, secrets)
        callers = (call_api(egress), notifier, mcp_tool(mcp), ask_model(egress, models, mcp))
        return cls((*callers, *ENGINE_HANDLERS.values()), egress, mcp)

    def register(self, handler: Handler) -> None:
        """Add a handler.

        Raises ValueError if another one has its name or what is said of it cannot be sent, SchemaError if its schema
        is none.
        """
        if not 0 < len(handler.name) <= MAX_NAME:
            raise ValueError(f"the name of a handler has 1 to {MAX_NAME} characters, not {handler.name!r}")
        if (known := self._handlers.get(handler.name)) is handler:
            return
        if known is not None:
            raise ValueError(f"there are two handlers named {handler.name!r}")
        self._measure(handler)
        handler.problems({})  # compiles the schema, so that a bad one stops the start and not an execution
        self._handlers[handler.name] = handler

    def _measure(self, handler: Handler) -> None:
        shown = {"name": handler.name, "description": handler.description, "params_schema": dict(handler.params_schema)}
        if found := payload.check(shown):
            raise ValueError(f"handler {handler.name!r} cannot be listed: {found[0]}")
        self._bytes += payload.size(shown)
        if self._bytes > MAX_BYTES:
            raise ValueError(
                f"handler {handler.name!r}: names, descriptions and schemas of all exceed {MAX_BYTES:,} bytes"
            )

    def get(self, name: str, org: str = "", wishes: Wishes = NONE) -> Handler | None:
        """Return the handler that the executions of an org can run here by this name.

        `wishes` are those for workers, if workers have it; what this process has itself needs none.
        """
        own = self._handlers.get(name)
        return own if own is not None or self.workers is None else self.workers.get(org, name, wishes)

    def has(self, org: str, awaited: str) -> bool:
        """Whether executions of an org can go on here that wait for this, as State.awaited names it."""
        name, wishes = parted(awaited)
        try:
            return self.get(name, org, Wishes.of(wishes)) is not None
        except ValueError:  # written by hand
            return False

    def is_own(self, name: str) -> bool:
        """Whether this process itself has a handler: no worker that came to it has one of this name."""
        return name in self._handlers

    def claimable(self) -> Sequence[str]:
        """Return what executions may await that this process can go on with."""
        theirs = self.workers.names() if self.workers is not None else ()
        return [*self.names(), *(of_workers(org, name) for org, name in theirs)]

    def names(self) -> Sequence[str]:
        """Return all names, sorted."""
        return sorted(self._handlers)

    def all(self) -> Sequence[Handler]:
        """Return all handlers, sorted by name."""
        return [self._handlers[name] for name in self.names()]

    def load(self, places: Iterable[str]) -> None:
        """Register the decorated functions of modules, named `package.module` or as a path that ends in `.py`.

        Raises HandlerLoadError.
        """
        for place in places:
            self._add(loading.load(place))

    def load_entry_points(self) -> None:
        """Register what installed packages offer in the group `flowkeep.handlers`: modules or decorated functions.

        Raises HandlerLoadError.
        """
        for found in loading.load_entry_points():
            self._add(found)

    async def close(self) -> None:
        """Free what the handlers keep open."""
        for handler in self._handlers.values():
            if handler.close is not None:
                await handler.close()

    def _add(self, found: Iterable[loading.Found]) -> None:
        for each in found:
            known = self._loaded.get(each.handler.name)
            if known is not None and known.declaration is each.declaration:
                continue  # its module was named twice
            try:
                self.register(self._connected(each.handler))
            except ValueError as error:
                where = f"{each.where}: " if each.where else ""
                raise HandlerLoadError(f"{where}{error}{self._other(each, known)}") from error
            self._loaded[each.handler.name] = each

    def _connected(self, handler: Handler) -> Handler:
        """Return a handler that finds HTTP clients in its context, if it looks at that and there is a way out."""
        if self._egress is None or not handler.takes_context:
            return handler
        return replace(handler, run=with_clients(handler.run, self._egress))

    def _other(self, each: loading.Found, known: loading.Found | None) -> str:
        """Return where the other handler of the same name is, as the end of a sentence, empty if there is none."""
        if known is None:
            return "; the other one is built in" if each.handler.name in self._handlers else ""
        if known.where == each.where:
            return "; its file is loaded under two names: name it once"
        return f"; the other one is at {known.where}"
