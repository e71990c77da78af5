"""The example of two gRPC services: `flowkeep run` calls both of them."""

from __future__ import annotations

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tests.e2e.process import flowkeep
from tests.folders import ROOT
from tests.integration.callee import V1, serving, serving_orders

EXAMPLE = ROOT / "clients" / "examples" / "grpc_services.yaml"
Health = health_pb2.HealthCheckResponse


async def test_order_of_a_healthy_shop() -> None:
    async with serving_orders(V1) as orders, serving() as (target, server):
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection(["grpc.health.v1.Health"], server)
        places = (f"health=http://{target}", f"orders=http://{orders.target}", "order=o-17")
        command = ("run", str(EXAMPLE), *(word for place in places for word in ("--set", place)), "-o", "json")

        await servicer.set("shop", Health.SERVING)
        outcome = await flowkeep(*command)
        assert outcome.code == 0, outcome
        result = outcome.json_lines[-1]["finished"]["result"]
        assert result == {"is_serving": True, "order": "o-17", "changes": ["0", "1"]}
        assert [each.metadata["x-flowkeep-attempt"] for each in orders.calls] == ["1", "1"]
        assert len({each.metadata["idempotency-key"] for each in orders.calls}) == 2
        assert orders.calls[0].metadata["x-tenant"] == "acme"

        orders.calls.clear()
        await servicer.set("shop", Health.NOT_SERVING)
        outcome = await flowkeep(*command)
        assert outcome.code == 0, outcome
        assert outcome.json_lines[-1]["finished"]["result"] == {"is_serving": False, "order": "", "changes": []}
        assert not orders.calls
