"""What a definition says of the workers that may run its steps."""

from __future__ import annotations

from typing import Any

import pytest

from service.engine.handlers.model import Handler
from service.engine.handlers.registry import Registry
from service.engine.parsing import parse
from service.engine.wishes import Ramp, WorkerSelector
from tests.unit.documents import CATALOG, DEFAULTS, workflow, wrong


def _queued(wishes: Any) -> Any:
    raise AssertionError("nothing runs here")


WITH_WORKERS = Registry((*CATALOG.all(), Handler("draw", queue_up=_queued)))
EU = {"labels": {"region": "eu"}, "versions": ["2.*"]}


def draw(step_id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "handler": "draw", **fields}


def test_a_step_says_which_workers_may_run_it():
    given = {**EU, "ramp": {"versions": ["3.0", "3.1.*"], "percent": 10}}
    (step,) = parse(workflow(draw(worker=given)), WITH_WORKERS, DEFAULTS).root.steps
    assert step.worker == WorkerSelector({"region": "eu"}, ("2.*",), Ramp(("3.0", "3.1.*"), 10))


def test_a_workflow_says_it_for_all_steps_that_do_not_say_it_themselves():
    body = {"id": "each", "for_each": {"items": "[1]", "steps": [draw("inner")]}}
    steps = draw(), draw("b", worker={}), draw("c", worker={"versions": ["1.0"]}), body
    definition = parse(workflow(*steps, worker=EU), WITH_WORKERS, DEFAULTS)
    eu = WorkerSelector({"region": "eu"}, ("2.*",))
    said = {place: step.worker for place, step in definition.places.items() if place != "each"}
    assert said == {"a": eu, "b": WorkerSelector(), "c": WorkerSelector({}, ("1.0",)), "each.inner": eu}


def test_what_is_not_said_is_not_wished():
    (step,) = parse(workflow(draw()), WITH_WORKERS, DEFAULTS).root.steps
    assert step.worker is None


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ("eu", "worker", "must be an object, not a string"),
        ({"label": {}}, "worker.label", "is unknown; did you mean"),
        ({"labels": ["eu"]}, "worker.labels", "must be an object, not a list"),
        ({"labels": {"region": 1}}, "worker.labels.region", "must be a string, not a number"),
        ({"labels": {"region": "x" * 129}}, "worker.labels.region", "at most 128"),
        ({"labels": {"": "eu"}}, "worker.labels, key ''", "must not be empty"),
        ({"labels": {"k" * 65: "eu"}}, f"worker.labels, key {'k' * 32!r}", "at most 64"),
        ({"labels": {f"k{n}": "" for n in range(9)}}, "worker.labels", "at most 8 are allowed"),
        ({"versions": "2.*"}, "worker.versions", "must be a list, not a string"),
        ({"versions": [2]}, "worker.versions[0]", "must be a string, not a number"),
        ({"versions": [""]}, "worker.versions[0]", "must not be empty"),
        ({"versions": [f"{n}" for n in range(9)]}, "worker.versions", "at most 8 are allowed"),
        ({"versions": ["*"]}, "worker.versions", 'has "*", which must be a version such as 2.1.3, or 2.*'),
        ({"versions": ["2*"]}, "worker.versions", "no other *"),
        ({"versions": ["2.*.1"]}, "worker.versions", "no other *"),
        ({"versions": [">= 2"]}, "worker.versions", "no space"),
        ({"versions": ["1", "1"]}, "worker.versions", 'has "1" more than once'),
        ({"ramp": {"versions": ["2"], "percent": 5}}, "worker.versions", "is required with ramp"),
        ({"versions": ["1"], "ramp": {"percent": 5}}, "worker.ramp.versions", "is required: the versions that a share"),
        ({"versions": ["1"], "ramp": {"versions": ["2"]}}, "worker.ramp.percent", "is required: how many of a hundred"),
        ({"versions": ["1"], "ramp": {"versions": ["2"], "percent": 101}}, "worker.ramp.percent", "between 0 and 100"),
        ({"versions": ["1"], "ramp": {"versions": ["2"], "percent": 1.5}}, "worker.ramp.percent", "whole number"),
        ({"versions": ["1"], "ramp": {"versions": ["2"], "percent": 5, "x": 1}}, "worker.ramp.x", "is unknown"),
    ],
)
def test_what_is_wrong_is_said_of_its_field(given: Any, field: str, said: str):
    for document, prefix in ((workflow(draw(worker=given)), "steps[0]."), (workflow(draw(), worker=given), "")):
        ((found, description),) = wrong(document, WITH_WORKERS)
        assert found == prefix + field
        assert said in description


def test_a_ramp_may_be_at_rest():
    given = {"versions": ["1"], "ramp": {"versions": ["2"], "percent": 0}}
    (step,) = parse(workflow(draw(worker=given)), WITH_WORKERS, DEFAULTS).root.steps
    assert step.worker is not None and step.worker.ramp == Ramp(("2",), 0)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"id": "a", "handler": "transform", "params": {"value": 1}}, "has no effect on transform, which the server"),
        (
            {"id": "a", "handler": "call_api", "params": {"url": "https://x.org"}},
            "has no effect on call_api, which the",
        ),
        (
            {"id": "a", "for_each": {"items": "[1]", "steps": [draw()]}},
            "has no effect on for_each; give it to the steps",
        ),
    ],
)
def test_what_no_worker_runs_cannot_choose_one(step: dict[str, Any], said: str):
    ((field, description),) = wrong(workflow({**step, "worker": EU}), WITH_WORKERS)
    assert field == "steps[0].worker"
    assert description.startswith(said)
    assert not wrong(workflow(step, worker=EU), WITH_WORKERS)


def test_tools_of_an_agent_are_run_by_workers_as_the_workflow_says():
    tool = {"name": "sketch", "description": "Draws.", "handler": "draw"}
    ask = {
        "id": "a",
        "handler": "ask_model",
        "params": {"endpoint": "lab", "model": "m", "prompt": "Draw.", "tools": [tool]},
    }
    definition = parse(workflow(ask, worker=EU), WITH_WORKERS, DEFAULTS)
    assert definition.places["a.calls.sketch"].worker == WorkerSelector({"region": "eu"}, ("2.*",))
    ((field, description),) = wrong(workflow({**ask, "worker": EU}), WITH_WORKERS)
    assert (field, description) == (
        "steps[0].worker",
        "has no effect on ask_model, which the server runs itself; remove it",
    )
