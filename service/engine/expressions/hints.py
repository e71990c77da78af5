"""What was probably meant by a source that does not compile: habits of other languages, and what CEL has instead."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

from service.engine.expressions.functions import functions
from service.engine.expressions.pieces import code

AS_IT_STANDS = "is CEL as it stands; write it without ${ }"

# Of longer names no similar ones are looked for.
_LONGEST_NAME = 64
_MUSTACHE = re.compile(r"\{\{[-~]?\s*((\w+)\s*[.\[][^{}\n]{0,200}?)\s*[-~]?\}\}")
_WORD = r"(?<![\w.])(?:{})(?!\w)"
# Looked for in this order, outside of strings, where a source does not compile; none of them is ever right in CEL.
_HABITS = tuple(
    (re.compile(pattern), advice)
    for pattern, advice in (
        (
            _WORD.format(r"secret\s*(?=\()"),
            "a secret is a template of its own, with nothing else in it, in the params of a step that calls a handler",
        ),
        (r"\{\{", "{{ }} is no CEL; write the expression without it"),
        (r"===", "=== is no operator; write =="),
        (r"!==|<>", "{} is no operator; write !="),
        (r"(?<![=!<>])=(?![=>])", "= does not compare; write =="),
        (_WORD.format(r"not\s+in"), "not in is no operator; write !(a in b)"),
        (_WORD.format("and"), "and is no operator; write &&"),
        (_WORD.format("or"), "or is no operator; write ||"),
        (_WORD.format("not"), "not is no operator; write !"),
        (_WORD.format("is"), "is is no operator; write == or !="),
        (_WORD.format("None|nil|NULL|Null|undefined"), "{} is not known; write null"),
        (_WORD.format("True|TRUE"), "{} is not known; write true"),
        (_WORD.format("False|FALSE"), "{} is not known; write false"),
        (_WORD.format("if|else|elif"), "there is no {}; write condition ? this : that"),
        (r"\?\?|\?\.", "{} is not offered; test with has(…) where a field may be absent"),
        (r"(?<!&)&(?!&)", "& is no operator; write &&, or math.bitAnd(…) for bits"),
        (r"(?<!\|)\|(?!\|)", "| is no operator; write ||, or math.bitOr(…) for bits"),
        # As it comes from `${{ input.name }}`.
        (r"^\{[^{}:]+\}$", "these braces make a map, which has keys; write the value without them"),
    )
)
_OTHER_NAMES = {
    **dict.fromkeys(("len", "length", "count"), "size"),
    **dict.fromkeys(("str", "toString", "String"), "string"),
    **dict.fromkeys(("float", "number", "Number"), "double"),
    **dict.fromkeys(("lower", "toLower", "toLowerCase"), "lowerAscii"),
    **dict.fromkeys(("upper", "toUpper", "toUpperCase"), "upperAscii"),
    **dict.fromkeys(("any", "some"), "exists"),
    **dict.fromkeys(("substr", "slice"), "substring"),
    **dict.fromkeys(("includes", "has_key"), "contains"),
    **dict.fromkeys(("date", "datetime"), "timestamp"),
    "every": "all",
    "strip": "trim",
    "max": "math.greatest",
    "min": "math.least",
}


def habit(source: str) -> str:
    """Return what is wrong where and what to write, if a habit of another language shows; else nothing."""
    seen = code(source)
    if "${" in seen:
        return AS_IT_STANDS
    for pattern, advice in _HABITS:
        if found := pattern.search(seen):
            before = seen[: found.start()]
            line, column = before.count("\n") + 1, found.start() - before.rfind("\n")
            return f"line {line}, column {column}: {advice if '{{' in advice else advice.format(found[0])}"
    return ""


def mustache(text: str, names: Collection[str]) -> str:
    """Return what is wrong with a text that is to be used as it is, if it holds `{{ }}` around a variable of ours."""
    for found in _MUSTACHE.finditer(text):
        if found[2] in names:
            written, inside = found[0], found[1]
            quoted = "'" + written.replace("\\", "\\\\").replace("'", "\\'") + "'"
            return f"has {written}, but templates are ${{ {inside} }}; for the text itself write ${{ {quoted} }}"
    return ""


def variable(name: str, names: Collection[str]) -> str:
    """Return the end of a sentence about an unknown variable: the one that was probably meant, or all."""
    close = _similar(name, names)
    return f"did you mean {close}?" if close else f"known are {', '.join(sorted(names)) or 'none'}"


def function(name: str, source: str) -> str:
    """Return the end of a sentence about an unknown function: the one that was probably meant, or where all are."""
    if name == "now":
        return "an expression knows no clock, so that it gives the same whenever it is computed"
    wanted = called[0] if (called := re.search(rf"\b{re.escape(name)}\.\w+", source)) else name
    if written := next((entry.form for entry in functions() if entry.name == wanted), ""):
        return f"write {written}"
    known = [entry.name for entry in functions() if entry.name[0].isalpha()]
    close = _OTHER_NAMES.get(wanted) or _similar(wanted, known)
    if not close:
        close = next((other for other in known if other.partition(".")[2] == wanted), "")
    return f"did you mean {close}?" if close else "`flowkeep functions` lists all that there are"


def _similar(name: str, known: Collection[str]) -> str:
    return next(iter(get_close_matches(name, known, n=1)), "") if len(name) <= _LONGEST_NAME else ""
