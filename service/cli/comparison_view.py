"""Two executions beside each other: what differs first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from rich.console import Group, RenderableType
from rich.text import Text

from flowkeep.definition import short_name
from flowkeep.payload import from_value
from flowkeep.v1.comparison_pb2 import (
    Aspect,
    ComparedStep,
    CompareExecutionsResponse,
    StepComparison,
)
from service.cli.columns import FittingTable, Prose
from service.cli.rendering import clean, duration_seconds, json_text, plain, span_text
from service.cli.tables import state_name, step_state_name, usage_text

_OPERATIONS, _LONGEST_VALUE = 20, 200
_ABSENT = "-"
_SIGNS = {"add": "+", "remove": "-", "replace": "~"}


def comparison_view(found: CompareExecutionsResponse) -> Group:
    """Return a comparison: the executions, the steps with those that differ first, then how the payloads differ."""
    parts: list[RenderableType] = [_whole(found), Text(), _verdict(found)]
    if found.steps:
        parts += [Text(), _steps(sorted(found.steps, key=lambda each: not each.differs_in))]
    changes = [*_changes("", found), *(line for step in found.steps for line in _changes(f"{step.path} ", step))]
    if changes:
        parts += [Text(), *changes]
    return Group(*parts, *_left_out(found))


def _whole(found: CompareExecutionsResponse) -> FittingTable:
    one, other, totals = found.execution, found.other_execution, found.totals
    table = FittingTable("", "EXECUTION", "OTHER")
    rows = [
        ("Id", one.execution_id, other.execution_id),
        ("Dry run", "yes" if one.dry_run else "", "yes" if other.dry_run else ""),
        ("Workflow", f"{one.workflow_name}@{one.revision}", f"{other.workflow_name}@{other.revision}"),
        ("State", state_name(one), state_name(other)),
        ("Failure", one.failure.code, other.failure.code),
        ("Duration", _span(totals, "duration"), _span(totals, "other_duration")),
        ("Attempts", str(totals.attempts), str(totals.other_attempts)),
        ("Used", usage_text(one.usage), usage_text(other.usage)),
    ]
    for name, left, right in rows:
        if left or right:
            table.add_row(plain(name, "dim"), plain(left), plain(right, "" if left == right else "bold"))
    return table


def _verdict(found: CompareExecutionsResponse) -> Prose:
    totals = found.totals
    names = _names(found.differs_in)
    text = plain(f"They differ in {names}; " if names else "They are alike; ", "bold yellow" if names else "green")
    text.append(f"{totals.differing_steps} of {totals.steps} steps differ", "default")
    text.append(f", {totals.missing_steps} only here" if totals.missing_steps else "", "default")
    text.append(f", {totals.added_steps} only there" if totals.added_steps else "", "default")
    return Prose(text.append(".", "default"))


def _steps(steps: Iterable[StepComparison]) -> FittingTable:
    table = FittingTable("STEP", "DIFFERS IN", "STATE", "ATTEMPT", "DURATION", leave_out=("DURATION", "ATTEMPT"))
    for each in steps:
        one = each.step if each.HasField("step") else None
        other = each.other_step if each.HasField("other_step") else None
        table.add_row(
            plain(each.path, "bold" if each.differs_in else "dim"),
            plain(_names(each.differs_in), "yellow"),
            _pair(_state(one), _state(other)),
            _pair(_attempt(one), _attempt(other)),
            _pair(_took(one), _took(other)),
        )
    return table


def _changes(place: str, found: CompareExecutionsResponse | StepComparison) -> list[Text]:
    """Return the patches of an execution or a step, one operation on a line, some of each."""
    lines = []
    for name in ("definition", "input", "output", "variables"):
        if not found.HasField(f"{name}_patch"):  # type: ignore[arg-type]  # the stubs know the names one by one
            continue
        patch = from_value(getattr(found, f"{name}_patch"))
        lines.append(plain(f"{place}{name}:", "bold"))
        lines += [_operation(each) for each in patch[:_OPERATIONS]]
        if more := len(patch) - _OPERATIONS:
            lines += [plain(f"  and {more} more: --output json shows them", "dim")] if more > 0 else []
    return lines


def _operation(operation: dict[str, Any]) -> Text:
    value = json_text(operation["value"], indent=None) if "value" in operation else ""
    shown = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"
    text = f"  {_SIGNS.get(operation['op'], '?')} {clean(operation['path']) or 'all'}"
    return plain(f"{text}: {shown}" if value else text)


def _left_out(found: CompareExecutionsResponse) -> list[RenderableType]:
    notes = {
        "Steps beyond the first 1,000 are not compared.": found.steps_omitted,
        "Definitions and inputs of steps are compared for callers with the permission workflows.read only.": (
            found.definition_withheld
        ),
        "Some patches are left out, as they are too many.": found.patches_omitted
        or any(each.patches_omitted for each in found.steps),
        "Payloads of some steps are not compared, as they are too large.": any(
            each.payloads_omitted for each in found.steps
        ),
        f"Unreadable: {clean(', '.join(found.unreadable))}": bool(found.unreadable),
    }
    return [Prose(Text(note, "dim")) for note, is_so in notes.items() if is_so]


def _names(aspects: Iterable[Aspect.ValueType]) -> str:
    return ", ".join(short_name(Aspect.DESCRIPTOR, each).lower() for each in aspects)


def _pair(one: str, other: str) -> Text:
    return plain(one) if one == other else plain(f"{one} → {other}")


def _state(step: ComparedStep | None) -> str:
    return step_state_name(step.state) if step else _ABSENT


def _attempt(step: ComparedStep | None) -> str:
    return str(step.attempt or _ABSENT) if step else _ABSENT


def _took(step: ComparedStep | None) -> str:
    return span_text(duration_seconds(step.duration)) if step and step.HasField("duration") else _ABSENT


def _span(totals: Any, name: str) -> str:
    span: Duration = getattr(totals, name)
    return span_text(duration_seconds(span)) if totals.HasField(name) else ""
