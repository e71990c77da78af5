"""TLS: what a server shows, what it asks for, and how a caller hears what is wrong with either."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import flowkeep
from flowkeep.v1.workflow_service_pb2 import ListHandlersRequest
from flowkeep.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from service.server import SERVICES
from tests.folders import new_folder
from tests.integration.certificates import Authority
from tests.integration.stage import refusal

Health = health_pb2.HealthCheckResponse


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_server_with_tls(serve, authority):
    served = await serve(**authority.served())
    async with flowkeep.Client(served.target, tls=grpc.ssl_channel_credentials(authority.file.read_bytes())) as client:
        assert await client.list_handlers()
    for tls in (False, True):
        async with flowkeep.Client(served.target, tls=tls, timeout=1.0) as client:
            with pytest.raises(flowkeep.UnavailableError):
                await client.list_handlers()


async def test_health_can_be_had_without_tls_and_without_anything_else(serve, authority):
    with new_folder() as folder:
        target = f"unix:{folder}/health"
        served = await serve(health_listen=target, **authority.served())
        async with grpc.aio.insecure_channel(target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", *SERVICES):
                assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == Health.SERVING
            states = aiter(health.Watch(health_pb2.HealthCheckRequest()))
            assert (await anext(states)).status == Health.SERVING
            error = await refusal(WorkflowServiceStub(channel).ListHandlers(ListHandlersRequest()))
            assert error.code is grpc.StatusCode.UNIMPLEMENTED
            await served.stop()
            assert (await anext(states)).status == Health.NOT_SERVING
