"""FAULTS H5: calls that no client of gRPC makes, and floods of frames, beside a polite client."""

import gzip
from typing import Any

from tests.hostile import floods
from tests.hostile.attacked import MIB, Attacked, token
from tests.hostile.bare_server import Bare
from tests.hostile.cases import Case, each
from tests.hostile.http2 import call, connection, message, request_headers

LIST = "/flowkeep.v1.WorkflowService/ListHandlers"
EXECUTE = "/flowkeep.v1.ExecutionService/Execute"
MOST = 256 * MIB
"""Bytes by which a server may grow under a flood: gRPC keeps up to 20,000 calls that it has not handed over yet, at
some 7 KiB each, however long the flood takes. Of frames of no known type, 16 KiB each, it keeps what it has read and
not looked at yet: a server of gRPC alone grows by 50 to 130 MiB, with two connections as with twenty, and no more in a
second flood; nothing of it is ours, and all of it comes back."""
LEFT = 100 * MIB
"""Bytes of these that gRPC may give back by and by."""


def bomb() -> bytes:
    """What gzip makes 60 MiB of."""
    return gzip.compress(bytes(60 * MIB))


def one(path: str = LIST, *more: tuple[str, Any], body: bytes = message(b"")) -> tuple[str, Any, bytes]:
    return path, more, body


CALLS = [
    Case("as it should be", one(), "0"),
    Case("an unknown encoding", one(LIST, ("grpc-encoding", "br"), body=message(b"abc", 1)), "13"),
    Case("compressed without an encoding", one(body=message(b"abc", 1)), "13"),
    Case("gzip that is none", one(LIST, ("grpc-encoding", "gzip"), body=message(b"abc", 1)), "13"),
    Case("gzip", one(LIST, ("grpc-encoding", "gzip"), body=message(gzip.compress(b""), 1)), "0"),
    Case("a gzip bomb", one(EXECUTE, ("grpc-encoding", "gzip"), body=message(bomb(), 1)), "8"),
    Case("metadata of 4 KiB", one(LIST, ("x-pad", "x" * 4_000)), "0"),
    Case("metadata of 8 KiB", one(LIST, ("x-pad", "x" * 7_000)), "0"),
    Case("metadata of 9 KiB", one(LIST, ("x-pad", "x" * 9_000)), "0"),
    Case("metadata of 16 KiB", one(LIST, ("x-pad", "x" * 16_400)), "8"),
    Case("metadata of 32 KiB", one(LIST, ("x-pad", "x" * 32_000)), "8"),
    Case("metadata of 64 KiB", one(LIST, *((f"x-pad-{n}", "x" * 8_000) for n in range(8))), "8"),
    Case("1,000 headers", one(LIST, *((f"x-{n}", "") for n in range(1_000))), "8"),
    Case("binary metadata that is none", one(LIST, ("x-pad-bin", "!!")), "13"),
    Case("odd bytes in metadata", one(LIST, ("x-pad", b"\xff\x01")), "0"),
    Case("an unknown method", one("/flowkeep.v1.WorkflowService/Drop"), "12"),
    Case("an unknown service", one("/flowkeep.v9.WorkflowService/ListHandlers"), "12"),
    Case("a path that is none", one("*"), "12"),
    Case("a path with odd bytes", one("/\x01%00/../.."), "12"),
    Case("a path of 8,000 characters", one("/" + "a" * 8_000), "12"),
    Case("another content type", one(LIST, ("content-type", "text/html")), "0"),
    Case("GET", one(LIST, (":method", "GET")), "RST_STREAM 2"),
    Case("no message", one(body=b""), "3"),
    Case("two messages", one(body=message(b"") * 2), "0"),
    Case("a message that is cut", one(body=message(b"", length=10)), "3"),
    Case("a message of 4 GiB", one(body=message(b"", length=2**32 - 1)), "8"),
    Case("an odd flag", one(body=message(b"", 7)), "0"),
    Case("a deadline that is none", one(LIST, ("grpc-timeout", "soon")), "13"),
    Case("a deadline in the past", one(LIST, ("grpc-timeout", "0n")), "4"),
    Case("a deadline of 2,000 years", one(LIST, ("grpc-timeout", "99999999H")), "0"),
]


async def test_calls_that_no_client_makes(attacked: Attacked):
    for case in CALLS:
        path, more, body = case.given
        async with attacked.case(case.name), connection(attacked.address) as connected:
            await connected.acknowledge()
            headers = request_headers(path, token(), more)
            await connected.send(*call(connected, headers, body))
            assert (case.name, await connected.outcome()) == (case.name, case.right)


MEASURED = "gRPC alone is measured, too"
FLOODS = [
    Case("rapid resets", (floods.resets, 5), MEASURED),
    Case("streams of which nothing follows", (floods.opened, 5), MEASURED),
    Case("headers without end", (floods.endless_headers, 5), None),
    Case("pings", (floods.pings, 5), None),
    Case("settings", (floods.settings, 5), None),
    Case("empty data", (floods.empty_data, 5), MEASURED),
    Case("window updates", (floods.windows, 5), None),
    Case("priorities", (floods.priorities, 5), None),
    Case("frames of no known type", (floods.unknown_frames, 5), MEASURED),
    Case("headers byte by byte", (floods.slow_headers, 100), None),
]


@each(FLOODS)
async def test_others_are_served_beside_a_flood(attacked: Attacked, bare: Bare, case: Case):
    send, connections = case.given
    attacked.may_grow = LEFT
    async with attacked.beside(case.name):
        closed = await attacked.attacker.run(
            floods.frames, attacked.address, send, connections, request_headers(LIST, token())
        )
    told = await attacked.told()
    attacked.figures.append(f"{connections} connections, closed {closed} times")
    if case.right is MEASURED:
        async with bare.beside() as seen:
            await attacked.attacker.run(floods.frames, bare.address, send, connections, request_headers(LIST, ""))
        attacked.figures.append(seen.as_bare)
    assert told["grown"] < MOST
