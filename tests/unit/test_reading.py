"""Texts become JSON values: JSON as JSON, YAML as far as JSON can hold it, and everything else a clear refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.reading import Document, Place, TextError, UnreadableError, parse_documents, path_of, read_text

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def document(text: str, name: str = "") -> Document:
    (only,) = parse_documents(text, name)
    return only


def value(text: str) -> Any:
    """The value of a text without faults."""
    only = document(text)
    assert not only.faults
    return only.value


def refusal(text: str, name: str = "") -> str:
    with pytest.raises(UnreadableError) as refused:
        list(parse_documents(text, name))
    return str(refused.value)


def faults(text: str) -> list[str]:
    return [str(fault) for fault in document(text).faults]


@given(json_values, st.sampled_from((None, 1, "\t")), st.booleans())
def test_json_is_read_as_json(written: Any, indent: Any, ascii_only: bool) -> None:
    text = json.dumps({"x": written}, indent=indent, ensure_ascii=ascii_only)
    assert value(text) == json.loads(text)
    # Several documents are read by the reader that also finds places.
    assert [each.value for each in parse_documents(f"{text}\n{text}")] == [json.loads(text)] * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"x": 1e5}', {"x": 100000.0}),
        ('{"x": "\\ud83d\\ude00"}', {"x": "😀"}),
        ('{"x": "a\u2028b\x7f"}', {"x": "a\u2028b\x7f"}),
        ('{\n\t"x": [\n\t\t1\n\t]\n}', {"x": [1]}),
        ('{"x"\n:\n1\n}', {"x": 1}),
        (f'{{"{"k" * 2000}": 1}}', {"k" * 2000: 1}),
        ('{"x": "2026-11-28", "y": "yes", "z": "{{ x }}"}', {"x": "2026-11-28", "y": "yes", "z": "{{ x }}"}),
        ('{"on": 1, "null": 2}', {"on": 1, "null": 2}),
        ('\r\n{"x": 1}\r\n', {"x": 1}),
        ("{x: 1e5, y: [a, b]}", {"x": "1e5", "y": ["a", "b"]}),  # YAML that begins as JSON
        ('{"x": 1,}', {"x": 1}),
        ("x: &a {b: 1}\ny: {<<: *a, c: 2}\nz: *a", {"x": {"b": 1}, "y": {"b": 1, "c": 2}, "z": {"b": 1}}),
    ],
)
def test_what_texts_mean(text: str, expected: Any) -> None:
    assert value(text) == expected


def test_a_text_may_hold_several_documents() -> None:
    for text in ("a: 1\n---\n---\nb: 2", '{"a": 1}\n---\n{"b": 2}', '{"a": 1}{"b": 2}\n'):
        assert [each.value for each in parse_documents(text)] == [{"a": 1}, {"b": 2}]
    found = parse_documents("a: 1\n---\nb: {")
    assert next(found).value == {"a": 1}
    with pytest.raises(UnreadableError, match="line 3"):
        next(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"x": NaN, "y": -Infinity}', ["line 1, column 7: NaN is no number", "line 1, column 17: -Infinity is no"]),
        ('{"a": 1,\n "a": 2}', ['line 2, column 2: the key "a" stands twice, first in line 1']),
        ('[{"a": {"b": 1, "b": {"c": 1, "c": 2}}}]', ['the key "b" stands twice', 'the key "c" stands twice']),
        ("a: 1\nb: 2\na: 3", ["line 3, column 1: the key 'a' stands twice, first in line 1"]),
        ("v: {{ input.name }}", ['line 1, column 4: templates are written "${ … }", in quotes: "${ input.name }"']),
        ("- {{x}}", ['"${ x }"']),
        ("? [a, b]\n: 1", ["line 1, column 3: a key must be text, not a list"]),
        ("? {a: b}\n: 1", ["a key must be text, not an object"]),
        ("on: 1", ["YAML reads on as true: put it in quotes"]),
        ("yes: 1\nNo: 2", ["reads yes as true", "line 2, column 1: a key must be text; YAML reads No as false"]),
        ("~: 1", ["YAML reads ~ as null"]),
        ("1: a\n2.5: b", ["YAML reads 1 as the number 1", "the number 2.5"]),
        ("2026-11-28: a", ["YAML reads 2026-11-28 as a date"]),
        ("a: 2026-11-28T10:00:00Z", ["line 1, column 4: YAML reads 2026-11-28T10:00:00Z as a date: put it in quotes"]),
        ("zip: 01234", ["YAML reads 01234 as the number 668"]),
        ("at: 12:30", ["YAML reads 12:30 as the number 750"]),
        ("a: !!binary aGk=", ["the tag !!binary means nothing here"]),
        ("a: !!python/object:os.system x\nb: !mine {}", ["!!python/object:os.system", "the tag !mine means nothing"]),
        ("a: {<<: 3}", ["<< takes an object"]),
        (f'{{"x": {"1" * 5000}}}', ["has 5,000 digits"]),
    ],
)
def test_what_can_be_read_past_is_told_with_its_place(text: str, expected: list[str]) -> None:
    found = faults(text)
    assert len(found) == len(expected)
    for part, fault in zip(expected, found, strict=True):
        assert part in fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1 /* c */}', "line 1, column 9: is no JSON: JSON has no comments"),
        ('{"a": 1, // c\n"b": 2}', "line 1, column 10: is no JSON: JSON has no comments"),
        ('{"a": [1, 2', "it ends in the middle; what began in line 1 is not closed"),
        ('{"a": True', "write true, not True"),
        ('{"a": {{ x }}', 'templates are written "${ … }"'),
        ('{"a" 1}x', "there must be a ':'"),
        ("v: {{ x }} y", 'templates are written "${ … }", in quotes'),
        (
            "a: 1\nb: {v: ${ x }}",
            "line 2, column 9: is no YAML: expected ',' or '}', but got '{'; put the text with the",
        ),
        ("v: ${ a ? 'b': 'c' }", "put the text with the template in quotes"),
        ("a:\n\tb: 1", "line 2, column 1: is no YAML: found character 'a tab' that cannot start any token; YAML is"),
        ("a: @x", "put the text in quotes"),
        ("a: b: c", "look at the indentation"),
        ("a: *b", "found undefined alias 'b'"),
        ("a: &a [*a]", "contains itself"),
        ('a: "\x01"', "line 1, column 5: is no YAML: the character U+0001 is not allowed"),
        ("[" * 100_000, "nested more than 100 deep"),
        ("a: " + "[" * 1_500, "nested more than 100 deep"),
        ("- " * 5_000, "nested more than 100 deep"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(text: str, expected: str) -> None:
    said = refusal(text)
    assert expected in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'a': 1}", "strings stand in double quotes"),
        ("{a: 1}", "names stand in double quotes"),
        ('{"a": 1,}', "a comma too many stands before '}'"),
        ('{"a": 1 # c\n}', "JSON has no comments"),
        ("a: 1", "there must be a value, not 'a'"),
        ('{"a": "b\n"}', "invalid control character"),
    ],
)
def test_a_json_file_holds_json(text: str, expected: str) -> None:
    assert expected in refusal(text, "x.json")


@pytest.mark.timeout(20)
def test_aliases_unfold_within_bounds() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    merges = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    for first, more in (("a0: &a0 [1, 2]", levels), ("a0: &a0 {b: 1}", merges)):
        assert "unfold to more than 100,000 values" in refusal("\n".join([first, *more]))


def test_everything_has_a_place() -> None:
    for text in (
        'name: w\nsteps:\n  - id: a\n    params: {x: [1, {"a b": 2}]}\n',
        '{"name": "w",\n"steps": [\n  {"id": "a",\n   "params":  {"x": [1, {"a b": 2}]}}]}',
    ):
        found = document(text)
        assert found.place(path_of("steps")).line == 2
        assert found.place(path_of("steps[0].id")) == (3, 4 if "{" in text[:1] else 5)
        line = text.splitlines()[3]
        assert found.place(path_of('steps[0].params.x[1]["a b"]')) == (4, line.index('"a b"') + 1)
        assert found.place(path_of("steps[0].params.url")) == found.place(path_of("steps[0].params"))
    assert document("[]").place(("x",)) == Place(1, 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbf{}", "{}"),
        (b"a: 1\r\n", "a: 1\r\n"),
        ("{}".encode("utf-16"), "is in UTF-16; save it as UTF-8"),
        ("{}".encode("utf-32"), "is in UTF-32; save it as UTF-8"),
        ("{}".encode("utf-16-le"), "holds the character NUL"),
        (b"a: 1\nb: \xff", "line 2 holds the byte 0xFF"),
        (b" " * (4 << 20), " " * (4 << 20)),
        (b" " * (4 << 20) + b" ", "has more than 4 MiB"),
    ],
    ids=["mark", "crlf", "utf-16", "utf-32", "bare utf-16", "binary", "large", "too large"],
)
def test_files_hold_text(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "x").write_bytes(data)
    if data.startswith((b"\xef", b"a: 1\r")) or len(data) == 4 << 20:
        assert read_text(str(tmp_path / "x")) == expected
        return
    with pytest.raises(TextError, match=expected):
        read_text(str(tmp_path / "x"))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="is a folder"):
        read_text(str(tmp_path))
    with pytest.raises(TextError, match="No such file"):
        read_text(str(tmp_path / "absent"))
    with pytest.raises(TextError, match="cannot read"):
        read_text("a\0b")
