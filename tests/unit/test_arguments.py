"""Values as they are typed on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from service.cli.arguments import check_span, parse_pairs, read_input
from service.cli.main import build
from service.cli.reading import TextError
from service.cli.refusal import refuse_call


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("-5", -5),
        ("0", 0),
        ("1.50", 1.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ("[1e5, {}]", [100000.0, {}]),
        ('{"a": null}', {"a": None}),
        ("", ""),
        ("12e4567", "12e4567"),
        ("1e5", "1e5"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("007", "007"),
        ("+5", "+5"),
        ("1.", "1."),
        (".5", ".5"),
        ("True", "True"),
        ("2026-11-28", "2026-11-28"),
        ("1" * 400, "1" * 400),
        ("1" * 5000, "1" * 5000),
        ("\u0661", "\u0661"),
        ("{a}", "{a}"),
        ('"open', '"open'),
        ("a=b", "a=b"),
    ],
)
def test_a_setting_is_json_or_text(text: str, expected: Any) -> None:
    found = read_input(None, [f"x={text}"])
    assert found == {"x": expected}
    assert type(found["x"]) is type(expected)
    assert read_input(None, [], [f"x={text}"]) == {"x": text}


def test_settings_lie_on_top_of_the_input() -> None:
    assert read_input(None) is None
    assert read_input('{"a": 1, "b": {"c": 2}}', ["a=5", "b.d=3"], ["b.e=4"]) == {
        "a": 5,
        "b": {"c": 2, "d": 3, "e": "4"},
    }


@pytest.mark.parametrize(
    ("settings", "strings", "expected"),
    [
        (["a=1", "a.b=2"], [], "a.b and a exclude each other"),
        (["a.b=2", "a=1"], [], "a and a.b exclude each other"),
        (['a={"b": 1}', "a.b=2"], [], "exclude each other"),
        (["a.b=2"], ["a.b.c=1"], "exclude each other"),
        (["a=1", "a=1"], [], "a is given twice"),
        (["a=1"], ["a=1"], "a is given twice"),
        (["a..b=1"], [], "a name between dots is empty"),
        ([".=1"], [], "a name between dots is empty"),
        (["a"], [], "must be KEY=VALUE"),
        (["given.b=1"], [], "given is no object"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: list[str], strings: list[str], expected: str
) -> None:
    with pytest.raises(typer.BadParameter, match=expected):
        read_input('{"given": 1}', settings, strings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1, "a": 2}', '--input:1:10: the key "a" stands twice'),
        ('{"a": NaN}', "--input:1:7: NaN is no number of JSON"),
        ("{a: 1}", "--input:1:2: is no JSON: names stand in double quotes; --input takes JSON, @FILE, or -"),
        ("{}x", "--input:1:3: is no JSON"),
        ("[1]", "must be a JSON object"),
        ("", "must hold one JSON object, not nothing"),
        ('{"a": 1} {"b": 2}', "must hold one JSON object, not 2 documents"),
    ],
)
def test_an_input_is_one_json_object(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(TextError) as refused:
        read_input(text)
    assert expected in str(refused.value)


def test_an_input_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1\nb: [x]\n")
    assert read_input(f"@{tmp_path / 'x.yaml'}") == {"a": 1, "b": ["x"]}
    (tmp_path / "x.yaml").write_text("a: 1\na: 2\non: 3\n")
    with pytest.raises(TextError, match=r"(?s)x.yaml:2:1: the key 'a' stands twice.*x.yaml:3:1: a key must be text"):
        read_input(f"@{tmp_path / 'x.yaml'}")
    with pytest.raises(TextError, match="stands twice"):
        read_input(None, ['x={"a": 1, "a": 2}'])


def test_a_key_of_pairs_stands_once() -> None:
    with pytest.raises(typer.BadParameter, match="a is given twice"):
        dict(parse_pairs(["a=1", "a=2"], "--label"))


@pytest.mark.parametrize("text", ["90s", "1h30m", "7d", "PT5M", "0.5s"])
def test_a_span_stays_as_it_was_given(text: str) -> None:
    assert check_span(text, "--timeout") == text


def test_a_span_of_digits_only_is_seconds() -> None:
    assert (check_span("5", "--timeout"), check_span("0.5", "--timeout"), check_span(None, "--timeout")) == (
        5,
        0.5,
        None,
    )
    with pytest.raises(typer.BadParameter, match="must be a span of time"):
        check_span("5y", "--timeout")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("get", "Missing argument 'execution_id'. See flowkeep get --help"),
        ("get x --stp y", "No such option: --stp (Possible options: --at, --output, --step). See flowkeep get --help"),
        ("lisst", "No such command 'lisst'. Did you mean 'list'? See flowkeep --help"),
        ("list --limit all", "Invalid value for '--limit': must be a whole number"),
        ("list --limit -1", "Invalid value for '--limit': must be greater than or equal to 0"),
        ("-o xml list", "Invalid value for '--output' / '-o': 'xml' is not one of 'text', 'json'."),
        ("list --state lost --order newest", "Invalid value for --state: must be one of PENDING, RUNNING, PAUSED,"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    with pytest.raises(TyperException) as refused:
        build()(line.split(), prog_name="flowkeep", standalone_mode=False)
    assert refuse_call(refused.value) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"Error: {said}")
