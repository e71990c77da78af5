"""The secrets of one attempt: filled into its params, and kept out of all that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from service.engine import payload
from service.engine.expressions import Template
from service.engine.expressions.secret import fill
from service.engine.failure import INVALID_PARAMS, SECRET_NOT_FOUND, SECRETS_UNAVAILABLE, Failure, storable
from service.engine.handlers.failures import MAX_CODE, MAX_STACK_TRACE, kept
from service.engine.handlers.model import Handler, HandlerError
from service.engine.running.output import MAX_OUTPUT
from service.engine.schema import locate
from service.engine.schema_places import Path
from service.engine.secrets import Hiding, SecretNotFoundError, Secrets, SecretsUnavailableError

Result = TypeVar("Result")


class Revealing:
    """Fills the secrets of a template into the params of an attempt, and hides them afterwards.

    What may be large is filled and searched in a thread.
    """

    def __init__(self, secrets: Secrets, org: str, template: Template) -> None:
        self._secrets = secrets
        self._org = org
        self._places = template.secrets
        self._hiding = Hiding({})

    @property
    def paths(self) -> Collection[Path]:
        """Paths of the params that are judged only when they are filled."""
        return self._places.keys()

    async def learn(self) -> Mapping[str, str]:
        """Return the secrets by name, as they are now; they are hidden from here on. Raises HandlerError."""
        names = frozenset[str]().union(*self._places.values())
        try:
            found = await self._secrets.find(self._org, names)
        except SecretNotFoundError as error:
            raise HandlerError(SECRET_NOT_FOUND, str(error), retryable=False) from None
        except SecretsUnavailableError as error:
            raise HandlerError(SECRETS_UNAVAILABLE, str(error)) from None
        self._hiding = await self._apart(Hiding, found)
        return found

    async def filled(self, handler: Handler, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the params with their secrets. Raises HandlerError; what it says holds none of them."""
        found = await self.learn()
        filled, is_sound = await self._apart(self._fill, params, found)
        if not is_sound:
            most = f"{payload.MAX_PAYLOAD_BYTES:,} bytes"
            text = f"params: with their secrets filled in they must be at most {most}, without the character NUL"
            raise HandlerError(INVALID_PARAMS, text, retryable=False)
        if problems := handler.problems(filled):
            # What it says may repeat a part of the secret.
            where = locate("", problems[0].path) or "params"
            raise HandlerError(INVALID_PARAMS, f"{where}: is wrong once its secret is filled in", retryable=False)
        return filled

    def _fill(self, params: Mapping[str, Any], found: Mapping[str, str]) -> tuple[Mapping[str, Any], bool]:
        filled: Mapping[str, Any] = fill(params, self._places, found)
        return filled, not payload.check(filled)

    async def hidden(self, value: Any) -> Any:
        """Return JSON in which each secret is its place again; what holds none is equal."""
        return await self._apart(self._hiding.hidden, value)

    async def _apart(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what a function gives in a thread for secrets."""
        return await asyncio.get_running_loop().run_in_executor(self._secrets.threads, function, *arguments)

    def hiding_in_outputs(self, emit: Callable[[str], None]) -> Callable[[str], None]:
        """Return what shows texts without secrets; one that comes in many pieces is not seen."""
        return lambda text: emit(self._hiding.hidden_if_cut(text[-MAX_OUTPUT:]))

    def hiding_in_lines(self, tell: Callable[[int, str], None]) -> Callable[[int, str], None]:
        """Return what logs without secrets."""
        return lambda level, text: tell(level, self._hiding.hidden_if_cut(text[:MAX_OUTPUT]))

    def hiding_in_reports(self, report: Callable[[int, str], None]) -> Callable[[int, str], None]:
        """Return what reports progress without secrets."""
        return lambda percent, message: report(percent, self._hiding.hidden_if_cut(message[:MAX_OUTPUT]))

    async def hidden_failure(self, failure: Failure) -> Failure:
        """Return a failure that tells none of them, nor what is left of one where a text was cut."""
        return await self._apart(self._hidden_failure, failure)

    def _hidden_failure(self, failure: Failure) -> Failure:
        hidden = self._hiding.hidden_if_cut
        # A place may be longer than its secret, and what a failure tells is bounded.
        return replace(
            failure,
            code=storable(hidden(failure.code), MAX_CODE),
            message=hidden(failure.message),
            details=kept(hidden(failure.details)),
            stack_trace=hidden(failure.stack_trace)[-MAX_STACK_TRACE:],
        )
