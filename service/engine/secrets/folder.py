"""Secrets in files, a folder for each org; beside these folders those of the deployment."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from service.engine.secrets.store import DEPLOYMENT, LARGEST, SecretsUnavailableError

# Of an org with another name there are no files: a folder has no room for each character that an org may have.
_ORG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}")


class FolderSecrets:
    """Gives the files `ORG/NAME` of a folder, without the line break at their end; `NAME` for the deployment."""

    name = "the folder of secrets"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find(self, org: str, name: str) -> str | None:
        """See Provider."""
        if org == DEPLOYMENT:
            return await asyncio.to_thread(self._read, self._folder, name)
        return await asyncio.to_thread(self._read, self._folder / org, name) if _ORG.fullmatch(org) else None

    def _read(self, folder: Path, name: str) -> str | None:
        try:
            with (folder / name).open("rb") as file:
                found = file.read(LARGEST + 3)  # with a line break, and one more than may be
            return found.decode().removesuffix("\n").removesuffix("\r")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise SecretsUnavailableError(f"the file of the secret {name!r} cannot be read: {why}") from None
