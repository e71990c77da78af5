"""FAULTS H9 as data: expressions that would hold the loop or confuse types, and what must come out of each.

`given` is the CEL and the name of what it reads as `input.of`. `right` is the output of the step, or a part of why it
failed; STEP_FAILED alone is enough where the library words it.
"""

from __future__ import annotations

from typing import Any

from tests.hostile.cases import Case

OF: dict[str, Any] = {
    "nothing": None,
    "numbers": list(range(1_000)),
    "many": list(range(8_000)),
    "text": "a" * 200_000,
    "texts": ["x" * 100] * 1_000,
    "rows": [{"name": f"n{n}", "v": n, "tags": ["a", "b"]} for n in range(1_000)],
    "map": {f"k{n}": n for n in range(4_000)},
    "nested": [[[[n]]] for n in range(1_500)],
    "thirty": list(range(30)),
}
"""What the expressions read."""

TOO_MUCH = "may be too much work for values of this size; use smaller values, or several steps"
COLLECTS = "uses map or filter on what may be more than 1,000 elements"
NO_KEY = "builds a map with a key of type "


def _case(name: str, cel: str, right: Any, of: str = "nothing") -> Case:
    return Case(name, (cel, of), right)


def doubled(times: int, first: str, step: str) -> str:
    """Return an expression that applies a step to what it gave, again and again; `_` in the step is what it gave."""
    source = f"v{times}"
    for n in range(times, 0, -1):
        source = f"cel.bind(v{n}, {step.replace('_', f'v{n - 1}' if n > 1 else first)}, {source})"
    return source


_IT = "input.of"
_LOOPS = "nests loops more than 2 deep"

WORK = (
    _case(
        "loops to 30^4", f"{_IT}.all(a, {_IT}.all(b, {_IT}.all(c, {_IT}.all(d, a + b + c + d >= 0))))", _LOOPS, "thirty"
    ),
    _case("loops to 30^2", f"{_IT}.all(a, {_IT}.all(b, a + b >= 0))", True, "thirty"),
    _case("a map in a map", f"{_IT}.map(x, {_IT}.map(y, y))", TOO_MUCH, "numbers"),
    _case("maps of a map", f"{_IT}" + ".map(x, [x])" * 12 + ".size()", TOO_MUCH, "numbers"),
    _case("200 parentheses", "(" * 200 + "1" + ")" * 200, "is nested more than 32 levels deep"),
    _case("a chain of 500", "true" + " && true" * 500, "has more than 1,000 parts"),
    _case("64 KiB of source", "'" + "x" * 65_534 + "'", "is longer than 4096 characters"),
    _case("a list that doubles", doubled(28, "'x'", "[_, _]"), TOO_MUCH),
    _case("a text that doubles", doubled(28, "'x'", "_ + _"), TOO_MUCH),
    _case("a map that doubles", doubled(20, "'x'", "{'a': _, 'b': _}"), TOO_MUCH),
    _case("a text that grows tenfold", "'a'" + ".replace('a', 'aaaaaaaaaa')" * 10, TOO_MUCH),
    _case("texts joined", f"{_IT}.map(x, {_IT}.join('')).join('').size()", TOO_MUCH, "texts"),
    _case("a text in characters", f"{_IT}.split('').join('xxxxxxx').size()", TOO_MUCH, "text"),
    _case("a needle in a haystack", f"{_IT}.indexOf({_IT} + 'b')", TOO_MUCH, "text"),
    _case("a regex that blows up", f"{_IT}.matches('^(?:[ab]*a[ab]{{1000}}[cd])')", TOO_MUCH, "text"),
    _case("a regex of regexes", "'a'.matches('" + ".{1000}" * 30 + "')", TOO_MUCH),
    _case("a regex of its own", f"{_IT}.matches({_IT})", TOO_MUCH, "text"),
    _case("a regex in each row", f"{_IT}.exists(x, x.name.matches('.{{1000}}.{{1000}}'))", TOO_MUCH, "rows"),
    _case("more than may be collected", f"{_IT}.map(x, x).size()", COLLECTS, "many"),
    _case("the quadratic most", f"{_IT}.map(x, x * 2).size()", 1_000, "numbers"),
    _case("each among all", f"{_IT}.exists(x, -1 in {_IT})", TOO_MUCH, "numbers"),
    _case("lists that are equal", f"{_IT} == {_IT} && {_IT} != [1]", True, "many"),
    _case("trees that are equal", f"{_IT} == {_IT}", True, "nested"),
    _case("all rows twice", f"{_IT}.all(x, x.tags.all(t, t != 'q'))", True, "rows"),
    _case("one of many", f"{_IT}[7999]", 7_999, "many"),
    _case("all of a map", f"!{_IT}.exists(k, v, v < 0)", True, "map"),
    _case("a map as a list", f"{_IT}.map(k, k).size()", COLLECTS, "map"),
    _case("spans read in a loop", f"{_IT}.all(x, duration(string(x) + 's') >= duration('0s'))", True, "numbers"),
    _case(
        "zones that are none", f"{_IT}.exists(x, timestamp(0).getHours('Zone' + string(x)) == 1)", "timezone", "numbers"
    ),
    _case("formats in a loop", f"{_IT}.all(x, '%.900f'.format([x]).size() > 1)", True, "numbers"),
    _case("formats of formats", doubled(20, "'%s'", "_.format([_ + _])"), TOO_MUCH),
    _case("a map of many keys", "{" + ", ".join(f"'k{n}': {n}" for n in range(300)) + "}.size()", 300),
    _case("a text there and back", f"base64.decode(base64.encode(bytes({_IT}))).size()", TOO_MUCH, "text"),
    _case("itself", "input", {"of": None}),
)
"""What takes long, if it may."""

CONFUSION = (
    _case("a fraction as key", "{0.0: 0}", NO_KEY + "double"),
    _case("null as key", "{null: 1}", NO_KEY + "null"),
    _case("bytes as key", "{b'a': 1}", NO_KEY + "bytes"),
    _case("a list as key", "{[1]: 1}", NO_KEY + "list"),
    _case("a type as key", "{type(1): 1}", NO_KEY + "type"),
    _case("a time as key", "{timestamp(0): 1}", NO_KEY + "timestamp"),
    _case("a span as key", "{duration('1s'): 1}", NO_KEY + "duration"),
    _case("a number of the input as key", "{input.of[1]: 1}", NO_KEY + "double", "numbers"),
    _case("a key of an operand", "{0.0: 0} == {0.0: 0}", NO_KEY + "double"),
    _case("an int as key", "{1: 2}", "gives a map with keys that are not strings"),
    _case("a bool as key", "{true: 2}", "gives a map with keys that are not strings"),
    _case("an int among keys", "{'a': {1u: 2}}", "gives a map with keys that are not strings"),
    _case("keys twice", "{'a': 1, 'a': 2}", "duplicate key in map"),
    _case("a type", "[type(1)]", "gives something that is not a JSON value"),
    _case("bytes", "[b'a']", "gives bytes, which are not a JSON value"),
    _case("no number", "0.0 / 0.0", "must be a finite number"),
    _case("an infinite number", "-1.0 / 0.0", "must be a finite number"),
    _case("a number beyond 2^53", "9223372036854775807", "must be between -9007199254740991 and 9007199254740991"),
    _case("a number beyond 2^63", "9223372036854775807 + 1", "integer overflow"),
    _case("a literal beyond 2^63", "9223372036854775808", "invalid int literal"),
    _case("the least int turned", "-(-9223372036854775807 - 1)", "integer overflow"),
    _case("a fraction as int", "int(1e300)", "double out of int64 range"),
    _case("a time beyond time", "timestamp('9999-12-31T23:59:59Z') + duration('1s')", "timestamp overflow"),
    _case("a time before time", "timestamp('0001-01-01T00:00:00Z') - duration('1s')", "timestamp overflow"),
    _case("a span beyond spans", "duration('315576000001s')", "above maximum allowed duration"),
    _case("spans added up", "duration('315576000000s') + duration('315576000000s')", "overflow"),
    _case("the rest of nothing", "1 % 0", "modulus by zero"),
    _case("an index that is none", "[1][input.of[3]]", "index", "numbers"),
    _case("an index of a text", "input.of['a']", "", "text"),
    _case("half of a pair", r"'\ud800'", "Unicode value"),
    _case("text as a list", "input.of.map(x, x)", "loops over a value that is neither a list nor a map", "text"),
    _case("a number that is called", "1()", "unexpected"),
    _case("a text less than a number", "'a' < 1", "cannot apply < to (string, int)"),
)
"""What mixes types up, or leaves their bounds."""
