"""A way through a proxy to an address, by CONNECT: what the proxy is told is what was looked at before."""

from __future__ import annotations

import re
from base64 import b64encode

import httpcore2

from service.engine.egress.named import Proxy
from service.engine.egress.stream import Stream

LARGEST_HEAD = 16 << 10
"""Bytes of the answer of a proxy."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r|\n)")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class ProxyError(OSError):
    """A proxy does not lead to an address. `is_final`: nor would it to another one of the same host."""

    def __init__(self, name: str, text: str, *, is_final: bool = False) -> None:
        super().__init__(f"the proxy {name!r} {text}")
        self.is_final = is_final


async def dig(stream: Stream, proxy: Proxy, address: str, port: int) -> None:
    """Have a proxy lead its stream to an address; from then on its bytes are those of the other side.

    Raises ProxyError.
    """
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}", "User-Agent: flowkeep"]
    if proxy.username:
        credentials = b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    try:
        await stream.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        status = await _answered(stream, proxy.name)
    except httpcore2.NetworkError:
        raise ProxyError(proxy.name, "broke off before its answer") from None
    if not 200 <= status < 300:
        raise ProxyError(proxy.name, f"answered {status} to CONNECT", is_final=status < 500)


async def _answered(stream: Stream, name: str) -> int:
    head = b""
    while (end := _END_OF_HEAD.search(head)) is None:
        piece = await stream.read(4096)
        head += piece
        if not piece or len(head) > LARGEST_HEAD:
            raise ProxyError(name, "broke off before its answer" if not piece else "answered with too large a head")
    found = _STATUS.match(head)
    if found is None or not 200 <= int(found[1]) < 600:
        raise ProxyError(name, "answered what is no HTTP")
    # The other side speaks when it is spoken to: bytes that are there already are nobody's answer.
    if 200 <= int(found[1]) < 300 and head[end.end() :]:
        raise ProxyError(name, "sent more than its answer")
    return int(found[1])
