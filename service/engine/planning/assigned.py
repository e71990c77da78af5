"""The variables of an execution: what its steps have assigned, and what somebody has set since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persistence.model import EditedVariable, ExecutionDetail
from service.engine.slices import Work, parts


def gathering_variables(detail: ExecutionDetail) -> Work[dict[str, Any]]:
    """Return the variables, each as the last step that ended has assigned it, or as somebody has set it since.

    Those that the execution was given when it was made come after what it inherited then.
    """
    lineage = detail.execution.lineage
    begin = lineage.inherited if lineage is not None else 0
    first: dict[str, int] = dict.fromkeys(detail.vars, begin)
    last: dict[str, tuple[int, Any]] = {name: (begin, value) for name, value in detail.vars.items()}
    for name, each in detail.edited.items():
        first[name] = min(first.get(name, each.first_seq), each.first_seq)
        last[name] = each.seq, each.value
    for part in parts(detail.steps):
        for step in part:
            if step.end_seq is None:
                continue
            for name, value in (step.assigned or {}).items():
                first[name] = min(first.get(name, step.end_seq), step.end_seq)
                if name not in last or last[name][0] <= step.end_seq:
                    last[name] = step.end_seq, value
        yield len(part)
    return {name: last[name][1] for name in sorted(last, key=first.__getitem__)}


def edited(before: Mapping[str, EditedVariable], given: Mapping[str, Any], seq: int) -> dict[str, EditedVariable]:
    """Return the variables that somebody has set, after somebody has set these by the event `seq`."""
    first = {name: before[name].first_seq if name in before else seq for name in given}
    return {**before, **{name: EditedVariable(value, seq, first[name]) for name, value in given.items()}}
