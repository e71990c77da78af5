"""The two services of the example: `python clients/examples/order/services.py`.

They serve at 127.0.0.1:7001 and 7002, or at the two addresses that are given. It takes grpcio-tools and
grpcio-reflection.
"""

import asyncio
import sys

import grpc
from grpc_reflection.v1alpha import reflection

shop, services = grpc.protos_and_services("shop.proto")  # of the folder that this file lies in

ORDERS = {
    "o-17": shop.Order(
        id="o-17",
        customer="Ann",
        address="Main Street 1",
        lines=[
            shop.Line(item="lamp", count=1, price=4900, grams=1800),
            shop.Line(item="book", count=10, price=1200, grams=400),
        ],
    )
}


class Orders(services.OrdersServicer):
    """Knows one order."""

    async def GetOrder(self, request, context):
        if request.id not in ORDERS:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no order {request.id}")
        return ORDERS[request.id]


class Payments(services.PaymentsServicer):
    """Charges once for each key."""

    def __init__(self):
        self._receipts = {}

    async def Charge(self, request, context):
        key = dict(context.invocation_metadata())["idempotency-key"]
        if key not in self._receipts:
            self._receipts[key] = shop.Receipt(id=f"r-{len(self._receipts) + 1}")
            print(f"{request.customer} paid {request.cents / 100:.2f}", flush=True)
        return self._receipts[key]


async def serve(name, add, servicer, address):
    """Serve one of the two, which tells by reflection what it takes."""
    server = grpc.aio.server()
    add(servicer, server)
    reflection.enable_server_reflection([f"shop.v1.{name}", reflection.SERVICE_NAME], server)
    host, _, _ = address.rpartition(":")
    port = server.add_insecure_port(address)
    await server.start()
    print(f"{name} at {host}:{port}", flush=True)
    await server.wait_for_termination()


async def main(orders="127.0.0.1:7001", payments="127.0.0.1:7002"):
    await asyncio.gather(
        serve("Orders", services.add_OrdersServicer_to_server, Orders(), orders),
        serve("Payments", services.add_PaymentsServicer_to_server, Payments(), payments),
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
