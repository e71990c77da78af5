"""A server of gRPC alone, with our options and nothing else of ours: what a flood costs before it comes to our code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from service.server import OPTIONS
from tests.e2e.process import environment
from tests.hostile.attacker import Attacker
from tests.hostile.polite import Beside, Polite


class Bare:
    """That server as a process, with a polite client of its own."""

    def __init__(self, port: int, attacker: Attacker) -> None:
        self.address = "127.0.0.1", port
        self.polite = Polite(f"127.0.0.1:{port}", "none", attacker)

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Beside]:
        """Have the polite client call while the attack inside goes on; the result is filled in at the end."""
        async with self.polite.beside("gRPC alone") as result:
            yield result


@asynccontextmanager
async def serving_bare(attacker: Attacker) -> AsyncIterator[Bare]:
    """Give such a server."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None and process.stdout is not None
    bare = Bare(int(await process.stdout.readline()), attacker)
    try:
        yield bare
    finally:
        await bare.polite.close()
        process.stdin.close()
        await process.wait()


class _Empty(grpc.GenericRpcHandler):
    """Answers with an empty message whoever shows a token, and refuses all others before their requests have come."""

    def service(self, handler_call_details: Any) -> Any:
        is_known = any(name == "authorization" for name, _ in handler_call_details.invocation_metadata)
        return grpc.stream_unary_rpc_method_handler(_answer if is_known else _refuse)


async def _answer(_: Any, context: Any) -> bytes:
    await context.read()
    return b""


async def _refuse(_: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the call needs a token")


async def _serve() -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((_Empty(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(_serve())
