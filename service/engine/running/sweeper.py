"""Finds what this process owns and does not drive, and messages that it has not heard of."""

from __future__ import annotations

from uuid import UUID

import structlog

from persistence.errors import PersistenceError
from persistence.journal import MAIL_AT_ONCE, MessageKey
from service.engine.running.active_runs import ActiveRuns
from service.engine.running.context import Context
from service.engine.running.driver import Driver

log = structlog.get_logger(__name__)

SWEEP_INTERVAL = 0.8
"""Seconds between sweeps at most, so that a message is heeded within one also without a hint (CONTRACT CA4)."""


class Sweeper:
    """Asks the store again and again what it knows of this process; `mail` of the context wakes it between."""

    def __init__(self, context: Context, runs: ActiveRuns, driver: Driver) -> None:
        self._context = context
        self._runs = runs
        self._driver = driver
        # Owned but not driven at the last sweep.
        self._missed: set[UUID] = set()

    async def keep(self) -> None:
        """Sweep until cancelled."""
        while True:
            mail = self._context.mail
            was_told = await mail.wait(min(self._context.interval(), SWEEP_INTERVAL))
            told_since = mail.since()
            try:
                found = await self.sweep()
                if found and not was_told:
                    self._context.finds.note("messages", found, told_since)
            except PersistenceError as error:
                log.warning("sweep failed", error=str(error))

    async def sweep(self) -> int:
        """Deliver the messages that came by another process, and take up what this one owns without driving it.

        Returns how many messages there were.
        """
        runs, ownership, journal = self._runs, self._context.ownership, self._context.journal
        delivered = await self._deliver()
        undriven = set(await journal.undriven(ownership.incarnation, list(runs.ids)))
        missed = undriven - runs.ids - self._driver.recovery.under_way - runs.coming
        # Missed once may mean that its creation is just being answered; or a claim, which says of all that it brings.
        is_coming = runs.is_claiming
        for execution_id in sorted(missed & self._missed):
            if ownership.may_take:
                self._context.finds.note("executions that were not driven", 1, lambda: is_coming)
                self._driver.recovery.look_for(execution_id)
        self._missed = missed
        return delivered

    async def _deliver(self) -> int:
        """Give the runs their messages, page by page: a single one is not to wait until very many are seen."""
        given: set[MessageKey] = set()  # also to what does not run here, and would come again and again
        delivered, is_page_full = 0, True
        while is_page_full:
            page = await self._context.journal.deliver(self._context.ownership.incarnation, self._runs.taken | given)
            delivered += sum([self._runs.deliver(mail) for mail in page])
            if any(mail.execution_id not in self._runs for mail in page):
                self._context.work.poke()  # what nobody drove was woken by its messages
            given.update((mail.execution_id, message.id) for mail in page for message in mail.messages)
            is_page_full = sum(len(mail.messages) for mail in page) >= MAIL_AT_ONCE
        return delivered
