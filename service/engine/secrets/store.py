"""Finds the secrets of an org, with the providers that the deployment has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Protocol

PATIENCE = 10.0
"""Seconds in which all secrets of an attempt must have come."""

LARGEST = 64 << 10
"""Bytes of one, at most."""

DEPLOYMENT = "*"
"""Stands for an org where secrets are the deployment's: settings may name them, and workflows may not."""

THREADS = 2
"""That fill secrets in and hide them."""


class SecretNotFoundError(Exception):
    """An org has no secret of this name; the text says so, and where it was looked for."""


class SecretsUnavailableError(Exception):
    """A provider does not answer, or not as it should; the text says which and why, without a secret."""


class Provider(Protocol):
    """Where secrets come from."""

    name: str
    """What people know it by."""

    async def find(self, org: str, name: str) -> str | None:
        """Return the secret of an org, or of the DEPLOYMENT, None when it has none of this name.

        Raises SecretsUnavailableError.
        """
        ...


class Secrets:
    """The secrets of all orgs, each seen by none of the others. Nothing is kept: what is changed counts at once."""

    def __init__(self, providers: Sequence[Provider] = ()) -> None:
        self._providers = providers
        # For what looks through large texts: the loop's own threads are wanted by look-ups of names and by the store.
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="flowkeep-secrets")

    @property
    def names(self) -> Sequence[str]:
        """What people know the providers by, in the order in which they are asked."""
        return [provider.name for provider in self._providers]

    async def find(self, org: str, names: Iterable[str]) -> Mapping[str, str]:
        """Return the secrets of these names, each from the first provider that has it.

        Raises SecretNotFoundError, SecretsUnavailableError.
        """
        # An org that calls itself so gets none, instead of those that settings alone may name.
        return await self._find_all([org] if org != DEPLOYMENT else [], org, names)

    async def find_for_setting(self, org: str, names: Iterable[str]) -> Mapping[str, str]:
        """Return the secrets that a setting names: those of the org, and where it has none those of the deployment.

        Raises SecretNotFoundError, SecretsUnavailableError.
        """
        return await self._find_all(list(dict.fromkeys((org, DEPLOYMENT))), org, names)

    async def _find_all(self, owners: Sequence[str], org: str, names: Iterable[str]) -> Mapping[str, str]:
        try:
            async with asyncio.timeout(PATIENCE):
                return {name: await self._find(owners, org, name) for name in sorted(names)}
        except TimeoutError:
            raise SecretsUnavailableError(f"secrets did not come within {PATIENCE:g} s") from None

    async def _find(self, owners: Sequence[str], org: str, name: str) -> str:
        for owner, provider in product(owners, self._providers):
            if (found := await provider.find(owner, name)) is not None:
                if not found or _size(found) > LARGEST:
                    text = f"the secret {name!r} is empty, no UTF-8, or larger than {LARGEST:,} bytes"
                    raise SecretsUnavailableError(text)
                return found
        where = ", ".join(self.names)
        asked = f"; it was looked for in {where}" if where else ", since the server has no provider of secrets"
        raise SecretNotFoundError(f"there is no secret {name!r} for the org {org!r}{asked}")


def _size(text: str) -> float:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # bytes of a variable that are no text; the error holds them all
        return math.inf
