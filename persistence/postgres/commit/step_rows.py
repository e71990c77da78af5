"""Steps and events as rows of a batch; what of them is large is kept beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from persistence.errors import PersistenceError
from persistence.model import UNREAD, Event, Step
from persistence.postgres.commit import columns
from persistence.postgres.commit.encoding import in_utc
from persistence.postgres.commit.sharing import Payloads
from persistence.postgres.layout import layout
from persistence.transition import check_events


def step_rows(org: str, execution_id: UUID, steps: Sequence[Step], payloads: Payloads) -> list[bytes]:
    """Return the rows of steps. Raises PersistenceError where one is there twice, or cannot be kept."""
    if len(steps) > 1 and len({step.key for step in steps}) != len(steps):
        raise PersistenceError("refused: a transition holds a step once")
    return [_step_row(org, execution_id, step, payloads) for step in steps]


def _step_row(org: str, execution_id: UUID, step: Step, payloads: Payloads) -> bytes:
    shared: dict[str, Any] = {}
    given, output, assigned, wait = step.input, step.output, step.assigned, step.wait
    if given is UNREAD:
        shared["input"] = True
        given = None
    if wait is not None:
        in_utc(wait.start_time)
        in_utc(wait.wake_time)
    return columns.STEP.encode(
        step,
        org_id=org,
        execution_id=execution_id,
        input=None if given is None else payloads.kept(given, "input", shared),
        output=None if output is None else payloads.kept(output, "output", shared),
        assigned=None if assigned is None else payloads.kept(assigned, "assigned", shared),
        # That of the first attempt is the one of the step.
        attempt_time=None if step.attempt_time == step.start_time else in_utc(step.attempt_time),
        wait=wait,
        # As Postgres reads an array.
        items=f"{{{','.join(map(str, step.items))}}}" if step.items else None,
        shared=shared or None,
    )


def history_rows(
    org: str, execution_id: UUID, base_seq: int, events: Sequence[Event], payloads: Payloads
) -> list[bytes]:
    """Return the row of events that are written at once; none without any."""
    check_events(events, base_seq)
    if not events:
        return []
    bodies, references = [], []
    for event in events:
        body, reference = payloads.body(event)
        bodies.append(body)
        if reference is not None:
            references.append({"seq": event.seq, **reference})
    row = columns.HISTORY.encode(
        events[-1],
        org_id=org,
        execution_id=execution_id,
        layout=layout(events, map(len, bodies)),
        body=b"".join(bodies),
        shared=references or None,
    )
    return [row]
