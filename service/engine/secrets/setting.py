"""Secrets that settings of the deployment name: `${ secret('name') }` in their text, found at each call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from service.engine.expressions.secret import NAME
from service.engine.secrets.store import Secrets

_PLACE = re.compile(rf"""\$\{{\s*secret\(\s*(?:'({NAME})'|"({NAME})")\s*\)\s*\}}""")
_BEGINNING = re.compile(r"\$\{\s*secret\b")


@dataclass(frozen=True, slots=True)
class Found:
    """The secrets that some texts name, by their names, as they are now."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def filled(self, text: str) -> str:
        """Return a text with its secrets."""
        return _PLACE.sub(lambda place: self.values[place[1] or place[2]], text)


NOTHING = Found()


def names_in(texts: Iterable[str]) -> frozenset[str]:
    """Return the names of the secrets that texts name. Raises ValueError for what is meant as one and is none."""
    found: set[str] = set()
    for text in texts:
        places = list(_PLACE.finditer(text))
        if len(places) != len(_BEGINNING.findall(text)):
            raise ValueError("a secret is named as ${ secret('name') }, by letters, digits, _ . and -")
        found.update(place[1] or place[2] for place in places)
    return frozenset(found)


async def find(secrets: Secrets, org: str, texts: Iterable[str]) -> Found:
    """Return the secrets that texts of settings name: those of the org, and where it has none those of the deployment.

    Raises SecretNotFoundError, SecretsUnavailableError.
    """
    names = names_in(texts)
    return Found(await secrets.find_for_setting(org, names)) if names else NOTHING
