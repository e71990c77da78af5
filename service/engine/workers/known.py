"""The handlers that workers of an org have ever registered: definitions may name them while nobody is connected."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from persistence.errors import PersistenceError
from persistence.workers import WorkerHandler, WorkerRepository
from service.engine import payload
from service.engine.chat import tools
from service.engine.handlers.model import Effect, Handler
from service.engine.handlers.registry import Registry
from service.engine.kept import Kept
from service.engine.schema import locate
from service.engine.schema_places import SchemaError
from service.engine.slices import Work, in_slices
from service.engine.violations import ValidationError, Violation
from service.engine.workers.model import Declared, HandlerExistsError, Registration
from service.engine.workers.pool import Workers
from service.engine.workers.remote import RemoteHandlers

log = structlog.get_logger(__name__)

MAX_BYTES = 1 << 20
"""Of names, descriptions and schemas of the handlers of workers of an org: all go out in one answer of ListHandlers."""

REFRESHED = 3_600.0
"""Seconds after which it is written again that a worker with a handler was seen."""

COMPILED = 4 << 20


@dataclass(frozen=True, slots=True)
class Shown:
    """A handler that steps can name; of one of workers how many with it are connected to this process."""

    handler: Handler
    workers: int = 0


@dataclass(frozen=True, slots=True)
class _Catalog:
    """What the definitions of an org may name."""

    registry: Registry
    org: str
    known: Mapping[str, Handler]

    def get(self, name: str) -> Handler | None:
        """Return the handler of this name."""
        return self.registry.get(name, self.org) or self.known.get(name)

    def names(self) -> Sequence[str]:
        """Return the names that are known."""
        return sorted({*self.registry.names(), *self.known})


class KnownHandlers:
    """Keeps what workers register, and has it at hand where definitions name it."""

    def __init__(self, repository: WorkerRepository, registry: Registry, workers: Workers) -> None:
        self._repository = repository
        self._registry = registry
        self._workers = workers
        self._remote = RemoteHandlers(workers)
        # What was written by this process, and when by its clock that goes only forward.
        self._written: dict[tuple[str, str], tuple[WorkerHandler, float]] = {}
        self._compiled: Kept[tuple[str, bytes], Handler] = Kept(COMPILED)

    async def register(self, registration: Registration, now: float) -> Sequence[Handler]:
        """Return the handlers of a worker, once it is in the store that the org has them.

        `now` is the time of a clock that goes only forward. Raises HandlerExistsError, ValidationError with fields such
        as `register.handlers[2].params_schema.type`, PersistenceError.
        """
        org, own = registration.org, set(self._registry.names())
        for declared in registration.handlers:
            if declared.name in own:
                raise HandlerExistsError(declared.name)
        made = []
        for index, declared in enumerate(registration.handlers):
            try:
                made.append(await in_slices(self._remote.made(org, declared)))
            except SchemaError as error:
                field = locate(f"register.handlers[{index}].params_schema", error.path)
                raise ValidationError([Violation(field, error.message)]) from None
        rows = [_row(declared, registration.version) for declared in registration.handlers]
        fresh = [row for row in rows if self._is_news(org, row, now)]
        if fresh:
            await self._check_size(org, fresh)
            await self._repository.keep_worker_handlers(org, fresh)
            self._written.update({(org, row.name): (row, now) for row in fresh})
        return made

    async def renew(self, now: float) -> None:
        """Write again what connected workers have, if that was long ago: they may be for longer than it is remembered.

        `now` is the time of a clock that goes only forward. Raises PersistenceError.
        """
        fresh = dict[str, dict[str, WorkerHandler]]()
        for worker in self._workers.all:
            said = worker.registration
            rows = (_row(declared, said.version) for declared in said.handlers) if worker.link is not None else ()
            for row in rows:
                written, when = self._written.get((said.org, row.name), (row, -math.inf))
                if now - when >= REFRESHED:
                    fresh.setdefault(said.org, {})[row.name] = written
        for org, by_name in fresh.items():
            # What they are stays as it stands: another process may have had a newer version since.
            standing = {row.name: row for row in await self._repository.find_worker_handlers(org, sorted(by_name))}
            await self._repository.keep_worker_handlers(org, list({**by_name, **standing}.values()))
            self._written.update({(org, name): (row, now) for name, row in by_name.items()})

    async def keep(self) -> None:
        """Renew what connected workers have until cancelled."""
        while True:
            await asyncio.sleep(REFRESHED)
            try:
                await self.renew(asyncio.get_running_loop().time())
            except PersistenceError as error:  # 30 days are left for the next time
                log.warning("handlers of workers not renewed", error=str(error))

    def _is_news(self, org: str, row: WorkerHandler, now: float) -> bool:
        before, when = self._written.get((org, row.name), (None, now))
        return before != row or now - when >= REFRESHED

    async def _check_size(self, org: str, fresh: Sequence[WorkerHandler]) -> None:
        """Raise ValidationError when the org would have more than is shown at once."""
        known = {row.name: row for row in await self._repository.list_worker_handlers(org)}
        size = sum(map(_size, {**known, **{row.name: row for row in fresh}}.values()))
        if size > MAX_BYTES:
            text = (
                f"names, descriptions and schemas of the handlers of all workers of the org would have {size:,} bytes;"
                f" {MAX_BYTES:,} are kept. One that no worker has had for 30 days is forgotten"
            )
            raise ValidationError([Violation("register.handlers", text)])

    async def catalog(self, org: str, document: Mapping[str, Any]) -> _Catalog:
        """Return what a definition may name; of what only the store knows, what it does name."""
        named = {name for name in _handlers(document) if self._registry.get(name, org) is None}
        found = await self._repository.find_worker_handlers(org, sorted(named)[:_MOST_NAMED]) if named else ()
        return _Catalog(self._registry, org, {row.name: await in_slices(self._made(org, row)) for row in found})

    async def all(self, org: str) -> Sequence[Shown]:
        """Return all that steps of an org can name, by name."""
        own = {handler.name: Shown(handler) for handler in self._registry.all()}
        known = {row.name: row for row in await self._repository.list_worker_handlers(org) if row.name not in own}
        theirs = {}
        for name, row in known.items():
            connected = self._workers.get(org, name)
            handler = await in_slices(self._made(org, row)) if connected is None else connected
            theirs[name] = Shown(handler, self._workers.serving(org, name))
        return [shown for _, shown in sorted({**own, **theirs}.items())]

    def _made(self, org: str, row: WorkerHandler) -> Work[Handler]:
        key = org, payload.encode({**_shown(row), "effect": row.effect})
        handler = self._compiled.get(key)
        if handler is None:
            declared = Declared(row.name, row.description, row.params_schema, Effect(row.effect))
            handler = yield from self._remote.made(org, declared)
            self._compiled.put(key, handler, 20 * _size(row))
        return handler


_MOST_NAMED = 1_000


def _row(declared: Declared, version: str) -> WorkerHandler:
    return WorkerHandler(declared.name, declared.description, declared.params_schema, declared.effect.value, version)


def _size(row: WorkerHandler) -> int:
    return payload.size(_shown(row))


def _shown(row: WorkerHandler) -> dict[str, Any]:
    return {"name": row.name, "description": row.description, "params_schema": dict(row.params_schema)}


def _handlers(block: Any) -> Iterator[str]:
    """Yield what the steps of a definition name as handlers, whatever else is wrong with it."""
    steps = block.get("steps") if isinstance(block, Mapping) else None
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, Mapping):
            for each in (step, *(tool for _, tool in tools.of_step(step))):
                if isinstance(name := each.get("handler"), str) and 0 < len(name) <= 128 and name.isprintable():
                    yield name
            yield from _handlers(step.get("for_each"))
