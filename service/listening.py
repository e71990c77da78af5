"""Where a server listens: every address that the name of a host stands for, or a unix socket."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from service.addresses import LONGEST_SOCKET_PATH, is_unix, socket_address, socket_path
from service.config import ConfigError

_TRIES = 20
"""Ports that are tried for one that is free on every address."""


def addresses(setting: str, listen: str, *, shared: bool) -> Sequence[str]:
    """Return the addresses that gRPC has to listen on to serve a setting's; all have one port.

    Of a name, gRPC would be content with any address that is free, while others have the rest of them. `shared`: other
    processes of ours listen there too. Raises ConfigError, which names the setting, when one of them is taken.
    """
    if is_unix(listen):
        path = socket_path(listen)
        _check_socket(setting, listen, path)
        return [socket_address(path)]
    if shared:  # it is held for us
        return [_written(each) for each in _resolved(setting, listen) if _has(each)]
    with _held(setting, listen) as held:
        found = [(each.family, *each.getsockname()) for each in held]
    if len(found) == 1:  # any port is best chosen when it is taken
        return [_written((*found[0][:2], listen.rpartition(":")[2]))]
    return [_written(each) for each in found]


@contextmanager
def reserved(listeners: Sequence[tuple[str, str]]) -> Iterator[Mapping[str, str]]:
    """Hold the addresses of settings for processes that share them, and give them with their ports.

    Nothing is accepted here: the kernel spreads connections over those that listen. Raises ConfigError if one is taken.
    """
    with ExitStack() as stack:
        targets = {}
        for setting, listen in listeners:
            held = stack.enter_context(_held(setting, listen))
            for each in held:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            targets[setting] = f"{listen.rpartition(':')[0]}:{held[0].getsockname()[1]}"
        yield targets


@contextmanager
def _held(setting: str, listen: str) -> Iterator[list[socket.socket]]:
    """Give sockets bound to each address of a name that this machine has, on one port."""
    held: list[socket.socket] = []
    try:
        for tried in range(_TRIES):
            try:
                _hold_all(setting, listen, held)
                break
            except _TakenError as error:
                # What was free on one address need not be on another.
                if not (held and listen.endswith(":0")) or tried == _TRIES - 1:
                    raise ConfigError(str(error)) from None
                while held:
                    held.pop().close()
        if not held:
            raise ConfigError(f"{setting}={listen}: this machine has no such address")
        yield held
    finally:
        for each in held:
            each.close()


class _TakenError(Exception):
    """Somebody else has the address."""


def _has(found: tuple[Any, ...]) -> bool:
    """Whether this machine has an address."""
    family, host, _, *rest = found
    try:
        with socket.socket(family) as probe:
            probe.bind((host, 0, *rest))
    except OSError:
        return False
    return True


def _hold_all(setting: str, listen: str, held: list[socket.socket]) -> None:
    for family, host, port, *rest in _resolved(setting, listen):
        where = (host, held[0].getsockname()[1] if held else port, *rest)
        if (holder := _holder(setting, listen, family, where)) is not None:
            held.append(holder)


def _holder(setting: str, listen: str, family: int, address: tuple[Any, ...]) -> socket.socket | None:
    """Return a socket bound to the address, None where this machine has no such address."""
    holder: socket.socket | None = None
    try:
        holder = socket.socket(family)
        # Taken as by a server that shares nothing, so that others of the same user are found out too.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(address)
    except OSError as error:
        if holder is not None:
            holder.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return None
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"{setting}={listen}: cannot listen there: {error.strerror}") from None
        also = "" if listen.rpartition(":")[0].strip("[]") == address[0] else f", {_written((family, *address))}"
        raise _TakenError(f"{setting}={listen}: cannot listen there{also}; is another server using it?") from None
    return holder


def _resolved(setting: str, listen: str) -> list[tuple[Any, ...]]:
    """Return family, address and port of each place that a host's name stands for."""
    host, _, port = listen.rpartition(":")
    # To gRPC's clients localhost is both, whatever /etc/hosts says.
    hosts = ("127.0.0.1", "::1") if host.lower() == "localhost" else (host.strip("[]"),)
    try:
        found = [place for each in hosts for place in socket.getaddrinfo(each, int(port), type=socket.SOCK_STREAM)]
    except OSError as error:
        raise ConfigError(f"{setting}={listen}: {error.strerror or error}") from None
    return list(dict.fromkeys((family, *address) for family, _, _, _, address in found))


def _written(found: tuple[Any, ...]) -> str:
    family, host, port = found[:3]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def _check_socket(setting: str, listen: str, path: str) -> None:
    size = len(os.fsencode(path))
    if size > LONGEST_SOCKET_PATH:
        raise ConfigError(f"{setting}={listen}: the path has {size} bytes; a unix socket takes {LONGEST_SOCKET_PATH}")
    folder = Path(path).parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise ConfigError(f"{setting}={listen}: {folder} is no folder that this process may write to")
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return
    if not is_socket:
        raise ConfigError(f"{setting}={listen}: there is something that is no socket")
    if _answers(path):
        # gRPC would take the path over, and leave the other server running where nobody finds it.
        raise ConfigError(f"{setting}={listen}: another server is using it")


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
