"""Places where a test has this process crash, stop, wait, or miss an answer (FAULTS T4).

Off unless FLOWKEEP_FAILPOINTS names some when `arm` is called: `flush.before_commit=crash@3; watch.between_pages=raise`
kills the process the third time it is about to commit, and breaks every watch between two pages.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from persistence.errors import PersistenceError, UnavailableError

_log = logging.getLogger(__name__)

SETTING, ENVIRONMENT = "FLOWKEEP_FAILPOINTS", "FLOWKEEP_ENVIRONMENT"
CRASHED = 137
"""Exit code of a process that crashed at a failpoint, as of one that was killed."""


class Place(Enum):
    """What can be done at a failpoint, by what surrounds it."""

    PLAIN = ("crash", "stop", "block")
    ASYNC = (*PLAIN, "sleep", "raise")
    """Awaits, and may fail like any call of the store."""
    FLUSH = (*ASYNC, "unknown")
    """Holds the committer's connection, which can break."""
    COMMITTED = (*PLAIN, "sleep", "unknown")
    """Holds it after the commit, or while what commits is on its way: nothing can be refused any more."""


POINTS: Mapping[str, Place] = {
    "exec.before_tx": Place.ASYNC,
    "exec.after_insert_before_commit": Place.FLUSH,
    "exec.after_commit_before_reply": Place.ASYNC,
    "claim.after_select": Place.ASYNC,
    "claim.after_commit_before_start": Place.ASYNC,
    "renew.before": Place.ASYNC,
    "renew.after_commit_before_local": Place.ASYNC,
    "step.before_started_commit": Place.PLAIN,
    "step.after_started_commit": Place.PLAIN,  # not of what may begin before the commit of its start
    "step.after_call_before_enqueue": Place.ASYNC,
    "step.after_enqueue_before_flush": Place.PLAIN,
    "flush.before_begin": Place.FLUSH,
    "flush.mid_batch": Place.COMMITTED,
    "flush.before_commit": Place.FLUSH,
    "flush.after_commit_before_ack": Place.COMMITTED,
    "flush.after_ack_before_notify": Place.PLAIN,
    "watch.after_listen_before_read": Place.ASYNC,
    "watch.after_read_before_write": Place.ASYNC,
    "watch.between_pages": Place.ASYNC,
    "message.after_commit_before_delivery": Place.ASYNC,
    "fork.before_commit": Place.ASYNC,
    "fork.after_commit_before_reply": Place.ASYNC,
    "retry.before_commit": Place.ASYNC,
    "retry.after_commit_before_claim": Place.ASYNC,
    "bulk.before_step": Place.ASYNC,
    "bulk.after_step_before_delivery": Place.ASYNC,
    "workflow.before_commit": Place.ASYNC,
    "workflow.after_commit_before_delivery": Place.ASYNC,
    "timer.after_due_select": Place.PLAIN,
    "purge.between_batches": Place.ASYNC,
    "drain.after_stop_accept": Place.PLAIN,
    "migrate.mid": Place.ASYNC,
}
_IN_TRANSACTION = ("exec.after_insert_before_commit", "flush.before_commit")


class FailpointError(PersistenceError):
    """Failpoints are asked for where they must not be, or wrongly; the text says what would be right."""


@dataclass
class _Armed:
    """One action at a failpoint; `turn` 0 is every time."""

    name: str
    action: str
    seconds: float
    turn: int
    passed: int = 0

    def is_due(self) -> bool:
        """Count this time; True, and logged, when it is the one."""
        self.passed += 1
        if self.turn not in (0, self.passed):
            return False
        _log.warning("failpoint %s: %s", self.name, self.action)
        return True


_armed: dict[str, list[_Armed]] = {}


def arm(environment: Mapping[str, str]) -> None:
    """Arm what the environment names, in place of what was armed before.

    Raises FailpointError outside of tests, and for what is no failpoint or action.
    """
    _armed.clear()
    text = environment.get(SETTING, "").strip()
    if not text:
        return
    if environment.get(ENVIRONMENT) != "test":
        raise FailpointError(f"{SETTING} makes this program fail on purpose: unset it, or set {ENVIRONMENT}=test")
    found = [_parsed(part.strip()) for part in text.split(";") if part.strip()]
    for each in found:
        _armed.setdefault(each.name, []).append(each)


def hit(name: str) -> None:
    """Pass a failpoint where nothing can be awaited."""
    if _armed:
        for each in _armed.get(name, ()):
            if each.is_due():
                _PLAIN[each.action](each.seconds)


async def reach(name: str) -> None:
    """Pass a failpoint. Raises UnavailableError or ConnectionResetError when that is its action."""
    if _armed:
        for each in _armed.get(name, ()):
            if not each.is_due():
                continue
            if each.action == "sleep":
                await asyncio.sleep(each.seconds)
            else:
                _PLAIN[each.action](each.seconds)


def is_armed(name: str) -> bool:
    """Whether anything is to happen at a failpoint."""
    return name in _armed


def are_in_transaction() -> bool:
    """Whether one is armed that lies between what a flush writes and its commit, which then must be two statements."""
    return any(map(is_armed, _IN_TRANSACTION))


def _crash(_: float) -> NoReturn:
    os._exit(CRASHED)


def _stop(_: float) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _raise(_: float) -> NoReturn:
    raise UnavailableError("a failpoint")


def _lose(_: float) -> NoReturn:
    raise ConnectionResetError("a failpoint: the connection broke, and with it the answer")


_PLAIN: Mapping[str, Callable[[float], None]] = {
    "crash": _crash,
    "stop": _stop,
    "block": time.sleep,
    "raise": _raise,
    "unknown": _lose,
}
_TIMED = ("sleep", "block")


def _parsed(text: str) -> _Armed:
    name, _, what = (part.strip() for part in text.partition("="))
    if name not in POINTS:
        raise FailpointError(f"{SETTING}: there is no failpoint {name!r}; there are {', '.join(POINTS)}")
    what, _, turn = what.partition("@")
    action, _, argument = what.partition(":")
    allowed = POINTS[name].value
    if action not in allowed:
        raise FailpointError(f"{SETTING}: {name} cannot do {action!r}; it can do {', '.join(allowed)}")
    try:
        seconds = float(argument) if action in _TIMED else 0.0
        times = int(turn) if turn else 0
    except ValueError:
        seconds = times = -1
    if seconds < 0 or times < 0 or (argument and action not in _TIMED):
        raise FailpointError(
            f"{SETTING}: {text!r} is not name=action or name=action@k, with sleep:seconds, block:seconds"
        )
    return _Armed(name, action, seconds, times)
