"""The models and MCP servers of the settings, judged before any is asked."""

from __future__ import annotations

from service.config import Config, ConfigError
from service.engine.chat.endpoints import NoKeyError
from service.engine.chat.models import Models
from service.engine.egress.routes import RouteError, Routes
from service.engine.mcp.servers import HttpServer, Server, parse
from service.engine.mcp.sessions import Sessions
from service.engine.secrets import Secrets


def models_of(config: Config, secrets: Secrets | None = None, routes: Routes | None = None) -> Models:
    """Return the models that workflows may ask by name. Raises ConfigError for what an endpoint names and cannot have.

    Keys and headers may name `secrets`, endpoints certificates and proxies of `routes`.
    """
    for name, endpoint in config.endpoints.items():
        _check_route("FLOWKEEP_MODELS", name, endpoint.server, routes)
        try:
            endpoint.read_key()
        except NoKeyError as error:
            raise ConfigError(f"FLOWKEEP_MODELS: {name}.{error}") from None
    return Models(config.endpoints, secrets, routes)


def sessions_of(config: Config, secrets: Secrets | None = None, routes: Routes | None = None) -> Sessions:
    """Return the sessions with the MCP servers whose tools workflows may call, by name.

    Raises ConfigError for a server that names what is not in `routes`.
    """
    servers = {} if config.mcp_servers is None else parse(config.mcp_servers.get_secret_value())
    for name, server in servers.items():
        _check_route("FLOWKEEP_MCP_SERVERS", name, server, routes)
    return Sessions(servers, secrets, routes)


def _check_route(setting: str, name: str, server: Server, routes: Routes | None) -> None:
    try:
        if isinstance(server, HttpServer):
            server.route(routes or Routes())
    except RouteError as error:
        raise ConfigError(f"{setting}: {name}.{error}") from None
