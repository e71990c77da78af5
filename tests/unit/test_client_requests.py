"""Requests from plain Python: what an argument may be, and what is said of one that it may not be."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from flowkeep.client import Client
from flowkeep.requests import execute_request, list_request
from flowkeep.times import to_datetime

ID = UUID("01930000-0000-7000-8000-000000000000")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tags": "abc"}, r"tags must be a list of strings, not one string: write \['abc'\]"),
        ({"tags": {"a": "b"}}, "tags must be a list of strings, not a value of type dict"),
        ({"tags": ["a", 1]}, r"tags\[1\] must be a string, not a value of type int"),
        ({"tags": 7}, "tags must be a list of strings, not a value of type int"),
        ({"labels": "a=b"}, "labels must be a mapping of strings to strings, not a value of type str"),
        ({"labels": [("a", "b")]}, "labels must be a mapping"),
        ({"labels": {"a": 1}}, r"labels\['a'\] must be a string, not a value of type int"),
        ({"labels": {1: "a"}}, "a key of labels must be a string"),
        ({"priority": "3"}, "priority must be a whole number, not a value of type str"),
        ({"priority": True}, "priority must be a whole number, not a value of type bool"),
        ({"revision": 1.5}, "revision must be a whole number, not a value of type float"),
        ({"wait": "no"}, "wait must be True or False, not a value of type str"),
        ({"correlation_id": 17}, "correlation_id must be a string, not a value of type int"),
        ({"request_id": 17}, "request_id must be a string, not a value of type int"),
    ],
)
def test_an_argument_of_another_type_is_named(options, said):
    with pytest.raises(TypeError, match=said):
        execute_request("w", **options)


@pytest.mark.parametrize("options", [{"at_seq": "3"}, {"view": "FULL"}])
async def test_a_number_of_another_type_is_named(options):
    with pytest.raises(TypeError, match="must be a whole number, not a value of type str"):
        await Client().get_execution(str(ID), **options)


@pytest.mark.parametrize("workflow", [None, 7, b"w", {"name": "w"}])
def test_a_workflow_is_named_by_text(workflow):
    with pytest.raises(TypeError, match="workflow must be a string"):
        execute_request(workflow)


@pytest.mark.parametrize(
    ("option", "span", "said"),
    [("timeout", "10", "timeout lacks a unit"), ("start_delay", -1, "start_delay must be between 0")],
)
def test_a_span_that_is_none_is_named(option, span, said):
    with pytest.raises(ValueError, match=said):
        execute_request("w", **{option: span})


@pytest.mark.parametrize("options", [{"priority": 2**31}, {"revision": -(10**30)}])
def test_a_number_that_no_field_can_hold_is_named(options):
    with pytest.raises(ValueError, match=r"(priority|revision) must be between -2147483647 and 2147483647"):
        execute_request("w", **options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"target": 50051}, "target must be a string, not a value of type int"),
        ({"target": None}, "target must be a string, not None"),
        ({"token": b"abc"}, "token must be a string, not a value of type bytes"),
        ({"token": 0}, "token must be a string, not a value of type int"),
        ({"tls": "no"}, "tls must be True or False, not a value of type str"),
        ({"tls": None}, "tls must be True or False, not None"),
    ],
)
def test_a_connection_that_is_of_another_type_is_refused_where_it_is_given(arguments, said):
    with pytest.raises(TypeError, match=said):
        Client(**arguments)


@pytest.mark.parametrize("definitions", [None, 7, "hello.yaml", b"{}"])
async def test_what_is_applied_are_definitions(definitions):
    with pytest.raises(TypeError, match="definitions must be one or several definitions, not "):
        await Client().apply(definitions)


def test_any_module_of_the_client_may_be_the_first_to_be_imported():
    each_alone = """
        import importlib, pkgutil, sys, flowkeep
        for name in [module.name for module in pkgutil.iter_modules(flowkeep.__path__, "flowkeep.")]:
            for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "flowkeep"]:
                if not loaded.startswith("flowkeep.v1"):  # protobuf registers what is generated only once
                    del sys.modules[loaded]
            importlib.import_module(name)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(each_alone)], check=True, timeout=60)


def test_ids_may_be_uuids():
    request = execute_request(ID, request_id=ID)

    assert (request.workflow, request.request_id) == (str(ID), str(ID))


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"states": "FAILED"}, r"states must be a list of strings, not one string: write \['FAILED'\]"),
        ({"states": ["LOST"]}, "states: 'LOST' is none of PENDING, RUNNING"),
        ({"states": [None]}, "states must be a whole number"),
        ({"order": "newest"}, "order: 'newest' is none of NEWEST"),
        ({"tags": "abc"}, "tags must be a list of strings, not one string"),
        ({"created_from": datetime(2026, 1, 1)}, "created_from 2026-01-01T00:00:00 lacks a time zone: write 2026-"),
        ({"created_from": "2026-01-01T00:00"}, "created_from 2026-01-01T00:00:00 lacks a time zone"),
        ({"created_before": "yesterday"}, "created_before must be a time such as '2026-11-21T08:00:00Z', or a span"),
        ({"ended_from": 7200}, "ended_from must be a time such as .*, not 7200"),
        ({"ended_before": "9999-12-31T23:59:59-08:00"}, "ended_before must be within the years 1 to 9999 in UTC"),
        ({"ended_from": "2026-02-30T00:00Z"}, "ended_from must be a time such as"),
        ({"execution_id_prefix": 7}, "execution_id_prefix must be a string, not a value of type int"),
        ({"view": "FULL"}, "view must be a whole number, not a value of type str"),
        ({"ended_from": "120000w"}, "ended_from must be within the years 1 to 9999"),
    ],
)
def test_a_filter_of_another_form_is_named(filters, said):
    with pytest.raises((TypeError, ValueError), match=said):
        list_request(**filters)


@pytest.mark.parametrize("span", ["2h", timedelta(hours=2), "PT2H"])
def test_a_span_is_so_long_before_now(span):
    before = datetime.now(UTC)
    start = list_request(created_from=span).filter.create_time.start_time.ToDatetime(UTC)

    assert before <= start + timedelta(hours=2) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "time",
    [
        datetime(2026, 11, 21, 10, tzinfo=timezone(timedelta(hours=2))),
        "2026-11-21T08:00:00Z",
        "2026-11-21T10:00+02:00",
        " 2026-11-21 08:00:00Z ",
    ],
)
def test_a_moment_may_be_written_in_any_zone(time):
    assert to_datetime(time) == datetime(2026, 11, 21, 8, tzinfo=UTC)


def test_the_end_of_the_calendar_is_a_moment():
    assert (
        list_request(created_before=datetime.max.replace(tzinfo=UTC)).filter.create_time.end_time.seconds
        == 253402300799
    )


def test_a_moment_as_people_type_it_is_of_this_machines_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert to_datetime("2026-11-21T22:00", local=True) == datetime(2026, 11, 21, 8, tzinfo=UTC)
        assert to_datetime("0001-01-01T00:00", local=True) == datetime.min.replace(tzinfo=UTC)
        assert to_datetime("9999-12-31T23:59-12:00", local=True) == datetime.max.replace(tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()
