"""Whether the world outside saw what the histories allow: I8, ST1, ST3, ST5, ST6."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.checks.violations import ENDS_OF_STEPS, Violation
from tests.faults.harness.records import CALLS, Effect, Event, Record, Row, path_of


def check_tokens(record: Record) -> Iterator[Violation]:
    """ST5: one token for each step of an execution, and no other step has it."""
    tokens: dict[tuple[str, str], set[str]] = defaultdict(set)
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for effect in record.effects:
        tokens[effect.execution_id, effect.step].add(effect.token)
        owners[effect.token].add((effect.execution_id, effect.step))
    for (execution_id, step), found in tokens.items():
        if len(found) > 1:
            yield Violation("ST5", execution_id, f"step {step} used the tokens {sorted(found)}")
    for token, steps in owners.items():
        if len(steps) > 1:
            yield Violation("ST5", token, f"was used by {sorted(steps)}")


def check_at_most_once(record: Record) -> Iterator[Violation]:
    """I8, ST6: a step that must not be repeated was called once at most, and its silence is told."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for effect in record.effects:
        counts[effect.execution_id, effect.step] += 1
    for (execution_id, step), count in counts.items():
        row = record.rows.get(execution_id)
        facts = record.programs.get(row.workflow, {}).get(path_of(step)) if row else None
        if facts is not None and facts.delivery == "AT_MOST_ONCE" and count > 1:
            yield Violation("I8", execution_id, f"step {step} is AT_MOST_ONCE and was called {count} times")


def check_calls(record: Record) -> Iterator[Violation]:
    """ST1, ST3, ST6: each call belongs to a kept start before the step's end, and what completed was called."""
    effects = _by_execution(record)
    for row in record.rows.values():
        made = effects.get(row.execution_id, {})
        facts = record.programs.get(row.workflow, {})
        for path, events in _by_step(row).items():
            starts = {event.attempt: event for event in events if event.kind == "step_started"}
            end = next((event for event in events if event.kind in ENDS_OF_STEPS), None)
            for effect in made.get(path, ()):
                start = starts.get(effect.attempt)
                if start is None:
                    yield Violation(
                        "ST6", row.execution_id, f"step {path}: called by attempt {effect.attempt}, never kept"
                    )
                elif end is not None and start.seq > end.seq:
                    yield Violation(
                        "ST3", row.execution_id, f"step {path}: attempt {effect.attempt} began after its end"
                    )
            is_call = path_of(path) in facts and facts[path_of(path)].handler in CALLS
            is_own = end is not None and end.kind == "step_completed" and not end.inherited
            if is_call and is_own and not made.get(path):
                yield Violation("ST1", row.execution_id, f"step {path} completed, and was never called")
    for execution_id in effects.keys() - record.rows.keys():
        yield Violation("I1", execution_id, "called the world outside, and is not kept")


def _by_execution(record: Record) -> dict[str, dict[str, list[Effect]]]:
    effects: dict[str, dict[str, list[Effect]]] = {}
    for effect in record.effects:
        effects.setdefault(effect.execution_id, {}).setdefault(effect.step, []).append(effect)
    return effects


def _by_step(row: Row) -> dict[str, list[Event]]:
    steps: dict[str, list[Event]] = defaultdict(list)
    for event in row.events:
        if event.path:
            steps[event.path].append(event)
    return steps
