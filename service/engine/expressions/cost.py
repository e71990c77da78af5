"""How much work an expression may be, told from its tree and from the sizes of what it reads, before it runs.

The library holds the GIL and cannot be stopped, and its only own limit is 10,000 loop rounds. Without this bound,
`"…".matches(pattern)` ran for 155 s, and `cel.bind` doubling a list 28 times or one `replace` took all memory.

The bound is in units of about 8 ns on the 2-core machine on which it was measured. It is an upper bound: every value
has a size in units, every call costs the sizes it reads and writes, and whatever runs in a loop is counted for every
round. What depends on numbers only is therefore cheap, and sizes are those of the real values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from service.engine.expressions.library import ExpressionError
from service.engine.expressions.regex import program_size
from service.engine.expressions.tree import Bind, Call, Constant, Key, Local, Loop, Many, Node, Path

MAX_WORK = 4_000_000
MAX_COLLECTED = 1_000  # elements of the list that `map` or `filter` goes over; they are quadratic
MAX_ROUNDS = 10_000  # of all loops of one evaluation; the library stops beyond

# Measured with cel-expr-python 0.1.3: a character 5 to 8 ns, a value 100 to 200 ns, a call 100 ns, a pair of
# elements in `map` 9 to 15 ns, an instruction of a regex 180 ns to compile and 25 ns per character to run,
# 100 pairs of characters in a search 1 ns.
_VALUE, _CALL, _PAIR = 24, 16, 1
_REGEX_COMPILE, _REGEX_RUN, _SEARCH = 24, 4, 500

_OPERATORS = ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "@in")
_TESTS = ("size", "contains", "startsWith", "endsWith", "matches", "indexOf", "lastIndexOf")
_PREDICATES = frozenset({*_OPERATORS, *_TESTS, "int", "uint", "double", "bool"})
_SEARCHES = frozenset(("contains", "indexOf", "lastIndexOf", "split", "replace"))
# These write up to four (bytes, quote, base64) or eight (format: %b, %x) characters for one.
_GROWTH = {"bytes": 4, "quote": 4, "strings.quote": 4, "encode": 4, "base64.encode": 4, "format": 8}
COSTLY = frozenset({*_SEARCHES, *_GROWTH, "matches", "join"})


class Extent(NamedTuple):
    """Bounds on a value that is computed once in every round of a scope."""

    size: int  # of the largest
    total: int  # of all together
    width: int = 0  # most elements in one
    elements: int = 0  # in all together
    item: int = 0  # of the largest element


class Scope(NamedTuple):
    """Where a node is evaluated: how often, and with which names bound to which extents."""

    rounds: int = 1
    depth: int = 0
    names: Mapping[str, tuple[Extent, int]] = MappingProxyType({})

    def bind(self, name: str, extent: Extent) -> Scope:
        return self._replace(names={**self.names, name: (extent, self.depth)})

    def look_up(self, name: str) -> Extent:
        """Return the extent of a name; one of an outer scope may be its largest in every round of this one."""
        extent, depth = self.names[name]
        if depth == self.depth:
            return extent
        return extent._replace(total=extent.size * self.rounds, elements=extent.width * self.rounds)

    def each(self, size: int, width: int = 0, item: int = 0) -> Extent:
        """Return the extent of a value that may have this size in every round."""
        return Extent(size, size * self.rounds, width, width * self.rounds, item)


def is_costly(nodes: Iterator[Node]) -> bool:
    """Return whether the work can exceed a small multiple of what the expression reads."""
    return any(isinstance(node, Loop | Bind) or (isinstance(node, Call) and node.function in COSTLY) for node in nodes)


class Allowance:
    """The work that is left, for one evaluation or for all those of a template."""

    def __init__(self) -> None:
        self._left = MAX_WORK

    def spend(self, tree: Node, variables: Mapping[str, Any]) -> None:
        """Take the work of an expression. Raises ExpressionError when it may be more than is left."""
        estimate = _Estimate(variables, self._left)
        estimate.result(tree)
        self._left = estimate.left


class _Estimate:
    """One walk over the tree; stops as soon as the work is over the limit."""

    def __init__(self, variables: Mapping[str, Any], left: int) -> None:
        self._variables = variables
        self._measured: dict[tuple[Key, ...], tuple[int, int, int]] = {}
        self.left = left

    def result(self, tree: Node) -> None:
        """Take the work of everything; a result is handled twice more, to convert it and to check it."""
        self._take(2 * self._extent(tree, Scope()).total)

    def _take(self, work: int) -> None:
        self.left -= work
        if self.left < 0:
            raise ExpressionError(
                "may need too much work for the sizes of its values; use shorter lists or texts, or fewer steps at once"
            )

    def _extent(self, node: Node, scope: Scope) -> Extent:
        match node:
            case Constant(value):
                return scope.each(_VALUE + (len(value) if isinstance(value, str) else 0))
            case Path(keys):
                return scope.each(*self._path(keys))
            case Local(name):
                return scope.look_up(name)
            case Many():
                return self._many(node, scope)
            case Loop():
                return self._loop(node, scope)
            case Bind():
                return self._extent(node.body, scope.bind(node.name, self._extent(node.value, scope)))
            case Call():
                return self._call(node, scope)

    def _path(self, keys: tuple[Key, ...]) -> tuple[int, int, int]:
        """Return size, width and largest element; the library converts a value when it is first read."""
        if keys not in self._measured:
            self._measured[keys] = _dimensions(find(self._variables, keys), self.left)
            self._take(self._measured[keys][0])
        return self._measured[keys]

    def _many(self, node: Many, scope: Scope) -> Extent:
        items = [self._extent(item, scope) for item in node.items]
        self._take(_CALL * scope.rounds * (1 + node.count))
        base = scope.each(_VALUE, node.count, max((item.size for item in items), default=0))
        return base._replace(
            size=base.size + sum(item.size for item in items), total=base.total + sum(item.total for item in items)
        )

    def _loop(self, node: Loop, scope: Scope) -> Extent:
        over = self._extent(node.range, scope)
        if node.collects and over.width > MAX_COLLECTED:
            raise ExpressionError(f"uses map or filter on what may be more than {MAX_COLLECTED:,} elements")
        rounds = max(1, min(over.elements, MAX_ROUNDS))
        inner = Scope(rounds, scope.depth + 1, scope.names)
        inner = inner.bind(node.variable, _inside(over.item, over.total)).bind("@result", inner.each(_VALUE))
        step = self._extent(node.step, inner)
        self._take(_CALL * rounds)
        if not node.collects:
            return scope.each(_VALUE)
        self._take(_PAIR * over.width * rounds)
        size = _VALUE + min(step.total, step.size * over.width)
        return Extent(size, step.total + _VALUE * scope.rounds, over.width, over.elements, step.size)

    def _call(self, node: Call, scope: Scope) -> Extent:
        operands = [self._extent(operand, scope) for operand in node.operands]
        self._take(_CALL * scope.rounds)
        match node.function:
            case "_?_:_":
                return _sum(operands, scope)
            case "." | "_[_]":
                return _inside(operands[0].size, operands[0].total)
            case "has":
                return scope.each(_VALUE)
        self._take(sum(operand.total for operand in operands))
        written = self._written(node, operands, scope)
        self._take(written.total)
        return written

    def _written(self, node: Call, operands: list[Extent], scope: Scope) -> Extent:
        if node.function in _SEARCHES and len(operands) > 1:
            self._take(operands[0].total * operands[1].size // _SEARCH)
        match node.function:
            case "matches" if len(operands) == 2:
                self._match(node, operands, scope)
            case "replace" if len(operands) > 2:
                return self._replaced(node, operands, scope)
            case "join" if operands:
                return _joined(operands)
            case "split" if len(operands) > 1:
                return self._split(node, operands[0], scope)
            case "format" if operands:
                operands = [*operands, self._numbers(node, operands[0], scope)]
        if node.function in _PREDICATES:
            return scope.each(_VALUE)
        return _grow(_sum(operands, scope), _GROWTH.get(node.function, 1))

    def _match(self, node: Call, operands: list[Extent], scope: Scope) -> None:
        pattern = self._text(node.operands[1])
        # A few characters of an unknown pattern can mean a thousand instructions: `.{100}`.
        program = program_size(pattern) if pattern is not None else 200 * operands[1].size
        self._take(program * (_REGEX_COMPILE * scope.rounds + _REGEX_RUN * operands[0].total))

    def _replaced(self, node: Call, operands: list[Extent], scope: Scope) -> Extent:
        text, old, new = operands[0], self._text(node.operands[1]), operands[2].size
        # The empty string stands between any two characters; of an unknown one no length is known.
        length = max(1, len(old or ""))
        size = text.size + (text.size // length + 1) * new
        return Extent(size, text.total + (text.total // length + scope.rounds) * new)

    def _split(self, node: Call, text: Extent, scope: Scope) -> Extent:
        whole, separator = self._text(node.operands[0]), self._text(node.operands[1])
        if whole is not None and separator:
            parts = whole.count(separator) + 1
        else:
            parts = text.size // max(1, len(separator or "")) + 1
        added = scope.each(_VALUE * parts, parts, text.size)
        return added._replace(size=added.size + text.size, total=added.total + text.total)

    def _numbers(self, node: Call, template: Extent, scope: Scope) -> Extent:
        """Return what numbers may add: `%f` writes up to 310 digits, and 1,000 more as `%.1000f`."""
        text = self._text(node.operands[0])
        return scope.each(400 * template.size if text is None else 310 * text.count("%") + 1000 * text.count("%."))

    def _text(self, node: Node) -> str | None:
        """Return the string that a node always is, if that is known."""
        match node:
            case Constant(str() as text):
                return text
            case Path(keys) if isinstance(text := find(self._variables, keys), str):
                return text
        return None


def find(variables: Mapping[str, Any], keys: tuple[Key, ...]) -> Any:
    """Return the value at a path, None when it is not there."""
    value: Any = variables
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def measure(value: Any, limit: int) -> int:
    """Return the size of a value: its characters, and 24 for each value in it. Stops soon after `limit`."""
    size, pending = 0, [value]
    while pending and size <= limit:
        item = pending.pop()
        size += _VALUE
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, Mapping):
            size += sum(map(len, item)) + _VALUE * len(item)
            pending.extend(item.values())
    return size


def _dimensions(value: Any, limit: int) -> tuple[int, int, int]:
    if isinstance(value, list):
        size = largest = 0
        for item in value:
            one = measure(item, limit - size)
            size += one
            largest = max(largest, one)
            if size > limit:
                break
        return _VALUE + size, len(value), largest
    if isinstance(value, Mapping):
        return measure(value, limit), len(value), _VALUE + max(map(len, value), default=0)
    return measure(value, limit), 0, 0


def _inside(size: int, total: int) -> Extent:
    """Return the extent of a part of a value of this extent; an element takes 24 units or more."""
    return Extent(size, total, size // _VALUE, total // _VALUE, size)


def _sum(extents: list[Extent], scope: Scope) -> Extent:
    sizes, totals, widths, elements, items = zip(scope.each(_VALUE), *extents, strict=True)
    return Extent(sum(sizes), sum(totals), sum(widths), sum(elements), max(items))


def _grow(extent: Extent, factor: int) -> Extent:
    return extent._replace(size=extent.size * factor, total=extent.total * factor)


def _joined(operands: list[Extent]) -> Extent:
    texts, separator = operands[0], operands[1].size if len(operands) > 1 else 0
    return Extent(texts.size + texts.width * separator, texts.total + texts.elements * separator)
