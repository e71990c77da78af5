"""The ways out that a deployment has named: certificates of its own, and proxies. Steps choose one by its name."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TypeVar

from service.engine.egress.allowed import Rule
from service.engine.egress.named import Proxy
from service.engine.secrets import Secrets, setting

Named = TypeVar("Named", "Tls", Proxy)

_NAMES_TOLD = 20


class RouteError(ValueError):
    """A step names a way that there is not for it: the param that does, and what would be right."""

    def __init__(self, param: str, text: str) -> None:
        super().__init__(f"{param}: {text}")
        self.param = param


@dataclass(frozen=True, slots=True, eq=False)
class Tls:
    """Whom calls trust, and as whom they come.

    `context` is for HTTP; for gRPC there are the same in PEM: `roots`, None for those of the system, and key and chain
    of the client certificate in `pair`, None without one. `hosts` are the only ones that it is for, if there are any,
    and `orgs` likewise.
    """

    name: str
    context: ssl.SSLContext = field(repr=False)
    roots: bytes | None = field(default=None, repr=False)
    pair: tuple[bytes, bytes] | None = field(default=None, repr=False)
    hosts: tuple[Rule, ...] = ()
    orgs: frozenset[str] = frozenset()

    def names(self, host: str, port: int) -> bool:
        """Return whether a host is one of its `hosts`."""
        name = host.lower().removesuffix(".")
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        return any(
            rule.is_for_port(port) and (rule.names(name) or (address is not None and rule.covers(address)))
            for rule in self.hosts
        )


@dataclass(frozen=True, slots=True)
class Route:
    """How calls of one attempt go out: by default by TLS as the system has it, and straight to the host."""

    tls: Tls | None = None
    proxy: Proxy | None = None

    def check(self, host: str, port: int) -> None:
        """Raise RouteError for a host that a step calls itself, and that its certificates are not for."""
        if self.tls is not None and self.tls.hosts and not self.tls.names(host, port):
            raise RouteError(
                "tls", f"{self.tls.name!r} is not for this host: the server's settings name those it is for"
            )

    def towards(self, host: str, port: int, *, is_asked_for: bool) -> Route:
        """Return the route to a host, without certificates that are not for it.

        They are for the `hosts` of the settings; where these name none, for what the step itself asks for, and not for
        what answers lead to.
        """
        if self.tls is None or (self.tls.names(host, port) if self.tls.hosts else is_asked_for):
            return self
        return replace(self, tls=None)


DIRECT = Route()


class Routes:
    """All that the settings name."""

    def __init__(
        self,
        tls: Mapping[str, Tls] | None = None,
        proxies: Mapping[str, Proxy] | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        self._tls = tls or {}
        self._proxies = proxies or {}
        self._secrets = secrets or Secrets()

    def route(self, org: str, tls: str | None = None, proxy: str | None = None) -> Route:
        """Return the route of these names for calls of an org. Raises RouteError."""
        return Route(
            _named("tls", "FLOWKEEP_HTTP_TLS", self._tls, org, tls),
            _named("proxy", "FLOWKEEP_HTTP_PROXIES", self._proxies, org, proxy),
        )

    def named(self, tls: str | None = None, proxy: str | None = None) -> Route:
        """Return the route of these names, whichever orgs it is for: another setting names it. Raises RouteError."""
        return Route(
            _named("tls", "FLOWKEEP_HTTP_TLS", self._tls, None, tls),
            _named("proxy", "FLOWKEEP_HTTP_PROXIES", self._proxies, None, proxy),
        )

    async def revealed(self, org: str, route: Route) -> Route:
        """Return a route with the secrets that its proxy names. Raises SecretNotFoundError, SecretsUnavailableError."""
        if (proxy := route.proxy) is None:
            return route
        found = await setting.find(self._secrets, org, (proxy.username, proxy.password))
        if found is setting.NOTHING:
            return route
        filled = replace(proxy, username=found.filled(proxy.username), password=found.filled(proxy.password))
        return replace(route, proxy=filled)


def _named(param: str, setting: str, known: Mapping[str, Named], org: str | None, name: str | None) -> Named | None:
    """Return what has a name; with an org, if it is for that one."""
    if name is None:
        return None
    own = {each: found for each, found in known.items() if org is None or not found.orgs or org in found.orgs}
    if name not in own:
        whose = "" if org is None else " for the org"
        raise RouteError(param, f"the server's setting {setting} has no {name[:64]!r}{whose}{_listed(own)}")
    return own[name]


def _listed(names: Iterable[str]) -> str:
    """Return the end of a sentence that says which names there are."""
    found = sorted(names)
    more = f" and {len(found) - _NAMES_TOLD} more" if len(found) > _NAMES_TOLD else ""
    return f"; it has {', '.join(found[:_NAMES_TOLD])}{more}" if found else "; it has none"
