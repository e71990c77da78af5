"""What the library says, in one line for a person."""

from __future__ import annotations

import re
from collections.abc import Collection

from service.engine.expressions import hints

MISSING_KEY = "there is no key "
TOO_DEEP = "is nested or chained more than 32 levels deep"

_MAX_MESSAGE = 300

_POSITION = re.compile(r"^ERROR: <input>:(-?\d+):(-?\d+): ")
_STATUS = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")
_SYNTAX = re.compile(r"^Syntax error: [^'\"]*(?=['\"])|[,;]? expecting (\{.*|'?<EOF>'?$)")
_UNDECLARED = re.compile(r"undeclared reference to '([^'.\s]+)\S*(?: \(in container.*|$)")
_OVERLOAD = re.compile(
    r"no matching overloads? (?:found : |for ')(?:\((.*)\)\.)?_?([^(\s']+?)_?'?(?: applied to ')?(?:\((.*)\)'?)?$", re.I
)
_KEY = re.compile(r"(?:unsupported|invalid) map key type: '?([^\s'<]+)", re.I)
_SHOWN = {"[": "[…]", "[_]": "[…]", "@in": "in", "-_": "-", "!_": "!"}
_NAMESPACES = ("base64", "cel", "math", "strings")
_KNOWN = {
    "Iteration budget exceeded": "loops more than 10,000 times in all",
    "Expression recursion limit exceeded": "is nested more than 32 levels deep",
    "Exceeded max recursion depth": TOO_DEEP,
    "<jump_condition>": "tests a value that is not a bool",
    "<iter_range>": "loops over a value that is neither a list nor a map",
    "Applying SELECT to non-message type": "takes a field of a value that is not a map",
    "construction from null": "reads a string with half of a surrogate pair",
    "expected integer type, got double": "indexes a list by a number that is not whole",
    "String to Duration conversion failed": 'reads a duration that is none; write "1h30m", "45s", "7d" or "PT5M"',
}


def clean(message: str) -> str:
    """Return the first complaint without the library's prefixes, source dump and lists of tokens."""
    line = _STATUS.sub("", message.partition("\n")[0]).replace("Key not found in map : ", MISSING_KEY)
    for sign, meaning in _KNOWN.items():
        if sign in line:
            return meaning
    if key := _KEY.search(line):
        return f"builds a map with a key of type {type_name(key[1])}; write a string, or string(…) around it"
    at = _POSITION.match(line)
    text = line[at.end() :] if at else line
    if text.startswith("Syntax error"):
        text = "unexpected " + _SYNTAX.sub("", text).replace("'<EOF>'", "end")
    if overload := _OVERLOAD.search(text):
        text = _no_overload(overload[2], type_name(", ".join(kinds for kinds in (overload[1], overload[3]) if kinds)))
    text = _short(text).rstrip(". ") or "fails without saying why"
    return f"line {at[1]}, column {at[2]}: {text}" if at else text


def refusal(message: str, source: str, names: frozenset[str]) -> str:
    """Return why a source does not compile, and what was probably meant."""
    if meant := hints.habit(source):
        return meant
    text = clean(message)
    unknown = _UNDECLARED.search(text)
    if not unknown:
        return text
    # The library does not tell an unknown variable from an unknown function.
    name = unknown[1]
    if name in _NAMESPACES or re.search(rf"\b{re.escape(name)}\s*\(", source):
        explained = f"unknown function '{name}'; {hints.function(name, source)}"
    else:
        explained = f"unknown variable '{name}'; {hints.variable(name, names)}"
    return text[: unknown.start()] + explained


def only_lacks_ints(message: str, functions: Collection[str]) -> bool:
    """Return whether all that the check complains of are doubles where these functions take ints."""
    complaints = [line for line in _STATUS.sub("", message).split("\n") if line.startswith("ERROR: ")]
    found = [_OVERLOAD.search(_STATUS.sub("", complaint)) for complaint in complaints]
    return bool(found) and all(
        overload and overload[2].rpartition(".")[2] in functions and "double" in (overload[3] or "")
        for overload in found
    )


def _no_overload(operation: str, kinds: str) -> str:
    if operation == "?_:":
        return f"the two results of ? : have different types ({kinds}); write dyn(…) around one"
    text = f"cannot apply {_SHOWN.get(operation, operation)} to ({kinds or 'these types'})"
    if operation == "+" and "string" in kinds.split(", "):
        text += "; write string(…) around what is no string"
    if operation == "@in":
        text += "; of a string write b.contains(a)"
    if {"int", "uint"} <= set(kinds.split(", ")):
        text += "; write int(…) around the uint"
    return text


def _short(text: str) -> str:
    # Keys and sources are quoted in messages, and Postgres would refuse to keep a NUL.
    text = "".join(character if character.isprintable() else "�" for character in text[: _MAX_MESSAGE + 1])
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"


def type_name(name: str) -> str:
    return name.lower().replace("int64", "int").replace("null_type", "null").replace("<dyn, dyn>", "")
