"""Executions that are made from others, without a store."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from msgspec.structs import replace

from persistence.lineage import Lineage
from persistence.model import ExecutionDetail, Step
from service.engine.definition import Definition
from service.engine.planning import happenings
from service.engine.planning.forking import Given, forking
from service.engine.planning.inheriting import Inheritance, inheriting
from service.engine.planning.state import initial, newest
from service.engine.slices import in_one_go
from tests.unit.planner_programs import T0, Driver, Turn

NOTHING = Given()


def inherited(definition: Definition, steps: Mapping[str, Step], start: str, given: Given = NOTHING) -> Inheritance:
    """Return what is inherited."""
    return in_one_go(inheriting(definition, steps, start, given.outputs.keys()))


def forked(
    source: ExecutionDetail, definition: Definition, start: str, given: Given = NOTHING, *, waits_turns: bool = False
) -> Driver:
    """Return the driver of an execution that is made from another one, and has not started."""
    inheritance = inherited(definition, newest(source.steps), start, given)
    assert not inheritance.checks
    driver = Driver(definition, source.input, waits_turns=waits_turns, dry_run=source.dry_run)
    lineage = Lineage(source.execution.id, source.execution.last_seq, start, 1)
    fresh = replace(driver.execution, id=UUID(int=9), last_seq=0, lineage=lineage)
    dry_run = source.dry_run
    driver.initial = initial(fresh, driver.input, dry_run=dry_run)
    driver.execution, plan = in_one_go(forking(definition, fresh, driver.input, "", inheritance, given, dry_run))
    driver.vars = dict(given.vars)
    driver.state = plan.state
    driver.turns.clear()
    driver._store(plan)
    driver.turns.append(Turn(driver.initial, happenings.Accepted(T0, lineage), plan, driver.stored))
    return driver
