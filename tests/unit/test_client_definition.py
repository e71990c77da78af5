"""Definitions in their written form: read with every mistake named, written back as the same."""

import pytest

from flowkeep import DefinitionError
from flowkeep.definition import definition, document
from flowkeep.errors import Violation
from flowkeep.reading import read
from flowkeep.v1.workflow_pb2 import ORDERING_GRAPH, Budget, Step

WRITTEN = {
    "name": "onboarding",
    "description": "Welcomes a customer.",
    "ordering": "GRAPH",
    "steps": [
        {
            "id": "fetch",
            "handler": "call_api",
            "params": {"url": "https://example.com/${ input.id }", "retries": 2, "body": {"a": [1, 2.5, None]}},
            "timeout": "1m30s",
            "retry_policy": {
                "max_attempts": 4,
                "initial_interval": "0.5s",
                "backoff_coefficient": 1.5,
                "max_interval": "5m",
                "jitter": 0,
                "non_retryable_codes": ["HTTP_STATUS_4XX"],
            },
            "on_error": "RETRY",
            "assign": {"total": "result.total"},
            "cache": {"key": "input.id", "ttl": "7d"},
        },
        {
            "id": "notify",
            "depends_on": ["fetch"],
            "condition": "vars.total > 3",
            "on_error": "CONTINUE",
            "delivery": "AT_MOST_ONCE",
            "for_each": {
                "items": "input.people",
                "max_parallel": 3,
                "steps": [
                    {"id": "send", "handler": "send_notification", "params": {"to": "${ item }"}, "timeout": "5s"}
                ],
                "ordering": "GRAPH",
                "output": "${ steps.send.output }",
                "on_item_error": "COLLECT",
            },
        },
    ],
    "timeout": "1h",
    "tags": ["crm"],
    "labels": {"team": "growth"},
    "input_schema": {"type": "object"},
    "budgets": [{"resource": "TOKENS", "limit": 100000, "action": "PAUSE"}],
    "output": {"sent": "${ steps.notify.output }"},
}


def wrong(**fields):
    """The violations of a definition with these fields, by path."""
    with pytest.raises(DefinitionError) as caught:
        definition(fields)
    return dict(caught.value.violations)


def test_the_written_form_survives_a_round_trip():
    message = definition(WRITTEN)

    assert document(message) == WRITTEN
    assert definition(document(message)) == message


def test_minus_zero_is_zero_as_the_service_keeps_it():
    def written(zero):
        step = {"id": "a", "handler": "transform", "params": {"value": [zero]}, "retry_policy": {"jitter": zero}}
        return definition({"name": "w", "steps": [step], "output": zero})

    assert written(-0.0) == written(0)


def test_it_becomes_the_message_that_it_describes():
    message = definition(WRITTEN)

    assert message.ordering == ORDERING_GRAPH
    assert message.steps[0].timeout.seconds == 90
    assert message.steps[0].retry_policy.HasField("jitter")
    assert message.steps[1].delivery == Step.DELIVERY_AT_MOST_ONCE
    assert message.budgets[0].resource == Budget.RESOURCE_TOKENS


@pytest.mark.parametrize("name", ["GRAPH", "graph", "Graph", " graph ", "ORDERING_GRAPH", "ordering-graph"])
def test_enums_may_be_short_long_or_in_any_case(name):
    assert definition({"ordering": name}).ordering == ORDERING_GRAPH


@pytest.mark.parametrize(("first", "second"), [("handler", "for_each"), ("for_each", "handler")])
def test_a_step_does_one_thing(first, second):
    given = {"handler": "wait", "for_each": {"items": "input.xs"}}
    step = {"id": "a", first: given[first], second: given[second]}

    assert wrong(steps=[step]) == {f"steps[0].{second}": f"cannot be given with {first}; remove one of them"}


def test_null_means_not_set_except_where_null_is_a_value():
    message = definition({"name": "x", "timeout": None, "steps": None, "output": None})

    assert not message.HasField("timeout")
    assert message.output.HasField("null_value")


def test_an_empty_message_is_kept():
    message = definition({"steps": [{"id": "a", "handler": "b", "retry_policy": {}}]})

    assert message.steps[0].HasField("retry_policy")
    assert document(message)["steps"][0]["retry_policy"] == {}


def test_unknown_fields_name_the_nearest():
    found = wrong(nmae="x", steps=[{"dependsOn": ["a"], "on-error": "STOP", "zzzz": 1}])

    assert found["nmae"] == "is unknown. Did you mean name?"
    assert found["steps[0].dependsOn"] == "is unknown. Did you mean depends_on?"
    assert found['steps[0]["on-error"]'] == "is unknown. Did you mean on_error?"
    assert "There are id, display_name" in found["steps[0].zzzz"]


@pytest.mark.parametrize(
    ("step", "name", "meant"),
    [
        ({"type": "wait"}, "type", "handler"),
        ({"uses": "wait"}, "uses", "handler"),
        ({"parameters": {}}, "parameters", "params"),
        ({"with": {}}, "with", "params"),
        ({"needs": ["a"]}, "needs", "depends_on"),
        ({"dependsOn": ["a"]}, "dependsOn", "depends_on"),
        ({"if": "true"}, "if", "condition"),
        ({"name": "fetch"}, "name", "id"),
        ({"name": "Fetch it"}, "name", "display_name"),
        ({"id": "a", "name": "fetch"}, "name", "display_name"),
        ({"retries": 3}, "retries", "retry_policy: {max_attempts: 3}"),
        ({"max_retries": 3}, "max_retries", "retry_policy: {max_attempts: 3}"),
        ({"retry": {"attempts": 3}}, "retry", "retry_policy"),
        ({"onError": "STOP"}, "onError", "on_error"),
    ],
)
def test_names_of_other_systems_are_understood(step, name, meant):
    assert wrong(steps=[step])[f"steps[0].{name}"] == f"is unknown. Did you mean {meant}?"


def test_steps_by_their_ids_are_told_how_to_be_written():
    found = wrong(steps={"fetch": {"handlr": "wait"}})
    assert found == {
        "steps": "must be a list, in which each step says its id: `- id: fetch`",
        "steps.fetch.handlr": "is unknown. Did you mean handler?",
    }


def test_what_is_in_a_field_of_another_name_is_read_too():
    reading = read({"name": "w", "tasks": [{"id": "a", "type": "wait", "timeout": "5x"}, {"id": 5, "retrys": 1}]})

    assert [(step.id, step.handler) for step in reading.message.steps] == [("a", "wait"), ("5", "")]
    found = [("steps[0].params", "is required"), ("steps[1].id", "is a number"), ("steps[0].timeout", "is negative")]
    assert [field for field, _ in reading.with_found(Violation(*each) for each in found)] == [
        "tasks",
        "tasks[0].type",
        "tasks[0].timeout",
        "tasks[1].id",
        "tasks[1].retrys",
        "tasks[0].params",
    ]


def test_every_mistake_is_told_at_once_with_its_path():
    found = wrong(
        ordering="GRAPHS",
        timeout="300",
        tags="crm",
        labels={"size": 3},
        default_priority=1.5,
        max_concurrent_executions=2**31,
        steps=[
            {"id": 5, "condition": True, "params": ["x"], "retry_policy": {"jitter": "much", "max_interval": -1}},
            "wait",
            {"depends_on": ["a", 1], "params": {"a": {"b": 2**60}, "c": [0, float("nan")], "d": {1: "x"}}},
        ],
    )

    assert found == {
        "ordering": "must be one of SEQUENTIAL, GRAPH, not 'GRAPHS'. Did you mean GRAPH?",
        "timeout": "lacks a unit: write '300s', or the number without quotes for seconds",
        "tags": "must be a list, not 'crm'",
        "labels.size": "must be a string: put 3 in quotes",
        "default_priority": "must be a whole number, not 1.5",
        "max_concurrent_executions": "must be between -2^31 and 2^31-1",
        "steps[0].id": "must be a string: put 5 in quotes",
        "steps[0].condition": "must be a string: put true in quotes",
        "steps[0].params": "must be an object, not a value of type list",
        "steps[0].retry_policy.jitter": "must be a number, not 'much'",
        "steps[0].retry_policy.max_interval": "must be between 0 and 10,000 years",
        "steps[1]": "must be an object with fields, not 'wait'",
        "steps[2].depends_on[1]": "must be a string: put 1 in quotes",
        "steps[2].params.a.b": "must not be beyond 2^53, or digits would be lost: send it as a string",
        "steps[2].params.c[1]": "must be a finite number, not nan",
        'steps[2].params.d["1"]': "keys must be strings: put 1 in quotes",
    }


def test_a_document_that_is_no_object_is_refused():
    with pytest.raises(DefinitionError, match="must be an object with fields, not a list"):
        definition([WRITTEN])  # type: ignore[arg-type]  # what is tested
