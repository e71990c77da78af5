"""The models that workflows may ask by name, and the way to them."""

from __future__ import annotations

from collections.abc import Mapping

from service.engine.chat.endpoints import Endpoint
from service.engine.egress.allowed import Allowed
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard


class Models:
    """Endpoints by name, and an egress for calls of them: where these go the deployment has named."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self.endpoints = endpoints
        self.egress = Egress(Guard(Allowed({endpoint.server.target for endpoint in endpoints.values()})))
