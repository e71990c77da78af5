"""What holds of every execution, whatever has happened to it."""

from __future__ import annotations

from msgspec.structs import replace

from service.api.event_reading import decode
from service.api.events import encode
from service.engine.planning import events
from service.engine.planning.folding import Folding
from tests.unit.planner_programs import Driver, check_stored


def check(driver: Driver) -> None:
    """What is stored gives the state again, and the events what is stored."""
    check_stored(driver)
    folding = Folding(driver.definition, driver.execution, driver.input)
    for event in driver.events:
        stored = decode(encode(event))
        assert stored is not None
        folding.take(stored)
    told = folding.detail
    assert told.edited == driver.state.edited
    assert list(told.steps) == sorted(driver.rows.values(), key=lambda row: row.key)
    kept = replace(driver.execution, bytes=0, ending=None, wake_time=None)
    assert replace(told.execution, bytes=0) == kept
    assert {body.dry_run for body in driver.bodies if isinstance(body, events.Created)} <= {driver.dry_run is not None}
