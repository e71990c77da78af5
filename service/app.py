"""The one place where everything is wired."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

import structlog

from flowkeep.v1.bulk_service_pb2_grpc import add_BulkServiceServicer_to_server
from flowkeep.v1.execution_service_pb2_grpc import add_ExecutionServiceServicer_to_server
from flowkeep.v1.notification_service_pb2_grpc import add_NotificationServiceServicer_to_server
from flowkeep.v1.task_service_pb2_grpc import add_TaskServiceServicer_to_server
from flowkeep.v1.worker_service_pb2_grpc import add_WorkerServiceServicer_to_server
from flowkeep.v1.workflow_service_pb2_grpc import add_WorkflowServiceServicer_to_server
from persistence import failpoints
from persistence.errors import PersistenceError
from persistence.repository import Repository
from service.announcing import announce
from service.api.admission import Admission
from service.api.bulk_service import BulkServicer
from service.api.events import encode
from service.api.execution_service import ExecutionServicer
from service.api.identity import open_authenticator
from service.api.key_files import exposure
from service.api.notification_service import NotificationServicer
from service.api.page_tokens import PageTokens
from service.api.pipeline import Limits, Pipeline, check_permissions
from service.api.receiving import Receiving
from service.api.sending import Sending
from service.api.stored_events import mended
from service.api.streams import StreamLimits, Streams
from service.api.task_service import TaskServicer
from service.api.worker_service import WorkerServicer
from service.api.workflow_service import WorkflowServicer
from service.calls.call_grpc import call_grpc
from service.calls.channels import Channels
from service.config import Config
from service.engine.bulk.bulks import Bulks
from service.engine.bulk.carrier import Carrier
from service.engine.clock import StoreClock
from service.engine.control import Control
from service.engine.debugging import Debugging
from service.engine.durations import TEN_YEARS
from service.engine.egress.allowed import Allowed
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.executions import Executions
from service.engine.explaining import Explaining
from service.engine.handlers.processes import allow_processes
from service.engine.handlers.registry import Registry
from service.engine.handlers.threads import threads, watch_threads
from service.engine.ids import uuid7
from service.engine.parsing import Defaults
from service.engine.people.people import People
from service.engine.running.context import RunnerSettings
from service.engine.running.lease_thread import LeaseThread
from service.engine.running.leases import RENEW, LeaseKeeper, process_name
from service.engine.running.loop_watch import LoopWatch
from service.engine.running.runner import Runner
from service.engine.signal_starts import SignalStarts
from service.engine.signalling import Signalling
from service.engine.tasks import TaskRegistry
from service.engine.user_notifications import UserNotifications
from service.engine.watch import Pace, WatchHub
from service.engine.workers.known import KnownHandlers
from service.engine.workers.pool import Workers, WorkerSettings
from service.engine.workers.proof import Proof
from service.engine.workflows import Workflows
from service.mail import mail_server
from service.models import models_of, sessions_of
from service.routes import routes_of
from service.secrets import secrets_of
from service.server import METHODS, Server

log = structlog.get_logger(__name__)

READINESS_INTERVAL = 2.0
"""Seconds between looks at whether the database answers."""


CLOSE_PATIENCE = 2.0
"""Seconds that letting go of the database may take."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What drives executions, over one repository."""

    repository: Repository
    hub: WatchHub
    workflows: Workflows
    clock: StoreClock
    runner: Runner
    executions: Executions
    control: Control
    people: People
    workers: Workers
    carrier: Carrier
    bulks: Bulks
    known_handlers: KnownHandlers


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the engine takes from outside: time, ids, lots and its name. A simulation gives its own."""

    clock: StoreClock = field(default_factory=StoreClock)
    new_id: Callable[[datetime], UUID] = uuid7
    new_incarnation: Callable[[], UUID] = uuid4
    draw: Callable[[], float] = random.random
    name: str = field(default_factory=process_name)


def build_engine(
    config: Config,
    repository: Repository,
    registry: Registry,
    surroundings: Surroundings | None = None,
    hub: WatchHub | None = None,
) -> Engine:
    """Wire the engine; nothing of it runs yet. `hub` is the one that handlers wake watchers by."""
    outside = surroundings or Surroundings()
    hub = hub or WatchHub()
    defaults = Defaults(config.execution_timeout, config.step_timeout, config.max_execution_bytes)
    patience = WorkerSettings(config.worker_heartbeat_timeout, config.cancel_grace + 1.0)
    registry.workers = workers = Workers(patience, outside.clock.now)
    known = KnownHandlers(repository, registry, workers)
    workflows = Workflows(repository, registry, defaults, known)
    settings = RunnerSettings(
        max_running=config.max_running,
        park_after=config.park_after,
        claim_interval=config.claim_interval,
        probation=config.probation,
        cancel_grace=config.cancel_grace,
    )
    runner = Runner(
        repository,
        workflows,
        registry,
        hub,
        encode,
        outside.new_incarnation(),
        settings,
        outside.clock,
        outside.draw,
        outside.name,
        secrets_of(config),
        workers,
    )
    executions = Executions(repository, workflows, runner, _pace(config), outside.new_id, mended)
    control = Control(repository, runner, outside.new_id)
    people = People(repository, runner, _pace(config))
    carrier = Carrier(repository, runner, executions.retries)
    bulks = Bulks(repository, hub, _pace(config), carrier, runner.now, outside.new_id)
    return Engine(
        repository,
        hub,
        workflows,
        outside.clock,
        runner,
        executions,
        control,
        people,
        workers,
        carrier,
        bulks,
        known,
    )


def notifications_of(config: Config, repository: Repository, hub: WatchHub) -> UserNotifications:
    """Return what steps send notifications by, and callers read them by."""
    return UserNotifications(repository, hub, _pace(config))


def _pace(config: Config) -> Pace:
    return Pace(config.watch_poll, config.watch_bookmark)


def guard_of(config: Config) -> Guard:
    """Return what decides where workflows may call. A developer's may call servers on the developer's machine."""
    return Guard(Allowed(config.http_allow), has_loopback=config.is_for_development)


@asynccontextmanager
async def running_engine(
    config: Config, repository: Repository, *, alone: bool, guard: Guard | None = None
) -> AsyncIterator[Engine]:
    """Run the engine inside: lease, claims, clean-up. `alone`: no other process can be using the database."""
    secrets = secrets_of(config)
    egress = Egress(guard or guard_of(config), routes=routes_of(config, secrets))
    channels = Channels(egress.guard, egress.routes)
    sessions = sessions_of(config, secrets, egress.routes)
    models = models_of(config, secrets, egress.routes)
    hub = WatchHub()
    notifications = notifications_of(config, repository, hub)
    registry = Registry.with_builtins(egress, mail_server(config), sessions, models, notifications, secrets)
    registry.register(call_grpc(channels))
    allow_processes(config.handler_processes)
    registry.load(config.handlers)
    registry.load_entry_points()
    if config.is_for_development:
        log.info("for development: workflows may call loopback addresses of this machine", listen=config.listen)
    engine = build_engine(config, repository, registry, hub=hub)
    runner, watch = engine.runner, LoopWatch()
    tasks = TaskRegistry()
    tasks.keep(watch.live, "loop watch")
    tasks.keep(watch_threads, "stuck threads")
    tasks.keep(egress.tend, "idle connections")
    tasks.keep(channels.tend, "idle channels")
    tasks.keep(sessions.tend, "idle MCP sessions")
    tasks.keep(models.egress.tend, "idle connections to models")
    tasks.keep(notifications.tend, "old notifications")
    tasks.keep(engine.workers.keep, "silent workers")
    tasks.keep(lambda: engine.workers.relay.keep(repository, lambda: runner.incarnation), "relayed attempts")
    tasks.keep(engine.known_handlers.keep, "known handlers")
    tasks.keep(engine.carrier.keep, "operations in bulk")
    tasks.keep(engine.carrier.tend, "old operations in bulk")
    tasks.keep(lambda: announce(engine.workers, repository, lambda: runner.incarnation), "announced workers")
    leases: LeaseThread | LeaseKeeper
    if (apart := repository.leases_apart()) is not None:
        leases = LeaseThread(apart, runner.tenure, engine.clock, config.lease_ttl, watch)
        await leases.register(alone=alone)
    else:
        # Nobody is there to take over, so a lease that does not run out; it is renewed for the store's time.
        leases = LeaseKeeper(repository, runner.tenure, engine.clock, TEN_YEARS, renew=RENEW * config.lease_ttl)
        await leases.register(alone=alone)
        runner.tasks.keep(leases.keep, "lease")
        tasks.keep(watch.look_from_a_thread, "loop watch")
    runner.start()
    try:
        yield engine
    finally:
        await runner.stop()
        await registry.close()
        try:
            async with asyncio.timeout(CLOSE_PATIENCE):
                await leases.end()
        except (PersistenceError, TimeoutError) as error:
            log.warning("lease not ended; it runs out by itself", error=str(error))
        await tasks.cancel_all()


@asynccontextmanager
async def running_server(config: Config, repository: Repository, *, alone: bool) -> AsyncIterator[Server]:
    """Serve inside. At the end watchers are ended first, resumable; then calls, executions, connections."""
    check_permissions(METHODS)
    for _, path, is_secret in config.key_files:
        if found := exposure(path, is_secret=is_secret):
            log.warning("exposed file", exposure=found)
    streams = StreamLimits(config.max_streams, config.max_streams_per_org, config.watch_patience)
    limits = Limits(
        Receiving(),
        Admission(config.max_concurrent_rpcs),
        Sending(config.watch_patience),
        Streams(streams),
    )
    guard = guard_of(config)
    async with (
        open_authenticator(config) as authenticator,
        running_engine(config, repository, alone=alone, guard=guard) as engine,
    ):
        engine.runner.turns.is_wanted = lambda: limits.admission.is_at_work
        pipeline = Pipeline(authenticator, limits)
        tokens = PageTokens(await _page_token_key(config, repository))
        workflow_servicer = WorkflowServicer(engine.workflows, engine.executions, repository, tokens)
        signalling = Signalling(repository, engine.workflows, engine.control)
        execution_servicer = ExecutionServicer(
            engine.executions,
            engine.workflows,
            repository,
            tokens,
            config.wait_limit,
            engine.control,
            Debugging(repository, engine.workflows, engine.control, engine.runner.context.registry),
            signalling,
            SignalStarts(repository, engine.workflows, signalling, engine.executions.creations),
            Explaining(repository, engine.workflows, engine.runner),
        )
        notification_servicer = NotificationServicer(notifications_of(config, repository, engine.hub), tokens)
        task_servicer = TaskServicer(engine.people, repository, tokens)
        bulk_servicer = BulkServicer(engine.bulks, repository, tokens)
        engine.workers.proof = Proof(await repository.secret("worker_attempts"))
        worker_servicer = WorkerServicer(
            engine.workers,
            engine.known_handlers,
            repository,
            engine.runner.tasks,
            engine.clock.now,
            engine.runner.name,
            lambda: engine.runner.incarnation,
        )
        server = Server(
            config,
            pipeline,
            [
                lambda target: add_WorkflowServiceServicer_to_server(workflow_servicer, target),
                lambda target: add_ExecutionServiceServicer_to_server(execution_servicer, target),
                lambda target: add_NotificationServiceServicer_to_server(notification_servicer, target),
                lambda target: add_TaskServiceServicer_to_server(task_servicer, target),
                lambda target: add_WorkerServiceServicer_to_server(worker_servicer, target),
                lambda target: add_BulkServiceServicer_to_server(bulk_servicer, target),
            ],
        )
        await server.start()
        guard.keep_off(server.ports)
        readiness = engine.runner.tasks.keep(lambda: _tell_readiness(server, repository), "readiness")
        log.info("serving", target=server.target)
        try:
            yield server
        finally:
            log.info("stopping")
            readiness.cancel()
            server.set_serving(False)
            engine.hub.close()
            engine.workers.drain(config.stop_grace)
            # Others go on with the executions at once, however long the last calls and streams take to end.
            await asyncio.gather(server.stop(config.stop_grace), _hand_over(engine))
            failpoints.hit("drain.after_stop_accept")


async def _hand_over(engine: Engine) -> None:
    """Give back what is driven, then let workers go: until then they hear what has been recorded of their results."""
    await engine.runner.hand_over()
    engine.workers.close()


async def _page_token_key(config: Config, repository: Repository) -> bytes:
    """Return what page tokens are signed with: the setting, or what the store keeps for all of its servers."""
    if config.page_token_secret is None:
        return await repository.secret("page_tokens")
    secret = config.page_token_secret.get_secret_value().encode()
    return hashlib.sha256(b"flowkeep page tokens " + secret).digest()


async def _tell_readiness(server: Server, repository: Repository) -> None:
    """Let health checks know whether the database answers, and whether handlers can begin."""
    while True:
        server.set_threads_free(not threads().are_all_stuck)
        try:
            await repository.ping()
        except PersistenceError as error:
            log.warning("not ready", error=str(error))
            server.set_serving(False)
        else:
            server.set_serving(True)
        await asyncio.sleep(READINESS_INTERVAL)
