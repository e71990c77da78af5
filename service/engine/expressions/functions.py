"""Every function, macro and operator of the language, with an example that a test runs."""

from __future__ import annotations

from typing import Any, NamedTuple


class Function(NamedTuple):
    """One entry: `form` is how it is written, and `result` is what `example` gives."""

    group: str
    name: str
    form: str
    description: str
    example: str
    result: Any


def functions() -> tuple[Function, ...]:
    """Return all entries, by groups."""
    return tuple(Function(group, *entry) for group, entries in _TABLE.items() for entry in entries)


_NOON = "timestamp('2030-01-31T12:34:56.789Z')"

_TABLE: dict[str, tuple[tuple[str, str, str, str, Any], ...]] = {
    "operators": (
        ("+", "a + b", "Adds numbers and durations, joins strings and lists.", "1 + 0.5", 1.5),
        ("-", "a - b", "Subtracts numbers, durations, and durations from times.", "10 - 2.5", 7.5),
        ("*", "a * b", "Multiplies numbers.", "1.2 * 10", 12),
        (
            "/",
            "a / b",
            "Divides numbers; of two ints (literals, size) the quotient is an int.",
            "[7 / 2.0, 7 / 2]",
            [3.5, 3],
        ),
        ("%", "a % b", "The remainder of whole numbers, with the sign of a.", "7 % 2", 1),
        ("==", "a == b", "Whether two values are equal.", "[1, 2.0] == [1.0, 2]", True),
        ("!=", "a != b", "Whether two values differ.", "'a' != 'A'", True),
        ("<", "a < b", "Compares numbers, strings, times and durations; also <=, > and >=.", "1 < 1.5", True),
        ("&&", "a && b", "Whether both are true.", "true && 1 > 2", False),
        ("||", "a || b", "Whether one is true.", "true || 1 > 2", True),
        ("!", "!a", "Whether it is false.", "!(1 > 2)", True),
        ("? :", "c ? a : b", "a when c is true, else b.", "2 > 1 ? 'more' : 'less'", "more"),
        ("in", "a in b", "Whether a is an element of a list or a key of a map.", "'a' in ['a', 'b']", True),
        ("[ ]", "a[b]", "An element of a list, from 0, or a value of a map.", "['a', 'b'][1]", "b"),
    ),
    "macros": (
        ("has", "has(a.b)", "Whether a map has a key, or a step an output or error.", "has({'a': 1}.b)", False),
        (
            "all",
            "a.all(x, p)",
            "Whether p holds for every element or key; (i, x, p) with its index or value.",
            "[1, 2].all(x, x > 0)",
            True,
        ),
        (
            "exists",
            "a.exists(x, p)",
            "Whether p holds for some element or key; (i, x, p) with its index or value.",
            "{'a': 1}.exists(k, v, v == 1)",
            True,
        ),
        (
            "exists_one",
            "a.exists_one(x, p)",
            "Whether p holds for just one element or key.",
            "[1, 2].exists_one(x, x > 1)",
            True,
        ),
        (
            "existsOne",
            "a.existsOne(i, x, p)",
            "Whether p holds for just one index and element, or key and value.",
            "[1, 2].existsOne(i, x, x > i)",
            False,
        ),
        (
            "map",
            "a.map(x, e)",
            "e for every element or key; (x, p, e) for those for which p holds.",
            "[1, 2].map(x, x * 2)",
            [2, 4],
        ),
        ("filter", "a.filter(x, p)", "The elements or keys for which p holds.", "[1, 2].filter(x, x > 1)", [2]),
        (
            "transformList",
            "a.transformList(i, x, e)",
            "e for every index and element, or key and value; (i, x, p, e).",
            "['a', 'b'].transformList(i, x, x + string(i))",
            ["a0", "b1"],
        ),
        ("cel.bind", "cel.bind(x, a, e)", "e, in which x stands for a.", "cel.bind(x, 2 + 1, x * x)", 9),
    ),
    "lists and maps": (
        ("size", "size(a)", "The number of elements, entries or characters; also a.size().", "size([1, 2, 3])", 3),
        ("join", "a.join(separator)", "The strings of a list in one.", "['a', 'b'].join(', ')", "a, b"),
    ),
    "strings": (
        ("charAt", "s.charAt(i)", "The character at an index.", "'hello'.charAt(1)", "e"),
        ("contains", "s.contains(t)", "Whether t is in s.", "'hello'.contains('ell')", True),
        ("endsWith", "s.endsWith(t)", "Whether s ends with t.", "'hello'.endsWith('lo')", True),
        (
            "format",
            "s.format(list)",
            "s with values in place of %s, %d, %f, %.2f, %e, %x, %X, %o, %b.",
            "'%s: %.2f'.format(['total', 3])",
            "total: 3.00",
        ),
        ("indexOf", "s.indexOf(t)", "Where t first is in s, -1 if nowhere; (t, from).", "'hello'.indexOf('l')", 2),
        ("lastIndexOf", "s.lastIndexOf(t)", "Where t last is in s, -1 if nowhere.", "'hello'.lastIndexOf('l')", 3),
        ("lowerAscii", "s.lowerAscii()", "s in small letters, of A to Z.", "'HELLO'.lowerAscii()", "hello"),
        (
            "matches",
            "s.matches(pattern)",
            "Whether a regular expression (RE2) is found in s.",
            "'v1.2'.matches('^v[0-9]')",
            True,
        ),
        ("replace", "s.replace(t, u)", "s with u for each t; (t, u, most).", "'hello'.replace('l', 'L')", "heLLo"),
        ("reverse", "s.reverse()", "s from its end.", "'abc'.reverse()", "cba"),
        ("split", "s.split(separator)", "The parts of s; (separator, most).", "'a,b'.split(',')", ["a", "b"]),
        ("startsWith", "s.startsWith(t)", "Whether s begins with t.", "'hello'.startsWith('he')", True),
        ("strings.quote", "strings.quote(s)", "s as a literal, with escapes.", "strings.quote('a\"b')", '"a\\"b"'),
        (
            "substring",
            "s.substring(from)",
            "s from an index on; (from, to) before another.",
            "'hello'.substring(1, 3)",
            "el",
        ),
        ("trim", "s.trim()", "s without blanks around it.", "'  a '.trim()", "a"),
        ("upperAscii", "s.upperAscii()", "s in capital letters, of a to z.", "'hello'.upperAscii()", "HELLO"),
        (
            "base64.decode",
            "base64.decode(s)",
            "The bytes that base64 stands for.",
            "string(base64.decode('aGk='))",
            "hi",
        ),
        ("base64.encode", "base64.encode(bytes)", "Bytes in base64.", "base64.encode(b'hi')", "aGk="),
    ),
    "numbers": (
        ("math.abs", "math.abs(n)", "n without its sign.", "math.abs(-2.5)", 2.5),
        ("math.ceil", "math.ceil(n)", "The least whole number that is not below n.", "math.ceil(1.2)", 2),
        ("math.floor", "math.floor(n)", "The largest whole number that is not above n.", "math.floor(1.8)", 1),
        ("math.round", "math.round(n)", "The nearest whole number; a half goes away from 0.", "math.round(2.5)", 3),
        ("math.trunc", "math.trunc(n)", "n without its fraction.", "math.trunc(-1.8)", -1),
        (
            "math.greatest",
            "math.greatest(a, b, …)",
            "The largest of numbers, or of a list.",
            "math.greatest(1, 2.5)",
            2.5,
        ),
        ("math.least", "math.least(a, b, …)", "The least of numbers, or of a list.", "math.least([3, 1, 2])", 1),
        ("math.sign", "math.sign(n)", "-1, 0 or 1.", "math.sign(-3)", -1),
        ("math.sqrt", "math.sqrt(n)", "The square root.", "math.sqrt(2.25)", 1.5),
        ("math.isNaN", "math.isNaN(n)", "Whether n is not a number, as 0.0 / 0.0 is.", "math.isNaN(0.0 / 0.0)", True),
        ("math.isInf", "math.isInf(n)", "Whether n is infinite, as 1.0 / 0.0 is.", "math.isInf(1.0 / 0.0)", True),
        ("math.isFinite", "math.isFinite(n)", "Whether n is a number of JSON.", "math.isFinite(1.5)", True),
        ("math.bitAnd", "math.bitAnd(a, b)", "The bits that are set in both.", "math.bitAnd(6, 3)", 2),
        ("math.bitOr", "math.bitOr(a, b)", "The bits that are set in one.", "math.bitOr(6, 3)", 7),
        ("math.bitXor", "math.bitXor(a, b)", "The bits that are set in just one.", "math.bitXor(6, 3)", 5),
        ("math.bitNot", "math.bitNot(n)", "The bits that are not set.", "math.bitNot(1)", -2),
        ("math.bitShiftLeft", "math.bitShiftLeft(n, by)", "The bits moved up.", "math.bitShiftLeft(1, 3)", 8),
        ("math.bitShiftRight", "math.bitShiftRight(n, by)", "The bits moved down.", "math.bitShiftRight(8, 3)", 1),
    ),
    "times": (
        (
            "timestamp",
            "timestamp(s)",
            "A time: of RFC 3339, or of seconds since 1970.",
            "timestamp('2030-01-31T09:00:00Z') + duration('1d')",
            "2030-02-01T09:00:00Z",
        ),
        (
            "duration",
            "duration(s)",
            'A span: "1h30m", "45s", "7d", "1w", "PT5M", as wait takes it.',
            "duration('1h30m') > duration('45s')",
            True,
        ),
        ("getFullYear", "t.getFullYear()", "The year, in UTC; (zone) elsewhere.", f"{_NOON}.getFullYear()", 2030),
        ("getMonth", "t.getMonth()", "The month, from 0.", f"{_NOON}.getMonth()", 0),
        ("getDate", "t.getDate()", "The day of the month, from 1.", f"{_NOON}.getDate()", 31),
        ("getDayOfMonth", "t.getDayOfMonth()", "The day of the month, from 0.", f"{_NOON}.getDayOfMonth()", 30),
        ("getDayOfWeek", "t.getDayOfWeek()", "The day of the week, from 0 for Sunday.", f"{_NOON}.getDayOfWeek()", 4),
        ("getDayOfYear", "t.getDayOfYear()", "The day of the year, from 0.", f"{_NOON}.getDayOfYear()", 30),
        ("getHours", "t.getHours()", "The hour; of a span, all its hours.", f"{_NOON}.getHours('Asia/Tokyo')", 21),
        ("getMinutes", "t.getMinutes()", "The minute; of a span, all its minutes.", "duration('2h').getMinutes()", 120),
        ("getSeconds", "t.getSeconds()", "The second; of a span, all its seconds.", f"{_NOON}.getSeconds()", 56),
        (
            "getMilliseconds",
            "t.getMilliseconds()",
            "The milliseconds of the second.",
            f"{_NOON}.getMilliseconds()",
            789,
        ),
    ),
    "conversions": (
        ("string", "string(a)", "A number, bool, bytes, time or span as text.", "'n = ' + string(3.0)", "n = 3"),
        (
            "int",
            "int(a)",
            "An int: of a number without its fraction, of text, of a time in seconds.",
            "int('42') / 4",
            10,
        ),
        ("uint", "uint(a)", "An int that is not negative.", "uint(3.7)", 3),
        ("double", "double(a)", "A number, of text too.", "double('1.5') + 1", 2.5),
        ("bool", "bool(s)", "A bool, of text.", "bool('true')", True),
        ("bytes", "bytes(s)", "The bytes of text in UTF-8.", "size(bytes('é'))", 2),
        ("dyn", "dyn(a)", "a, of a type that is not checked beforehand.", "true ? dyn(1) : 'none'", 1),
        ("type", "type(a)", "The type of a value; a JSON number is a double.", "type('a') == string", True),
    ),
}
