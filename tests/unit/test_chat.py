"""The setting of models, what is wrong with params of `ask_model`, and answers that must meet a schema."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer

from service.cli import settings
from service.config import Config, ConfigError
from service.engine.chat.endpoints import Price, completions_url, parse
from service.engine.chat.schemas import FaultyAnswerError, read
from service.engine.handlers.ask_model import ask_model
from service.models import models_of

SECRET = "hunter2-hunter2"
PRICE = {"input": 0.25, "output": 2}


def test_endpoints_have_urls_keys_and_prices() -> None:
    setting = {
        "local": {"url": "http://llm.internal:8000/v1"},
        "openai": {
            "url": "https://api.openai.com/v1",
            "key": SECRET,
            "headers": {"OpenAI-Organization": SECRET},
            "prices": {"gpt-5-mini": {**PRICE, "cached_input": 0.025}, "*": PRICE},
            "currency": "USD",
        },
    }
    found = parse(json.dumps(setting))
    assert found["local"].server.target == "llm.internal:8000"
    assert (found["local"].read_key(), found["local"].price("any")) == ("", None)
    assert found["openai"].read_key() == SECRET
    assert found["openai"].price("gpt-5-mini") == Price(Decimal("0.25"), Decimal(2), Decimal("0.025"))
    assert found["openai"].price("other") == Price(Decimal("0.25"), Decimal(2), Decimal("0.25"))
    assert SECRET not in repr(found)


def test_a_cost_is_rounded_once() -> None:
    price = Price(Decimal("0.15"), Decimal("0.6"), Decimal("0.075"))
    assert price.micros(1_000_000, 0, 1_000_000) == 750_000
    assert price.micros(3, 0, 0) == 0  # 0.45 millionths
    assert price.micros(2, 1, 1) == 1  # 0.825
    assert price.micros(10, 99, 0) == 1  # no more can have been read before than was read: 0.75


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("https://api.example/v1", "https://api.example/v1/chat/completions"),
        ("https://api.example/v1/?api-version=7", "https://api.example/v1/chat/completions?api-version=7"),
        ("https://api.example/v1/chat/completions", "https://api.example/v1/chat/completions"),
    ],
)
def test_where_models_are_asked(given: str, asked: str) -> None:
    assert completions_url(given) == asked


URL = {"url": "http://x/v1"}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("{", "must be JSON such as"),
        ("[]", "must be JSON such as"),
        ({"a b": URL}, "a name of an endpoint has 1 to 64"),
        ({"a": SECRET}, "a: must be an object with a url"),
        ({"a": {"url": f"ftp://{SECRET}"}}, "a.url: must be an http or https URL"),
        ({"a": {"url": f"http://x/v1#{SECRET}"}}, "a.url: must be without a fragment"),
        ({"a": {**URL, "api_key": SECRET}}, "a.api_key: is unknown; known are currency, headers, key, key_file"),
        ({"a": {**URL, "key": SECRET, "key_file": SECRET}}, "a: must have at most one of key, key_file, key_variable"),
        ({"a": {**URL, "key": f"{SECRET}\n"}}, "a.key: holds what headers cannot carry"),
        ({"a": {**URL, "key_file": ""}}, "a.key_file: must be a text that is not empty"),
        ({"a": {**URL, "headers": {"K": f"{SECRET}\n"}}}, "a.headers: has a name or a value that"),
        ({"a": {**URL, "prices": {"m": {"input": 1}}}}, "a.prices: each model must have what a million tokens cost"),
        ({"a": {**URL, "prices": {"m": {**PRICE, "input": -1}}}}, "a.prices: each model must have"),
        ({"a": {**URL, "currency": "euro"}}, "a.currency: must be three letters"),
        (
            {"a": {**URL, "prices": {"m": PRICE}, "currency": "EUR"}, "b": {**URL, "prices": {"m": PRICE}}},
            "currency: must be one for all prices",
        ),
        ({str(n): URL for n in range(101)}, "must name at most 100 endpoints"),
    ],
)
def test_what_is_wrong_with_the_setting_is_told_without_a_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: Any, complaint: str
) -> None:
    monkeypatch.setenv("FLOWKEEP_MODELS", given if isinstance(given, str) else json.dumps(given))
    with pytest.raises(typer.Exit):
        settings.load()
    said = capsys.readouterr().err
    assert f"FLOWKEEP_MODELS: {complaint}" in said
    assert SECRET not in said


async def test_a_key_is_the_one_that_its_file_or_variable_holds_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    monkeypatch.setenv("LLM_KEY", "first")
    places = {"file": {**URL, "key_file": str(file)}, "variable": {**URL, "key_variable": "LLM_KEY"}}
    config = Config(models=json.dumps(places))
    assert ("models", file, True) in config.key_files
    endpoints = models_of(config).endpoints
    assert {await each.current_key() for each in endpoints.values()} == {"first"}
    file.write_text("second\n")
    monkeypatch.setenv("LLM_KEY", "second")
    assert {await each.current_key() for each in endpoints.values()} == {"second"}


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ({"key_file": "/nowhere/key"}, "lab.key_file cannot be read: No such file or directory"),
        ({"key_variable": "FLOWKEEP_TEST_NO_KEY"}, "lab.key_variable leads to no key: it is empty, or holds what"),
    ],
)
def test_a_server_does_not_start_without_a_key_that_it_is_to_have(key: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"^FLOWKEEP_MODELS: {complaint}"):
        models_of(Config(models=json.dumps({"lab": {**URL, **key}})))


CHAT = {"endpoint": "lab", "model": "m"}
GOOD = {**CHAT, "prompt": "?"}
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"endpoint": "lab", "prompt": "?"}, "model"),
        ({"model": "m", "prompt": "?"}, "endpoint"),
        ({**GOOD, "url": "https://x"}, "endpoint"),
        ({"url": "ftp://x", "model": "m", "prompt": "?"}, "url"),
        ({"url": "https://me:pw@x", "api_key": "k", "model": "m", "prompt": "?"}, "url"),
        ({**GOOD, "headers": {"a": "b"}}, "headers"),
        (
            {"url": "https://x", "headers": {"Upgrade": "b"}, "model": "m", "prompt": "?"},
            "headers.Upgrade",
        ),
        ({**GOOD, "api_key": "a\nb"}, "api_key"),
        ({"endpoint": "lab", "model": "m"}, "prompt"),
        ({**GOOD, "messages": [{"role": "user", "content": "?"}]}, "prompt"),
        ({**CHAT, "messages": [{"role": "bot", "content": "?"}]}, "messages[0].role"),
        ({**GOOD, "max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens"),
        ({**GOOD, "options": {"temperature": 1}}, "options.temperature"),
        ({**GOOD, "options": {"tools": []}}, "options.tools"),
        ({**GOOD, "options": {"n": 2}}, "options.n"),
        ({**GOOD, "tool_choice": "none"}, "tool_choice"),
        ({**GOOD, "tools": [{"name": "a b"}]}, "tools[0].name"),
        ({**GOOD, "tools": [{"name": "a"}, {"name": "a"}]}, "tools[1].name"),
        ({**GOOD, "tools": [{"name": "a", "parameters": {"type": "array"}}]}, "tools[0].parameters.type"),
        ({**GOOD, "tools": [{"name": "a", "parameters": {"required": 1}}]}, "tools[0].parameters.required"),
        ({**CHAT, "messages": [{"role": "user"}]}, "messages[0].content"),
        ({**CHAT, "messages": [{"role": "user", "content": [{"text": "?"}]}]}, "messages[0].content"),
        ({**CHAT, "messages": [{"role": "tool", "content": {}}]}, "messages[0].tool_call_id"),
        ({**CHAT, "messages": [{"role": "user", "content": "?", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({**GOOD, "quality_attempts": 2}, "quality_attempts"),
        ({**GOOD, "output_schema": SCHEMA, "quality_attempts": 6}, "quality_attempts"),
        ({**GOOD, "output_schema": SCHEMA, "accept_truncated": True}, "accept_truncated"),
        ({**GOOD, "output_schema": SCHEMA, "response_format": "none", "strict": True}, "strict"),
        ({**GOOD, "output_schema": {"type": "objec"}}, "output_schema.type"),
        ({**GOOD, "output_schema": {"$ref": "http://x"}}, 'output_schema["$ref"]'),
        ({**GOOD, "output_schema": {"properties": {"a": {"pattern": "(?=a)"}}}}, "output_schema.properties.a.pattern"),
        ({**GOOD, "output_schema": {"description": "x" * 20_000}}, "output_schema"),
        ({**GOOD, "timeout": "0s"}, "timeout"),
    ],
)
def test_params_that_are_wrong_are_named(params: dict[str, Any], path: str) -> None:
    assert [found for found, _ in ask_model().validate(params)] == [path]


def test_templates_stand_for_what_may_yet_become_right() -> None:
    params = {
        "endpoint": "lab",
        "model": "m",
        "messages": "${ input.messages }",
        "output_schema": {"properties": {"kind": {"enum": "${ input.kinds }"}}},
    }
    opaque = [("messages",), ("output_schema", "properties", "kind", "enum")]
    assert ask_model().validate(params, opaque) == []
    assert ask_model().validate({**GOOD, "output_schema": "${ input.schema }"}, [("output_schema",)]) == []


@pytest.mark.parametrize("text", ['{"n": 1}', ' {"n": 1.0}\n', '```json\n{"n": 1}\n```', '```\n{"n": 1}\n```'])
def test_json_is_read_with_or_without_the_fence_that_models_put_around_it(text: str) -> None:
    assert read(text, {"$schema": "http://json-schema.org/draft-07/schema#", **SCHEMA}, "answer") == {"n": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "answer is not JSON alone"),
        ('The answer is {"n": 1}', "answer is not JSON alone"),
        ("{}", "answer.n is required"),
        ('{"n": "hunter2"}', "answer.n "),
        ('{"n": 12345678901234567890}', "answer.n "),
        ("[" * 5_000, "answer is"),
        (f"[{'0,' * 20_000}0]", "answer must have at most"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told_without_it(text: str, problem: str) -> None:
    with pytest.raises(FaultyAnswerError) as caught:
        read(text, SCHEMA, "answer")
    assert caught.value.problems[0].startswith(problem)
    assert "hunter2" not in str(caught.value)
