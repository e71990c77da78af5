"""Reads one step of a workflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from service.engine.definition import LEAST_PAUSE, Action, Call, Delivery, OnError, Ordering, RetryPolicy, StepSpec
from service.engine.durations import TEN_YEARS, YEAR
from service.engine.expressions import Expression
from service.engine.handlers.registry import Catalog
from service.engine.parsing.fields import Fields, repeated
from service.engine.parsing.params import NOTHING
from service.engine.parsing.selectors import read_selector
from service.engine.parsing.sources import IN_ASSIGN, LONGEST, OF_ENGINE_STEP, Sources
from service.engine.slices import Work
from service.engine.wishes import WorkerSelector

ID = r"[A-Za-z_][A-Za-z0-9_]*"
ID_WORDS = "letters, digits and _, and begin with a letter or _"
RETRY_ATTEMPTS = 3
MAX_STEPS = 500


@dataclass(frozen=True, slots=True)
class StepReader:
    """Reads steps of one workflow. What is wrong goes to the findings of the fields; the step then has defaults.

    No ordering: it is not known. `worker` is for steps that do not say it themselves. `misnamed` are the ids that are
    none; to name them elsewhere is no other fault.
    """

    ordering: Ordering | None
    catalog: Catalog | None
    timeout: float
    sources: Sources
    worker: WorkerSelector | None = None
    misnamed: set[str] = field(default_factory=set)

    @property
    def least_pause(self) -> float:
        """The least pause between attempts that is taken; what was kept before there was one is lifted later."""
        return LEAST_PAUSE if self.catalog is not None else 0.0

    def step_id(self, fields: Fields) -> str:
        """Return the id of the step that the fields describe, empty when it is wrong."""
        step_id = fields.text("id", 64, ID, ID_WORDS, required=True)
        if not step_id and isinstance(given := fields.raw("id"), str):
            self.misnamed.add(given)
        return step_id

    def read(self, fields: Fields, step_id: str, action: Action | None) -> Work[StepSpec]:
        """Return the step that the fields describe, and that does this; None if that is not known."""
        fields.not_implemented("quality_gate", "compensation", "cache")
        on_error = fields.choice("on_error", OnError, OnError.STOP)
        step = StepSpec(
            id=step_id,
            action=action or Call("", NOTHING),
            timeout=fields.seconds("timeout", TEN_YEARS) or self.timeout,
            display_name=fields.text("display_name", 256),
            depends_on=self._depends_on(fields, step_id),
            condition=(yield from self._condition(fields, step_id)),
            retry=_retry(fields, on_error, self.least_pause),
            on_error=on_error,
            assign=(yield from self._assign(fields, step_id, action)),
            delivery=_delivery(fields, on_error),
            total_timeout=fields.seconds("total_timeout", TEN_YEARS),
            worker=read_selector(fields, self.worker),
        )
        fields.close()
        yield 50 + 2 * len(step.depends_on)
        return step

    def _depends_on(self, fields: Fields, step_id: str) -> tuple[str, ...]:
        names = fields.texts("depends_on", MAX_STEPS, 64)
        if names and self.ordering is Ordering.SEQUENTIAL:
            fields.wrong("depends_on", "has no effect with the ordering SEQUENTIAL; set ordering to GRAPH or remove it")
            return ()
        for name in repeated(names):
            fields.wrong("depends_on", f'names "{name}" more than once')
        if step_id and step_id in names:
            fields.wrong("depends_on", f'names the step itself, "{step_id}"; remove it')
        return names

    def _condition(self, fields: Fields, step_id: str) -> Work[Expression | None]:
        source = fields.text("condition", LONGEST)
        return (yield from self.sources.condition(source, fields.at("condition"), step_id)) if source else None

    def _assign(self, fields: Fields, step_id: str, action: Action | None) -> Work[tuple[tuple[str, Expression], ...]]:
        assigned = []
        names = IN_ASSIGN if action is None or isinstance(action, Call) else OF_ENGINE_STEP
        sources = fields.mapping("assign", 64)
        each = Fields(sources, fields.at("assign"), fields.findings)
        for name, source in sources.items():
            if not _is_id(name):
                each.wrong(name, f"is no name of a variable; it must have {ID_WORDS}, at most 64 characters")
            elif each.is_text(each.at(name), source, LONGEST, shortest=1):
                expression = yield from self.sources.value(source, each.at(name), step_id, names)
                if expression is not None:
                    assigned.append((name, expression))
        return tuple(assigned)


def _is_id(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= 64


def _retry(fields: Fields, on_error: OnError, least_pause: float) -> RetryPolicy:
    policy = fields.mapping("retry_policy")
    if not fields.has("retry_policy"):
        return RetryPolicy(max_attempts=RETRY_ATTEMPTS if on_error is OnError.RETRY else 1)
    return _retry_policy(Fields(policy, fields.at("retry_policy"), fields.findings), least_pause)


def _retry_policy(fields: Fields, least_pause: float) -> RetryPolicy:
    default = RetryPolicy()
    policy = RetryPolicy(
        max_attempts=fields.whole("max_attempts", 1, 1000) or RETRY_ATTEMPTS,
        initial_interval=fields.seconds("initial_interval", YEAR, least_pause) or default.initial_interval,
        backoff_coefficient=fields.number("backoff_coefficient", 1, 100, 0.0) or default.backoff_coefficient,
        max_interval=fields.seconds("max_interval", YEAR, least_pause) or default.max_interval,
        jitter=fields.number("jitter", 0, 1, default.jitter),
        non_retryable_codes=frozenset(fields.texts("non_retryable_codes", 64, 128)),
    )
    is_known = not (fields.is_wrong("initial_interval") or fields.is_wrong("max_interval"))
    if is_known and policy.initial_interval > policy.max_interval:
        longest = f"{policy.max_interval:g} s" + ("" if fields.has("max_interval") else ", the default")
        fields.wrong(
            "initial_interval", f"is {policy.initial_interval:g} s, longer than max_interval ({longest}); raise that"
        )
    fields.close()
    return policy


def _delivery(fields: Fields, on_error: OnError) -> Delivery:
    delivery = fields.choice("delivery", Delivery, Delivery.AT_LEAST_ONCE)
    if delivery is Delivery.AT_MOST_ONCE:
        if fields.has("retry_policy"):
            fields.wrong("retry_policy", "cannot be given with AT_MOST_ONCE, which has one attempt; remove one of them")
        if on_error is OnError.RETRY:
            fields.wrong("on_error", "cannot be RETRY with AT_MOST_ONCE, which has one attempt; use STOP or CONTINUE")
    return delivery
