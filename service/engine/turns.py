"""Shares the turns of the event loop among the executions: so much work in one turn, the rest in the next ones.

What is done in a turn is known by its estimate, not by the clock. Each org has its turn, and each workflow of it, and
one that has little to do does not queue up behind those that have much. After a turn all others have the loop for as
long as the turn took, if anybody has use for it: a call goes back and forth to the database a few times, and would wait
for a turn each time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import structlog

from persistence.model import Execution
from service.engine.expressions import Allowance

log = structlog.get_logger(__name__)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_Answer = TypeVar("_Answer")

PER_TURN = 500_000
"""Work of one turn, in the units of `expressions/cost.py`: 4 ms. The last in a turn may be a whole allowance more."""

SMALL = 20_000
"""Work that an ordinary application of the planner is, with its transition. Only what is more is counted."""

SECONDS = 8e-9
"""Seconds that a unit of work takes."""

BRIEF, LONGEST_PAUSE = 0.001, 0.05
"""Seconds of a turn after which nobody is owed a pause, and of the pause that is owed to others at most."""

_Act = Callable[[], None]


class Turns:
    """The turns of one event loop."""

    def __init__(self, is_wanted: Callable[[], bool] = lambda: False) -> None:
        self.is_wanted = is_wanted
        """Whether there is somebody beside the executions who has use for the loop."""
        self._left = PER_TURN
        # By org, then by workflow; who has had a turn goes to the end.
        self._waiting: dict[str, dict[UUID, deque[_Act]]] = {}
        self._is_awake = False
        # Seconds that others are owed for what was done since they had the loop.
        self._owed = 0.0
        # Workflows that have done much since the loop was last at rest.
        self._heavy: set[UUID] = set()
        self._may_pass = True

    def is_open(self, workflow_id: UUID) -> bool:
        """Whether a workflow may do more in this turn.

        Others pass by those that wait for theirs, until in this round of the loop one turns out to be as heavy.
        """
        if self._left > 0 and not self._waiting:
            return True
        return self._may_pass and workflow_id not in self._heavy

    def spend(self, workflow_id: UUID, work: int) -> None:
        """Count work that was done in this turn."""
        if work > SMALL:
            self._left -= work
            self._owed += work * SECONDS
            self._heavy.add(workflow_id)
            if self._may_pass:
                self._may_pass = False
                asyncio.get_running_loop().call_soon(self._let_pass)
            self._wake()

    def share(self, execution: Execution) -> Share:
        """Return the share of an execution."""
        return Share(self, execution.org, execution.workflow_id)

    def put_off(self, org: str, workflow_id: UUID, act: _Act) -> None:
        """Call `act`, which raises nothing, in one of the next turns, in the context of the caller."""
        inside = copy_context()
        of_org = self._waiting.setdefault(org, {})
        of_org.setdefault(workflow_id, deque()).append(lambda: inside.run(act))
        self._wake()

    def _let_pass(self) -> None:
        self._may_pass = True

    def _wake(self) -> None:
        """Begin the next turn as soon as what is ready now is done."""
        if not self._is_awake:
            self._is_awake = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Begin a turn, unless others are owed the loop for the last one: then when they have had it."""
        if self._owed > BRIEF and (self._waiting or self.is_wanted()):
            asyncio.get_running_loop().call_later(min(self._owed, LONGEST_PAUSE), self._renew)
            self._owed = 0.0
            return
        self._owed = 0.0
        self._left = min(PER_TURN, max(0, self._left + PER_TURN))
        self._take_turn()
        if self._waiting or self._left < PER_TURN or self._owed > BRIEF:
            asyncio.get_running_loop().call_soon(self._renew)
        else:
            self._is_awake = False
            self._heavy.clear()

    def _take_turn(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while self._left > 0 and self._waiting:
            self._left -= SMALL
            try:
                self._next()()
            except Exception as error:  # of ours; the others go on
                log.error("task failed", task="turn", exc_info=error)
        # What is too little to be counted takes its time, too.
        self._owed = max(self._owed, loop.time() - begun)

    def _next(self) -> _Act:
        org, of_org = _first(self._waiting)
        workflow_id, acts = _first(of_org)
        act = acts.popleft()
        if acts:
            of_org[workflow_id] = acts
        if of_org:
            self._waiting[org] = of_org
        return act


@dataclass(frozen=True, slots=True)
class Share:
    """The share that the executions of one workflow have in the turns of the loop."""

    turns: Turns
    org: str
    workflow_id: UUID

    @property
    def is_open(self) -> bool:
        """Whether more may be done in this turn."""
        return self.turns.is_open(self.workflow_id)

    def spend(self, work: int) -> None:
        """Count work that was done in this turn."""
        self.turns.spend(self.workflow_id, work)

    def put_off(self, act: _Act) -> None:
        """Call `act`, which raises nothing, in one of the next turns."""
        self.turns.put_off(self.org, self.workflow_id, act)

    async def take(self, act: Callable[[], _Answer]) -> _Answer:
        """Return what `act` gives, called now or in one of the next turns; it counts its own work."""
        if self.is_open:
            return act()
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()

        def settle() -> None:
            if future.done():  # nobody waits for it any more
                return
            try:
                future.set_result(act())
            except Exception as error:
                future.set_exception(error)

        self.put_off(settle)
        return await future


SHARE: ContextVar[Share] = ContextVar("share")
"""The share of the attempt that runs."""


async def in_turn(act: Callable[[Allowance], _Answer]) -> _Answer:
    """Return what `act` gives, called in a turn of the attempt that runs; the work of its allowance is counted."""
    share = SHARE.get(None)
    if share is None:
        return act(Allowance())

    def counted() -> _Answer:
        allowance = Allowance()
        try:
            return act(allowance)
        finally:
            share.spend(allowance.spent)

    return await share.take(counted)


def _first(waiting: dict[_Key, _Value]) -> tuple[_Key, _Value]:
    key = next(iter(waiting))
    return key, waiting.pop(key)
