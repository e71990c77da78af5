"""Life cycle of the grpc.aio server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2

from flowkeep.v1 import (
    bulk_service_pb2,
    execution_service_pb2,
    notification_service_pb2,
    task_service_pb2,
    worker_service_pb2,
    workflow_service_pb2,
)
from service.addresses import is_unix
from service.api.health import Health
from service.api.pipeline import Pipeline
from service.api.probes import Probes
from service.api.reflection import add_reflection
from service.certificates import CertificateError, check_pair, days_left, described, read_certificates
from service.config import LARGEST_ANSWER, LARGEST_REQUEST, Config, ConfigError
from service.listening import addresses

log = structlog.get_logger(__name__)

SERVICES = (
    workflow_service_pb2.DESCRIPTOR.services_by_name["WorkflowService"].full_name,
    execution_service_pb2.DESCRIPTOR.services_by_name["ExecutionService"].full_name,
    notification_service_pb2.DESCRIPTOR.services_by_name["NotificationService"].full_name,
    task_service_pb2.DESCRIPTOR.services_by_name["TaskService"].full_name,
    worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name,
    bulk_service_pb2.DESCRIPTOR.services_by_name["BulkService"].full_name,
)

HANDLERS = "flowkeep.handlers"
"""What health calls the threads of sync handlers: NOT_SERVING while stuck ones hold all of them."""

METHODS = tuple(
    f"/{service.full_name}/{method.name}"
    for file in (
        workflow_service_pb2,
        execution_service_pb2,
        notification_service_pb2,
        task_service_pb2,
        worker_service_pb2,
        bulk_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)

OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", LARGEST_REQUEST),
    ("grpc.max_send_message_length", LARGEST_ANSWER),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # A dead peer is found within 40 s, and clients may ping every 10 s (LIBRARIES G2).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Beyond so many calls of one connection its client waits, and hears nothing: it could not even cancel one of those
    # that wait. So it is as many as are served by default, and whoever has too many is told so.
    ("grpc.max_concurrent_streams", 2_000),
    # Of a request that is not read yet gRPC takes 64 KiB, and would guess its way up to many MiB on a fast network. One
    # that is being read gets the room that it needs at once.
    ("grpc.http2.bdp_probe", 0),
    # A connection that says nothing, or never ends its TLS handshake, is let go.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Bursts of new streams are queued rather than refused (LIBRARIES G1).
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
)


class _ByName:
    """Adds what generated code adds to a server, but registers no method: calls find theirs by its name.

    Of registered methods grpc.aio awaits the next call each, and all of them anew whenever a call of one comes: with
    each method of ours every call would cost more.
    """

    def __init__(self, server: aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Leave them to the handlers of the service."""


class Server:
    """Serves our services, health and reflection, from `start` to `stop`."""

    def __init__(self, config: Config, pipeline: Pipeline, add: Sequence[Callable[[Any], None]]) -> None:
        self._config = config
        self._credentials = credentials(config)
        # A second server on the port must fail instead of taking half of the calls (LIBRARIES G3); the processes of
        # one server share it, and the one that keeps them holds it against others.
        shared = ("grpc.so_reuseport", int(config.processes > 1))
        # Without gRPC's own limit of calls: it knows no difference between those that work and those that stand about.
        self._server = aio.server(interceptors=[pipeline], options=[*OPTIONS, shared])
        for add_servicer in add:
            add_servicer(_ByName(self._server))
        self._health, sending = Health(), pipeline.limits.sending
        probes = Probes(sending)
        self._health.add_to(self._server, probes)
        add_reflection((*SERVICES, health.SERVICE_NAME), self._server, probes)
        self._probed = aio.server(options=[*OPTIONS, shared])
        self._health.add_to(self._probed, Probes(sending))
        self.target = self.health_target = ""

    async def start(self) -> None:
        """Listen. `target` is then the address that clients use. Raises ConfigError when that cannot be."""
        self.target = self._listen(self._server, *self._config.listeners[0], self._credentials)
        for setting, listen in self._config.listeners[1:]:
            self.health_target = self._listen(self._probed, setting, listen, None)
            await self._probed.start()
        await self._server.start()
        self.set_serving(True)
        if self._config.tls_cert_file and days_left(found := read_certificates(self._config.tls_cert_file)[0]) <= 0:
            log.warning("TLS: callers refuse what has expired", certificate=described(found))

    def _listen(self, server: aio.Server, setting: str, listen: str, tls: grpc.ServerCredentials | None) -> str:
        """Have a server listen on every address that a setting stands for, and return the one that clients use."""
        port = 0
        for address in addresses(setting, listen, shared=self._config.processes > 1):
            try:
                port = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
            except RuntimeError:
                raise ConfigError(f"{setting}={listen}: cannot listen there; is another server using it?") from None
        return address if is_unix(listen) else f"{listen.rpartition(':')[0]}:{port}"

    @property
    def ports(self) -> list[int]:
        """The TCP ports that it listens on."""
        targets = (self.target, self.health_target)
        return [int(target.rpartition(":")[2]) for target in targets if target and not is_unix(target)]

    def set_serving(self, is_serving: bool) -> None:
        """Tell health checks whether calls are welcome."""
        state = health_pb2.HealthCheckResponse
        for name in ("", *SERVICES):
            self._health.set(name, state.SERVING if is_serving else state.NOT_SERVING)

    def set_threads_free(self, are_free: bool) -> None:
        """Tell health checks whether sync handlers can begin."""
        state = health_pb2.HealthCheckResponse
        self._health.set(HANDLERS, state.SERVING if are_free else state.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give those in flight `grace` seconds, and return when all have ended."""
        self._health.end()
        await asyncio.gather(self._server.stop(grace), self._probed.stop(grace))


def credentials(config: Config) -> grpc.ServerCredentials | None:
    """Return what TLS is served with, None without TLS. Raises ConfigError for files that do not serve."""
    if config.tls_cert_file is None or config.tls_key_file is None:
        return None
    try:
        check_pair(config.tls_cert_file, config.tls_key_file)
    except CertificateError as error:
        raise ConfigError(f"TLS: FLOWKEEP_TLS_CERT_FILE and FLOWKEEP_TLS_KEY_FILE: {error}") from None
    pair = (config.tls_key_file.read_bytes(), config.tls_cert_file.read_bytes())
    if config.tls_client_ca_file is None:
        return grpc.ssl_server_credentials([pair])
    try:
        read_certificates(config.tls_client_ca_file)
    except CertificateError as error:
        raise ConfigError(f"TLS: FLOWKEEP_TLS_CLIENT_CA_FILE: {error}") from None
    authority = config.tls_client_ca_file.read_bytes()
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=True)
