"""Callers whose tokens are odd down to their bytes, against a server that is a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from flowkeep import Client
from tests.e2e.process import ServerProcess, copy_data
from tests.patience import PATIENCE
from tests.tokens import claims, jwks, signed

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _HEADERS, _DATA, _RST_STREAM, _GOAWAY = 4, 1, 0, 3, 7
_END_STREAM, _END_HEADERS = 1, 4


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _header(name: bytes, value: bytes) -> bytes:
    """A header as HPACK has it literally, without any table."""
    assert len(name) < 127 and len(value) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


async def send(socket: str, authorization: bytes) -> None:
    """Call ListHandlers with these bytes as metadata, and return when the call has been answered."""
    reader, writer = await asyncio.open_unix_connection(socket)
    headers = b"".join(
        _header(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/flowkeep.v1.WorkflowService/ListHandlers"),
            (b":authority", b"flowkeep"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"authorization", authorization),
        )
    )
    call = _frame(_HEADERS, _END_HEADERS, 1, headers) + _frame(_DATA, _END_STREAM, 1, bytes(5))
    writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + call)
    kind, flags, stream = _SETTINGS, 0, 0
    while not (stream == 1 and (flags & _END_STREAM or kind == _RST_STREAM)):
        head = await asyncio.wait_for(reader.readexactly(9), PATIENCE)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        assert kind != _GOAWAY
    writer.close()
    await writer.wait_closed()


async def test_no_part_of_a_token_is_logged_whatever_its_bytes(prepared: Path, folder: Path) -> None:
    (folder / "jwks.json").write_text(jwks())
    server = ServerProcess(folder, settings={"FLOWKEEP_JWT_JWKS": str(folder / "jwks.json")})
    await copy_data(prepared, server.data_dir)
    await server.start()
    odd = (
        b"Bearer geheim\xff",
        b"Bearer geheim\n",
        b"Bearer geheim\0.a.b",
        b"geheim",
        b"Basic geheim",
        b"Bearer \xc3\xa9geheim",
    )
    for authorization in odd:
        await send(server.target.removeprefix("unix:"), authorization)
    async with Client(server.target, token=signed(claims(permissions=["workflows.read"]))) as client:
        assert await client.list_handlers()
    await server.close()
    assert server.log.count("token refused") == len(odd)
    assert "geheim" not in server.log
    assert not server.complaints
