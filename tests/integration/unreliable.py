"""A store that now and then is busy, does not answer, or does what it was asked and does not say so."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from persistence.errors import UnavailableError
from persistence.transition import CommitResult

SILENCE = 0.05
"""Seconds until a question counts as unanswered."""

_KEPT = {"close", "listen", "ping", "register", "secret"}
"""A server begins only with a store that answers."""


class Unreliable:
    """A repository of which each method fails in each of three ways with the probability `share`, by a seed.

    The mix is Temporal's (FAULTS T5): busy, timeout, executed and timeout.
    """

    def __init__(self, repository: Any, seed: int, share: float) -> None:
        self.failures: Counter[str] = Counter()
        self._repository = repository
        self._share = share
        self._seed = seed
        self._draws: dict[str, random.Random] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._repository, name)
        if name in _KEPT or name.startswith("_") or not callable(method):
            return method
        if inspect.iscoroutinefunction(method):
            return functools.partial(self._ask, name, method)
        return functools.partial(self._hand_over, name, method)

    @asynccontextmanager
    async def leases_apart(self) -> AsyncIterator[Unreliable]:
        """No better over a connection of their own."""
        apart = self._repository.leases_apart()
        assert apart is not None
        async with apart as leases:
            unreliable = Unreliable(leases, self._seed, self._share)
            unreliable.failures = self.failures
            yield unreliable

    def _trouble(self, name: str) -> str:
        # One for each method, so that one which is called more often does not change the others' luck.
        luck = self._draws.setdefault(name, random.Random(f"{self._seed} {name}")).random() / self._share
        trouble = {0: "busy", 1: "timeout", 2: "executed and timeout"}.get(int(luck), "")
        self.failures[trouble] += 1
        return trouble

    async def _ask(self, name: str, method: Any, *arguments: Any, **named: Any) -> Any:
        trouble = self._trouble(name)
        if trouble == "busy":
            raise UnavailableError(f"{name}: busy")
        answer = None if trouble == "timeout" else await method(*arguments, **named)
        if trouble:
            await asyncio.sleep(SILENCE)
            raise UnavailableError(f"{name}: no answer")
        return answer

    def _hand_over(self, name: str, method: Any, *arguments: Any) -> asyncio.Future[Any]:
        """Take a creation or a transition, and lose it, or its outcome."""
        trouble = self._trouble(name)
        shown: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if trouble in ("busy", "timeout"):
            asyncio.get_running_loop().call_later(SILENCE, _lose, shown, name)
            return shown
        inner = method(*arguments)
        if not trouble:
            return inner  # type: ignore[no-any-return]
        inner.add_done_callback(functools.partial(_silence, shown, name))
        return shown


def _silence(shown: asyncio.Future[Any], name: str, done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()  # seen, and not told
    _lose(shown, name)


def _lose(future: asyncio.Future[Any], name: str) -> None:
    if future.done():
        return
    if name == "submit":
        future.set_result(CommitResult.UNKNOWN)
    else:
        future.set_exception(UnavailableError(f"{name}: no answer"))
