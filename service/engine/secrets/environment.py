"""Secrets in variables of the process, named one by one: no workflow can read any other variable."""

from __future__ import annotations

import os
from collections.abc import Mapping


class EnvironmentSecrets:
    """Gives the variables that the deployment has named, by org and name of the secret."""

    name = "the environment"

    def __init__(self, variables: Mapping[str, Mapping[str, str]]) -> None:
        self._variables = variables

    async def find(self, org: str, name: str) -> str | None:
        """See Provider."""
        variable = self._variables.get(org, {}).get(name)
        return None if variable is None else os.environ.get(variable)
