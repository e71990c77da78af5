"""One expression: compiled once, evaluated over the values of an execution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from persistence.model import UNREAD
from service.engine import payload
from service.engine.expressions import tree
from service.engine.expressions.cost import Allowance, find, is_costly, least_work
from service.engine.expressions.errors import ExpressionError
from service.engine.expressions.library import Program, program, syntax
from service.engine.expressions.messages import MISSING_KEY
from service.engine.expressions.numbers import as_doubles
from service.engine.kept import Kept
from service.engine.violations import ValidationError

# Of memory, about; most of it is the library's, which Python does not see.
KEPT_BYTES = 24 << 20
_BYTES, _NODE_BYTES = 1_500, 350

EVERY_STEP = "*"
"""Stands among the ids of steps that are read for all of them."""

_DIVIDES = " (does it divide by zero?)"
# A text up to here counts as small: what reads only small values and has no loop needs no estimate of its work.
_SMALL_TEXT = 256

# The part of the variables that an expression reads: keys below, or None for the whole value.
_Wanted = dict[tree.Key, "_Wanted | None"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression; safe to share. `names` are the variables it reads, `references` the ids of steps.

    `reads` are those steps of which it may read output or error: EVERY_STEP, when it computes which. `size` is about
    how many bytes of memory it takes.
    """

    source: str
    names: frozenset[str]
    references: frozenset[str]
    reads: frozenset[str]
    is_condition: bool
    size: int = field(repr=False, compare=False)
    _tree: tree.Node = field(repr=False, compare=False)
    _paths: tuple[tuple[tree.Key, ...], ...] = field(repr=False, compare=False)
    _wanted: _Wanted = field(repr=False, compare=False)
    _is_costly: bool = field(repr=False, compare=False)
    _least: int = field(repr=False, compare=False)  # work, whatever it reads
    _program: Program = field(repr=False, compare=False)

    @property
    def previous(self) -> frozenset[str]:
        """The ids X of `previous.X`: steps of the round before."""
        return _references(self._paths, "previous")

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """Return the value: JSON-like, normalised, with sorted keys; a bool if this is a condition.

        Timestamps come as RFC 3339 in UTC, durations as seconds ("90s"). Takes at most about 20 ms: what could take
        longer is refused before it starts. Raises ExpressionError.
        """
        return self.spend(variables, Allowance())

    def spend(self, variables: Mapping[str, Any], allowance: Allowance) -> Any:
        """Do what `evaluate` does, with the work that is left in `allowance`. Raises PutOffError, too."""
        # The library converts the whole of each variable that is touched, at 80 ns a value, so it gets only what is
        # read: with all of `steps`, every condition of a large execution would take milliseconds.
        large: list[Any] = []
        seen = _pick(variables, self._wanted, large)
        allowance.take(self._least)
        in_pieces = False
        if large or self._is_costly:
            in_pieces = allowance.spend(self._tree, variables, large, self._program.can_build_in_pieces)
        try:
            value = self._program.run(as_doubles(seen) if large else seen, in_pieces=in_pieces)
        except ExpressionError as error:
            raise ExpressionError(self._explain(str(error), variables)) from None
        return self._accept(value)

    def _accept(self, value: Any) -> Any:
        if type(value) is bool:
            return value
        if self.is_condition:
            raise ExpressionError(f"a condition must be true or false, but this gives {_kind(value)}")
        try:
            return payload.normalise(value, "result")
        except ValidationError as error:
            wrong = str(error.violations[0])
            raise ExpressionError(wrong + _DIVIDES if payload.NOT_FINITE in wrong else wrong) from None

    def _explain(self, message: str, variables: Mapping[str, Any]) -> str:
        """Name the whole path of a missing key where it can be told."""
        if not message.startswith(MISSING_KEY):
            return message
        for keys in self._paths:
            for end in range(1, len(keys)):
                present = find(variables, keys[:end])
                if isinstance(present, Mapping) and keys[end] not in present and f'"{keys[end]}"' in message:
                    return f"there is no {_written(keys[: end + 1])}; test with has(…) where it may be absent"
        return message


def compile_condition(source: str, names: frozenset[str]) -> Expression:
    """Return a condition over variables of these names; it has no `map` and no `filter`, which are quadratic.

    Raises ExpressionError when it does not compile, names an unknown variable, cannot be a bool or is over a limit:
    4,096 characters, 1,000 parts, 32 levels, loops within loops twice.
    """
    return _kept(source, names, is_condition=True)


def _condition(source: str, names: frozenset[str]) -> Expression:
    expression = _compile(source, names, is_condition=True)
    if any(isinstance(node, tree.Loop) and node.collects for node in tree.walk(expression._tree)):
        raise ExpressionError("uses map or filter, which a condition cannot; use exists, all or exists_one")
    if kind := expression._program.always_not_bool:
        raise ExpressionError(f"a condition must be true or false, but this gives {kind}")
    return expression


def compile_value(source: str, names: frozenset[str]) -> Expression:
    """Return an expression of any JSON-like value over variables of these names.

    What it builds of a map is in the order of the keys. Raises ExpressionError when it does not compile, names an
    unknown variable or is over a limit: 4,096 characters, 1,000 parts, 32 levels, loops within loops twice.
    """
    return _kept(source, names, is_condition=False)


def step_references(source: str) -> frozenset[str]:
    """Return the ids X of `steps.X` and `steps["X"]`; none if the source does not parse. A computed id is not seen."""
    try:
        return _references(_paths(tree.read(syntax(source))))
    except ExpressionError:
        return frozenset()


_expressions: Kept[tuple[str, frozenset[str], bool], Expression] = Kept(KEPT_BYTES)


def _kept(source: str, names: frozenset[str], *, is_condition: bool) -> Expression:
    key = (source, names, is_condition)
    if (known := _expressions.get(key)) is not None:
        return known
    expression = _condition(source, names) if is_condition else _compile(source, names, is_condition=False)
    _expressions.put(key, expression, expression.size)
    return expression


def _compile(source: str, names: frozenset[str], is_condition: bool) -> Expression:
    parsed = syntax(source)
    root = tree.read(parsed)
    compiled = program(source, parsed, names)
    paths = _paths(root)
    return Expression(
        source=source,
        names=frozenset(name for keys in paths if (name := str(keys[0])) in names),
        references=_references(paths),
        reads=_reads(paths),
        is_condition=is_condition,
        size=_BYTES + len(source) + _NODE_BYTES * sum(1 for _ in tree.walk(root)),
        _tree=root,
        _paths=paths,
        _wanted=_wanted(keys for keys in paths if keys[0] in names),
        _is_costly=is_costly(tree.walk(root)),
        _least=least_work(tree.walk(root)),
        _program=compiled,
    )


def _paths(root: tree.Node) -> tuple[tuple[tree.Key, ...], ...]:
    return tuple(dict.fromkeys(node.keys for node in tree.walk(root) if isinstance(node, tree.Path)))


def _references(paths: Iterable[tuple[tree.Key, ...]], variable: str = "steps") -> frozenset[str]:
    return frozenset(str(keys[1]) for keys in paths if len(keys) > 1 and keys[0] == variable)


def _reads(paths: Iterable[tuple[tree.Key, ...]]) -> frozenset[str]:
    of_steps = [keys[1:3] for keys in paths if keys[0] == "steps"]
    return frozenset(str(keys[0]) if keys else EVERY_STEP for keys in of_steps if keys[1:] != ("state",))


def _wanted(paths: Iterable[tuple[tree.Key, ...]]) -> _Wanted:
    wanted: _Wanted = {}
    for *above, last in sorted(paths, key=len):
        node: _Wanted | None = wanted
        for key in above:
            node = node.setdefault(key, {}) if node is not None else None
        # None stays: the whole is wanted already.
        if node is not None:
            node.setdefault(last, None)
    return wanted


def _pick(values: Mapping[Any, Any], wanted: _Wanted, large: list[Any]) -> dict[Any, Any]:
    """Return what is wanted of a mapping as the library takes it, but for what is added to the `large`."""
    picked: dict[Any, Any] = {}
    for key, below in wanted.items():
        if key not in values:
            continue
        value = values[key]
        kind = type(value)
        if below is not None and (kind is dict or isinstance(value, Mapping)):
            value = _pick(value, below, large)
        elif kind is int:
            value = float(value)
        elif len(value) > _SMALL_TEXT if isinstance(value, str) else kind not in _SCALARS:
            if value is UNREAD:
                raise RuntimeError("an expression reads what was not loaded")  # a mistake of ours, not of its author
            large.append(value)
        picked[key] = value
    return picked


def _written(keys: tuple[tree.Key, ...]) -> str:
    path = ""
    for key in keys:
        path = payload.join_path(path, key)
    return path


def _kind(value: Any) -> str:
    return {str: "a string", list: "a list", dict: "a map", type(None): "null"}.get(type(value), "a number")


_SCALARS = frozenset({int, float, bool, NoneType})
