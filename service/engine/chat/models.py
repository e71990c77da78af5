"""The models that workflows may ask by name, and the way to them."""

from __future__ import annotations

from collections.abc import Mapping

from service.engine.chat.endpoints import Endpoint, NoKeyError, is_header
from service.engine.egress.allowed import Allowed
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.routes import Routes
from service.engine.mcp.servers import texts_of, with_headers
from service.engine.secrets import Secrets, setting


class Models:
    """Endpoints by name, and an egress for calls of them: where these go the deployment has named."""

    def __init__(
        self, endpoints: Mapping[str, Endpoint], secrets: Secrets | None = None, routes: Routes | None = None
    ) -> None:
        self.endpoints = endpoints
        self._secrets = secrets or Secrets()
        self.egress = Egress(Guard(Allowed({endpoint.server.target for endpoint in endpoints.values()})), routes=routes)

    async def account(self, org: str, endpoint: Endpoint, own_key: str) -> tuple[str, Mapping[str, str]]:
        """Return the key that a step has of its own or that of an endpoint, and the headers, with their secrets.

        Raises NoKeyError, SecretNotFoundError, SecretsUnavailableError.
        """
        texts = () if own_key else (endpoint.key,)
        found = await setting.find(self._secrets, org, (*texts, *texts_of(endpoint.server)))
        key = own_key or found.filled(endpoint.key) or await endpoint.current_key()
        if key and not own_key and not is_header(key):
            raise NoKeyError("key holds what headers cannot carry once its secret is filled in")
        try:
            server = with_headers(endpoint.server, found.filled)
        except ValueError as error:
            raise NoKeyError(str(error)) from None
        return key, server.headers
