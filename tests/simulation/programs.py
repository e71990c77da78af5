"""Random scenarios: workflows, orders, and what goes wrong meanwhile. The same seed gives the same one."""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec.structs import replace

from tests.simulation.editing import READ, VARIABLE
from tests.simulation.scenario import (
    BulkSpec,
    Fault,
    ForkSpec,
    HaltSpec,
    OrderSpec,
    Request,
    RetrySpec,
    Scenario,
    SignalStartSpec,
    Spec,
)
from tests.simulation.signalling import NAME

ORGS = ("acme", "globex", "initech")
SPAN = 10.0
"""Seconds in which requests come and faults begin."""

_KINDS = (
    *("crash", "crash", "freeze", "freeze", "stop", "cut", "cut", "outage", "pulse"),
    *("crash at write", "crash at write", "crash at claim", "freeze at write", "freeze at claim"),
)


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    random, answers = Random(f"scenario {seed}"), Random(f"scenario {seed} answers")
    effects, people = Random(f"scenario {seed} effects"), Random(f"scenario {seed} people")
    replicas = random.choice((2, 2, 3, 3, 4))
    workflows = [Spec(random.choice(ORGS), _document(random, n)) for n in range(random.randint(1, 3))]
    for step in (step for spec in workflows for step in spec.document["steps"]):
        if step["handler"] == "effect" and effects.random() < 0.4:
            step["handler"] = "pure"
        elif step["handler"] == "wait" and people.random() < 0.6:
            step |= {"handler": "create_task", "params": _task(people)}
    orders = [_order(random, people, len(workflows)) for _ in range(random.randint(2, 6))]
    _let_wait_for_signals(workflows, Random(f"scenario {seed} signals"))
    orders = [_held(Random(f"scenario {seed} pause {number}"), order) for number, order in enumerate(orders)]
    orders = [_debugged(Random(f"scenario {seed} debug {number}"), order) for number, order in enumerate(orders)]
    orders = [_signalled(Random(f"scenario {seed} signals {number}"), order) for number, order in enumerate(orders)]
    orders = [_gone_on(Random(f"scenario {seed} retries {number}"), order) for number, order in enumerate(orders)]
    orders = [_dry(Random(f"scenario {seed} dry {number}"), order) for number, order in enumerate(orders)]
    orders = [_edited(Random(f"scenario {seed} edits {number}"), order) for number, order in enumerate(orders)]
    _let_read_a_variable(workflows, Random(f"scenario {seed} variables"))
    ttl = random.choice((2.0, 2.0, 3.0))
    return Scenario(
        seed=seed,
        replicas=replicas,
        workflows=workflows,
        orders=orders,
        requests=[request for number in range(len(orders)) for request in _requests(random, number, replicas)],
        faults=_faults(random, replicas, ttl),
        skews=[random.choice((0.0, 0.0, 5.0, -5.0, 300.0, -300.0)) for _ in range(replicas)],
        busy_rate=random.choice((0.0, 0.01, 0.05)),
        lost_rate=random.choice((0.0, 0.01, 0.05, 0.2)),
        late_rate=random.choice((0.0, 0.0, 0.05)),
        slowness=random.choice((1.0, 1.0, 1.0, 30.0)),
        ttl=ttl,
        held_rate=answers.choice((0.0, 0.0, 0.05, 0.2)),
        unknown_timeout=answers.choice((2.0, 2.0, 60.0)),
        max_running=random.choice((2_000, 2_000, 2)),
        bulks=_bulks(Random(f"scenario {seed} bulks"), workflows),
        halts=_halts(Random(f"scenario {seed} halts"), len(workflows)),
        signal_starts=_signal_starts(Random(f"scenario {seed} signal starts"), workflows),
    )


def _requests(random: Random, number: int, replicas: int) -> list[Request]:
    time = round(random.uniform(0.0, SPAN * 0.7), 3)
    requests = [Request(time, random.randrange(replicas), number)]
    if random.random() < 0.3:
        later = round(time + random.choice((0.0, 0.001, 1.0, 5.0)), 3)
        requests.append(Request(later, random.randrange(replicas), number))
    if random.random() < 0.05:
        requests.append(Request(round(time + 1.0, 3), random.randrange(replicas), number, is_changed=True))
    return requests


def _order(random: Random, people: Random, workflows: int) -> OrderSpec:
    return OrderSpec(
        workflow=random.randrange(workflows),
        input={"n": random.randint(0, 9)},
        start_delay=random.choice((0.0,) * 6 + (0.5, 4.0)),
        timeout=random.choice((None,) * 6 + (3.0,)),
        priority=random.choice((None, None, 5)),
        cancel_at=round(random.uniform(0.0, 4.0), 3) if random.random() < 0.4 else None,
        watchers=random.choice((0, 1, 1, 2)),
        answered_after=people.choice((None, 0.0, 0.3, 1.0, 3.0, 3.0)),
    )


def _let_wait_for_signals(workflows: list[Spec], random: Random) -> None:
    for step in (step for spec in workflows for step in spec.document["steps"]):
        if step["handler"] == "wait" and random.random() < 0.6:
            params = {"name": NAME, "timeout": random.choice((0.3, 1.0, 4.0)), "on_timeout": "CONTINUE"}
            step |= {"handler": "wait_signal", "params": params}


def _signalled(random: Random, order: OrderSpec) -> OrderSpec:
    """Return an order that somebody may send signals."""
    times = [round(random.uniform(0.0, 2.0), 3) for _ in range(random.choice((0, 0, 1, 2, 3)))]
    return replace(order, signals=times)


def _held(random: Random, order: OrderSpec) -> OrderSpec:
    """Return an order that somebody may pause for a while."""
    if random.random() > 0.4:
        return order
    begin, span = round(random.uniform(0.0, 3.0), 3), random.choice((0.0, 0.3, 1.0, 3.0, 6.0, 6.0))
    return replace(order, paused_at=begin, paused_for=span, is_hard=random.random() < 0.4)


def _debugged(random: Random, order: OrderSpec) -> OrderSpec:
    """Return an order that somebody may debug, unless it is paused."""
    if order.paused_at is not None or random.random() > 0.3:
        return order
    return replace(order, debugged=[random.choice((0.0, 0.3, 1.0, 3.0)) for _ in range(random.randint(1, 4))])


def _edited(random: Random, order: OrderSpec) -> OrderSpec:
    """Return an order of which somebody who debugs it edits inputs, variables, or both."""
    edits_inputs, edits_variables = random.choice(((True, False), (True, True), (False, True)))
    return replace(order, edits_inputs=edits_inputs, edits_variables=edits_variables)


def _let_read_a_variable(workflows: list[Spec], random: Random) -> None:
    for spec in workflows:
        first, *others = spec.document["steps"]
        if "params" not in first or first["handler"] not in ("effect", "pure") or random.random() < 0.4:
            continue
        first["assign"] = {**first.get("assign", {}), VARIABLE: "1"}
        for step in others:
            if step["handler"] in ("effect", "pure") and random.random() < 0.6:
                step["params"] = {**step["params"], "value": READ}


def _signal_starts(random: Random, workflows: list[Spec]) -> list[SignalStartSpec]:
    """Return signals of which several are for the same at once; nothing is started that takes processes down."""
    made = list[SignalStartSpec]()
    for group in range(random.choice((0, 0, 1, 2))):
        number, time = random.randrange(len(workflows)), random.uniform(0.0, SPAN * 0.7)
        if any(step["params"].get("kills") for step in workflows[number].document["steps"]):
            continue
        for _ in range(random.randint(1, 4)):
            made.append(SignalStartSpec(round(time, 3), number, group, {"n": random.randint(0, 9)}))
            time += random.choice((0.0, 0.0, 0.001, 0.3, 3.0))
    return made


def _gone_on(random: Random, order: OrderSpec) -> OrderSpec:
    """Return an order that somebody may retry and fork."""
    retries, forks = list[RetrySpec](), list[ForkSpec]()
    if random.random() < 0.4:
        changes = ("", "", "edit", "skip")
        for _ in range(random.randint(1, 2)):
            retries.append(RetrySpec(random.choice((0.0, 0.5, 2.0)), random.choice(changes)))
    if random.random() < 0.3:
        for _ in range(random.randint(1, 2)):
            at, step = round(random.uniform(0.0, SPAN), 3), random.choice((-1, 0, 1, 2, 3))
            forks.append(ForkSpec(at, step, random.random() < 0.3, random.random() < 0.3))
    return replace(order, retries=retries, forks=forks)


def _bulks(random: Random, workflows: list[Spec]) -> list[BulkSpec]:
    """Return what somebody does to all executions of an org; nothing is retried that takes processes down."""
    actions = ["CANCEL", "PAUSE", "PAUSE", "TERMINATE"]
    if not any(step["params"].get("kills") for spec in workflows for step in spec.document["steps"]):
        actions += ["RETRY", "RETRY"]
    bulks = list[BulkSpec]()
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        action, org = random.choice(actions), random.choice(workflows).org
        time = random.uniform(SPAN / 2, 2 * SPAN) if action == "RETRY" else random.uniform(0.5, SPAN)
        limit, rate, stopped = random.choice((0, 0, 2)), random.choice((0, 0, 1)), random.choice((None,) * 3 + (0.2,))
        bulks.append(BulkSpec(round(time, 3), org, action, limit, rate, stopped))
    return bulks


def _halts(random: Random, workflows: int) -> list[HaltSpec]:
    """Return which workflows somebody pauses."""
    paused = [number for number in range(workflows) if random.random() < 0.4]
    spans = (0.0, 0.5, 3.0, 6.0)
    return [
        HaltSpec(round(random.uniform(0.0, 0.7 * SPAN), 3), each, random.choice(spans), random.random() < 0.5)
        for each in paused
    ]


def _dry(random: Random, order: OrderSpec) -> OrderSpec:
    """Return an order that may be a dry run."""
    if random.random() > 0.2:
        return order
    return replace(order, mocks_fail=random.choice((0, 0, 1, 2)), skips_waits=random.random() < 0.5)


def _faults(random: Random, replicas: int, ttl: float) -> list[Fault]:
    faults = []
    for _ in range(random.choice((1, 2, 3, 4, 4, 10))):
        kind = random.choice(_KINDS)
        duration = {
            "crash": random.choice((0.01, 0.5, 2 * ttl)),
            "freeze": random.uniform(1.0, 2.5) * ttl,
            "pulse": random.uniform(0.1, 0.45) * ttl,
            "stop": random.choice((0.01, 0.5, 2 * ttl)),
            "cut": random.uniform(0.2, 3.0) * ttl,
            "outage": random.uniform(0.1, 2.0) * ttl,
        }[kind.split()[0]]
        replica = -1 if kind == "outage" else random.randrange(replicas)
        faults.append(Fault(round(random.uniform(0.2, SPAN), 3), kind, replica, round(duration, 3)))
    return sorted(faults, key=lambda fault: fault.time)


def _document(random: Random, number: int) -> dict[str, Any]:
    is_graph = random.random() < 0.5
    ids = [f"s{n}" for n in range(random.randint(1, 5))]
    steps = [_step(random, step_id, ids[:index], is_graph) for index, step_id in enumerate(ids)]
    document: dict[str, Any] = {"name": f"flow{number}", "steps": steps, "timeout": 30}
    if is_graph:
        document["ordering"] = "GRAPH"
    if random.random() < 0.3:
        document["output"] = {"vars": "${ vars }"}
    return document


def _step(random: Random, step_id: str, before: list[str], is_graph: bool) -> dict[str, Any]:
    step: dict[str, Any] = {"id": step_id}
    if is_graph and before:
        step["depends_on"] = sorted(random.sample(before, random.randint(0, min(2, len(before)))))
    seen = step.get("depends_on", []) if is_graph else before
    if seen and random.random() < 0.2:
        step["condition"] = random.choice((f'steps.{seen[-1]}.state == "COMPLETED"', "input.n > 4", "false"))
    if random.random() < 0.25:
        step |= {"handler": "wait", "params": {"duration": random.choice((0.3, 1.0, 2.5, 4.0))}}
        return step
    step |= {"handler": "effect", "params": _effect(random)}
    if random.random() < 0.3:
        step["timeout"] = 1
    if random.random() < 0.3:
        step["on_error"] = "CONTINUE"
    if random.random() < 0.2:
        step["delivery"] = "AT_MOST_ONCE"
    elif random.random() < 0.6:
        step["retry_policy"] = {
            "max_attempts": random.choice((2, 3, 5)),
            "initial_interval": random.choice((0.1, 0.5, 3)),
            "backoff_coefficient": 2,
            "max_interval": 4,
            "jitter": 0,
        }
    if random.random() < 0.3:
        step["assign"] = {f"x_{step_id}": "result.value"}
    return step


def _task(people: Random) -> dict[str, Any]:
    params: dict[str, Any] = {"title": "Go on?", "outcomes": ["yes", "no"]}
    if people.random() < 0.5:
        params |= {"due_in": people.choice((0.3, 1.0, 4.0)), "overdue": {"outcome": "no"}}
    return params


def _effect(random: Random) -> dict[str, Any]:
    params: dict[str, Any] = {"takes": random.choice((0.0, 0.01, 0.1, 0.5, 0.5, 1.5, 4.0))}
    if random.random() < 0.3:
        params["fails"] = random.choice((1, 1, 2, 9))
    if random.random() < 0.05:
        params["fatal"] = True
    if random.random() < 0.1:
        params["stubborn"] = random.choice((0.2, 2.0))
    if random.random() < 0.15:
        params["reports"] = 3
    if random.random() < 0.01:
        params["kills"] = True
    if random.random() < 0.3:
        params["value"] = "${ input.n }"
    return params
