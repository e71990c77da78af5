"""The secrets of one attempt: filled into its params, and kept out of all that comes back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

from service.engine.expressions import Template
from service.engine.expressions.secret import Secret, fill
from service.engine.failure import INVALID_PARAMS, SECRET_NOT_FOUND, SECRETS_UNAVAILABLE, Failure
from service.engine.handlers.model import Handler, HandlerError
from service.engine.schema import locate
from service.engine.schema_places import Path
from service.engine.secrets import SecretNotFoundError, Secrets, SecretsUnavailableError

SHORTEST = 6
"""Characters of a secret from which on it is looked for in what comes back: shorter ones would be found everywhere."""


class Revealing:
    """Fills the secrets of a template into the params of an attempt, and hides them afterwards."""

    def __init__(self, secrets: Secrets, org: str, template: Template) -> None:
        self._secrets = secrets
        self._org = org
        self._places = template.secrets
        # What is looked for, and what is put into its place; longer ones first, of which others may be a part.
        self._hidden: list[tuple[str, str]] = []

    @property
    def paths(self) -> Collection[Path]:
        """Paths of the params that are judged only when they are filled."""
        return self._places.keys()

    async def filled(self, handler: Handler, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the params with their secrets. Raises HandlerError; what it says holds none of them."""
        names = frozenset[str]().union(*self._places.values())
        try:
            found = await self._secrets.find(self._org, names)
        except SecretNotFoundError as error:
            raise HandlerError(SECRET_NOT_FOUND, str(error), retryable=False) from None
        except SecretsUnavailableError as error:
            raise HandlerError(SECRETS_UNAVAILABLE, str(error)) from None
        self._hidden = sorted(
            ((form, str(Secret(name))) for name, value in found.items() for form in _forms(value)),
            key=lambda each: -len(each[0]),
        )
        filled: Mapping[str, Any] = fill(params, self._places, found)
        if problems := handler.problems(filled):
            # What it says may repeat a part of the secret.
            where = locate("", problems[0].path) or "params"
            raise HandlerError(INVALID_PARAMS, f"{where}: is wrong once its secret is filled in", retryable=False)
        return filled

    def hidden(self, value: Any) -> Any:
        """Return JSON in which each secret is its place again; what holds none is equal."""
        if isinstance(value, str):
            for found, place in self._hidden:
                if found in value:
                    value = value.replace(found, place)
            return value
        if isinstance(value, Mapping):
            return {self.hidden(key): self.hidden(member) for key, member in value.items()}
        if isinstance(value, list | tuple):
            return [self.hidden(member) for member in value]
        return value

    def hiding_in_outputs(self, emit: Callable[[str], None]) -> Callable[[str], None]:
        """Return what shows texts without secrets; one that comes in two pieces is not seen."""
        return lambda text: emit(self.hidden(str(text)))

    def hiding_in_reports(self, report: Callable[[int, str], None]) -> Callable[[int, str], None]:
        """Return what reports progress without secrets."""
        return lambda percent, message: report(percent, self.hidden(message))

    def hidden_failure(self, failure: Failure) -> Failure:
        """Return a failure that tells none of them."""
        return replace(
            failure,
            code=self.hidden(failure.code),
            message=self.hidden(failure.message),
            details=self.hidden(failure.details),
            stack_trace=self.hidden(failure.stack_trace),
        )


def _forms(value: str) -> set[str]:
    """Return a secret as it may come back: as it is, in a URL, in a text of JSON or Python."""
    if len(value) < SHORTEST:
        return set()
    in_json = msgspec.json.encode(value).decode()[1:-1]
    return {value, quote(value, safe=""), quote_plus(value), in_json, repr(value)[1:-1]}
