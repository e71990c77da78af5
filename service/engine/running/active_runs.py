"""The executions that this process drives, and the places that they and those to come take."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, KeysView
from contextlib import contextmanager
from itertools import takewhile
from typing import Any
from uuid import UUID

from persistence.journal import MessageKey
from persistence.model import Execution, Mail
from persistence.shares import Shares
from service.engine.held import Held
from service.engine.running.context import Context
from service.engine.running.ownership import Look
from service.engine.running.quarantine import Quarantine
from service.engine.running.run import Run


class ActiveRuns:
    """Runs by the id of their execution. Orgs and owners share the places, as `Shares` says."""

    def __init__(self, context: Context, quarantine: Quarantine, definitions: Held) -> None:
        self._ownership, self._stuck, self._work, self._mail = (
            context.ownership,
            context.stuck,
            context.work,
            context.mail,
        )
        self._max_running = context.settings.max_running
        self._quarantine = quarantine
        self._definitions = definitions
        self._runs: dict[UUID, Run] = {}
        # How many looks are under way, by what had been let go when they began.
        self._looks: Counter[int] = Counter()
        self._count = 0
        # The epoch of each run that was let go since the oldest of them began, and its number; the newest comes last.
        self._let_go: dict[UUID, tuple[int, int]] = {}
        # By how many: what a claim has brought may be taken up at the same time for another reason.
        self._coming: Counter[UUID] = Counter()
        # Of those: the messages that were delivered, and what stands for each that was only heard of.
        self._told: defaultdict[UUID, set[object]] = defaultdict(set)
        self.shares = Shares(self._max_running)
        """How many of the executions that run or are coming each org and owner has."""
        self._claiming = 0
        self.is_short = False
        """Whether there may be executions that the last claim had no place for."""

    def __contains__(self, execution_id: UUID) -> bool:
        return execution_id in self._runs

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def ids(self) -> KeysView[UUID]:
        """The executions that run."""
        return self._runs.keys()

    @property
    def all(self) -> Collection[Run]:
        """The runs."""
        return self._runs.values()

    def get(self, execution_id: UUID) -> Run | None:
        """Return the run of an execution."""
        return self._runs.get(execution_id)

    def deliver(self, mail: Mail) -> int:
        """Give a run its messages, if this process still is the owner that they are for; return how many are new.

        What is coming is told of them.
        """
        run = self._runs.get(mail.execution_id)
        if run is not None and run.execution.epoch == mail.epoch:
            return run.receive(mail.messages)
        if mail.execution_id in self._coming:
            self._told[mail.execution_id].update(message.id for message in mail.messages)
        return 0

    def lacks(self, mail: Mail) -> bool:
        """Whether messages that were sent before these have not come to the run that is to be given them."""
        run = self._runs.get(mail.execution_id)
        return run is not None and run.execution.epoch == mail.epoch and run.lacks(mail)

    @property
    def taken(self) -> set[MessageKey]:
        """The messages that runs have been given and that the store has still."""
        return {(run.id, message_id) for run in self._runs.values() for message_id in run.standing}

    def add(self, run: Run) -> None:
        """Count a run that begins."""
        self._runs[run.id] = run
        self.shares.take(run.execution.org, run.execution.owner)

    def remove(self, run: Run) -> None:
        """Count a run no longer."""
        if self._runs.get(run.id) is run:
            del self._runs[run.id]
            if self._looks:
                self._count += 1
                self._let_go.pop(run.id, None)
                self._let_go[run.id] = run.execution.epoch, self._count
            self.shares.give_back(run.execution.org, run.execution.owner)

    @contextmanager
    def looking(self) -> Iterator[Look]:
        """Give the moment before the store is asked for executions; to be left when what it gave is taken up."""
        look = Look(self._ownership.generation, self._count)
        self._looks[look.let_go] += 1
        try:
            yield look
        finally:
            self._looks[look.let_go] -= 1
            self._looks += Counter()  # without those that are over
            oldest = min(self._looks, default=self._count)
            for each in list(takewhile(lambda each: self._let_go[each][1] <= oldest, self._let_go)):
                del self._let_go[each]

    def was_let_go(self, execution: Execution, look: Look) -> bool:
        """Return whether a run of an execution was let go after a look began, so that what that has read is older.

        The run was of the epoch that was read, or of a later one.
        """
        epoch, number = self._let_go.get(execution.id, (0, 0))
        return number > look.let_go and execution.epoch <= epoch

    def remove_all(self) -> list[Run]:
        """Count none of the runs any longer, and return them."""
        runs = list(self._runs.values())
        for run in runs:
            self.remove(run)
        return runs

    # --- what does not run yet

    @property
    def coming(self) -> KeysView[UUID]:
        """Executions that are being created for this process, that a claim has brought, or that are taken up."""
        return self._coming.keys()

    def announce(self, executions: Iterable[UUID]) -> None:
        """Count executions as coming, until `arrived` says of each that it runs or does not."""
        self._coming.update(executions)

    def arrived(self, execution_id: UUID) -> None:
        """Count an execution as coming no longer; what it was told meanwhile, a sweep delivers."""
        self._coming[execution_id] -= 1
        if self._coming[execution_id] <= 0:
            del self._coming[execution_id]
            if self._told.pop(execution_id, None):
                self._mail.poke()

    def hear(self, executions: Iterable[UUID] | None) -> None:
        """Take note that these executions, or with None any, were sent something, if they are coming."""
        for execution_id in self.coming if executions is None else self.coming & set(executions):
            self._told[execution_id].add(object())

    def told(self, execution_id: UUID) -> int:
        """Return how often an execution was sent something since it is coming, which may not have been read with it.

        A message that is delivered again is not counted again.
        """
        return len(self._told.get(execution_id, ()))

    # --- places

    @property
    def room(self) -> int:
        """How many more executions the process takes."""
        if not self._ownership.may_take or self._quarantine.is_exclusive:
            return 0
        taken = self.shares.held + len(self._stuck) + self._claiming
        return max(0, self._max_running - taken)

    @property
    def full(self) -> Collection[str]:
        """The orgs whose definitions take as much memory as they may."""
        return self._definitions.full

    def has_place(self, org: str, owner: str) -> bool:
        """Whether the process takes one more execution of an owner, rather than leave it to whoever claims it."""
        if self._definitions.is_full(org):
            return False
        return self.room > 0 and self.shares.has_place(org, owner, aside=self._claiming)

    def expect(self, execution: Execution, creation: asyncio.Future[Any]) -> None:
        """Keep a place for an execution that is being created with this process as its owner."""

        def has_come(_: object) -> None:
            self.arrived(execution.id)
            self.shares.give_back(execution.org, execution.owner)

        self.announce([execution.id])
        self.shares.take(execution.org, execution.owner)
        creation.add_done_callback(has_come)

    @contextmanager
    def claiming(self, places: int) -> Iterator[None]:
        """Keep places for what a claim on its way may bring, until `claimed` says how many of them it needs."""
        self._claiming = places
        try:
            yield
        finally:
            self._claiming = 0

    @property
    def is_claiming(self) -> bool:
        """Whether a claim is on its way, or has brought executions that are not driven yet."""
        return self._claiming > 0

    def claimed(self, places: int) -> None:
        """Keep as many places as the claim has executions that are not driven yet."""
        self._claiming = places

    def ended(self) -> None:
        """Take note that an execution has ended: what waited for its place may be claimed."""
        if self.is_short:
            self._work.poke()
