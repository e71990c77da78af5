"""Secrets of HashiCorp Vault, or of what speaks its HTTP form: version 2 of the key-value store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from service.engine.secrets.store import LARGEST, SecretsUnavailableError

FIELD = "value"
"""The field of an entry that is the secret."""

# An org of this name would lead to the entries of none, or of all.
_ON_THE_WAY = frozenset({"", ".", ".."})

_LONGEST_ANSWER = 2 * LARGEST + (16 << 10)


class VaultSecrets:
    """Gives the field `value` of the entry at `path`, in which `{org}` and `{name}` stand for those of the secret.

    The token is read from its file at each call, since agents renew it there. The address is the deployment's: no
    proxy of the environment is used, and no redirect followed.
    """

    name = "Vault"

    def __init__(self, url: str, token_file: Path, path: str) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._path = path
        # To make one takes longer than anything may hold the event loop; a CA of one's own is named by SSL_CERT_FILE.
        self._trust = httpx2.create_ssl_context(trust_env=True)

    async def find(self, org: str, name: str) -> str | None:
        """See Provider."""
        if org in _ON_THE_WAY:
            return None
        path = self._path.replace("{org}", quote(org, safe="")).replace("{name}", quote(name, safe=""))
        try:
            token = (await asyncio.to_thread(self._token_file.read_text)).strip()
            async with (
                httpx2.AsyncClient(verify=self._trust, trust_env=False, timeout=None) as client,
                client.stream("GET", f"{self._url}/v1/{path}", headers={"X-Vault-Token": token}) as response,
            ):
                if response.status_code == 404:
                    return None
                if response.status_code != 200:
                    raise SecretsUnavailableError(f"Vault answered {response.status_code} for the secret {name!r}")
                return _field(await _body(response), name)
        except OSError as error:
            raise SecretsUnavailableError(f"the token for Vault cannot be read: {error.strerror}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise SecretsUnavailableError(f"Vault cannot be asked: {type(error).__name__}") from None


async def _body(response: httpx2.Response) -> bytes:
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > _LONGEST_ANSWER:
            raise SecretsUnavailableError("the answer of Vault is too large for a secret")
    return body


def _field(body: bytes, name: str) -> str:
    try:
        answer: Any = msgspec.json.decode(body)
        found = answer["data"]["data"][FIELD]
    except (msgspec.DecodeError, KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        raise SecretsUnavailableError(f"the entry of Vault for the secret {name!r} has no text in the field {FIELD!r}")
    return found
