"""The syntax tree of an expression, read from the parser's own protobuf (`cel.expr.ParsedExpr`).

Macros are expanded in it: `exists`, `all`, `map` and the like are loops, `cel.bind` is a binding.
The field numbers are those of cel/expr/syntax.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service import wire
from service.engine.expressions.errors import ExpressionError

# See FAULTS P9. The parser itself refuses trees deeper than 32.
MAX_NODES = 1_000
MAX_LOOP_NESTING = 2

Key = str | int


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal: its value when it is a string or a whole number, else None."""

    value: Key | None


@dataclass(frozen=True, slots=True)
class Path:
    """A variable and the constant keys below it: `steps.a.output[0]` is `("steps", "a", "output", 0)`."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Local:
    """A name bound by a loop or by `cel.bind`."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function, an operator, a computed index or `has`."""

    function: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A field of a computed value."""

    of: Node
    key: str


@dataclass(frozen=True, slots=True)
class Many:
    """A list or map literal; `count` is its number of elements or entries."""

    items: tuple[Node, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Loop:
    """A macro over a list or map; `collects` when it builds a list (`map`, `filter`).

    With one variable it goes over the elements or keys. With two (`second` is not empty) it goes over the indexes or
    keys, and `second` is the element or value.
    """

    variable: str
    second: str
    range: Node
    step: Node
    collects: bool


@dataclass(frozen=True, slots=True)
class Bind:
    """`cel.bind(name, value, body)`."""

    name: str
    value: Node
    body: Node


Node = Constant | Path | Local | Member | Call | Many | Loop | Bind


def read(parsed: bytes) -> Node:
    """Return the tree of an expression that `library.syntax` parsed. Raises ExpressionError when it is too large.

    It has at most 1,000 nodes and loops nested at most twice.
    """
    expression = wire.fields(wire.block(wire.fields(parsed), 2))
    return _Reader().read(wire.block(expression, 2), frozenset(), 0)


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and everything beneath it."""
    yield node
    match node:
        case Call(operands=below) | Many(items=below):
            children = below
        case Member(of):
            children = (of,)
        case Loop():
            children = (node.range, node.step)
        case Bind():
            children = (node.value, node.body)
        case _:
            return
    for child in children:
        yield from walk(child)


_Scope = frozenset[str]


class _Reader:
    """Counts nodes while it reads; `loops` is the number of loop bodies around the node at hand."""

    def __init__(self) -> None:
        self._nodes = 0
        self._rules: dict[int, Callable[[wire.Fields, _Scope, int], Node]] = {
            3: self._constant,
            4: self._name,
            5: self._select,
            6: self._call,
            7: self._list,
            8: self._map,
            9: self._comprehension,
        }

    def read(self, message: bytes, scope: _Scope, loops: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ExpressionError(f"has more than {MAX_NODES:,} parts")
        node = wire.fields(message)
        for number, rule in self._rules.items():
            if number in node:
                return rule(wire.fields(wire.block(node, number)), scope, loops)
        raise ExpressionError("has a part that is not known here")

    def _constant(self, node: wire.Fields, scope: _Scope, loops: int) -> Node:
        if 6 in node:
            return Constant(wire.text(node, 6))
        number = node.get(3, [None])[0]
        if not isinstance(number, int):
            # The others (null, bool, uint, double, bytes) are never keys; the length of bytes counts as text.
            return Constant("x" * len(wire.block(node, 7)) if 7 in node else None)
        return Constant(number - (1 << 64) if number >> 63 else number)

    def _name(self, node: wire.Fields, scope: _Scope, loops: int) -> Node:
        name = wire.text(node, 1)
        # A leading dot reaches past the names of loops to the variable.
        return Local(name) if name in scope else Path((name.removeprefix("."),))

    def _select(self, node: wire.Fields, scope: _Scope, loops: int) -> Node:
        operand, key = self.read(wire.block(node, 1), scope, loops), wire.text(node, 2)
        below = Path((*operand.keys, key)) if isinstance(operand, Path) else Member(operand, key)
        return Call("has", (below,)) if 3 in node else below

    def _call(self, node: wire.Fields, scope: _Scope, loops: int) -> Node:
        messages = [*wire.blocks(node, 1), *wire.blocks(node, 3)]
        operands = tuple(self.read(message, scope, loops) for message in messages)
        match wire.text(node, 2), operands:
            case "_[_]", (Path(keys), Constant(str() | int() as key)):
                return Path((*keys, key))
            case function, _:
                return Call(function, operands)

    def _list(self, node: wire.Fields, scope: _Scope, loops: int) -> Node:
        items = tuple(self.read(message, scope, loops) for message in wire.blocks(node, 1))
        return Many(items, len(items))

    def _map(self, node: wire.Fields, scope: _Scope, loops: int) -> Node:
        if message_type := wire.text(node, 1):
            raise ExpressionError(f"builds the message {message_type}; use a map: {{'key': value}}")
        entries = [wire.fields(entry) for entry in wire.blocks(node, 2)]
        messages = [wire.block(entry, number) for entry in entries for number in (3, 4)]
        return Many(tuple(self.read(message, scope, loops) for message in messages), len(entries))

    def _comprehension(self, node: wire.Fields, scope: _Scope, loops: int) -> Node:
        if wire.text(node, 1) == "#unused":
            return self._bind(node, scope, loops)
        if loops >= MAX_LOOP_NESTING:
            raise ExpressionError(f"nests loops more than {MAX_LOOP_NESTING} deep")
        start = wire.fields(wire.block(node, 4))
        if 8 in start:
            raise ExpressionError("uses transformMap or transformMapEntry, which are not offered; use transformList")
        variable, second, result = wire.text(node, 1), wire.text(node, 8), wire.text(node, 3)
        return Loop(
            variable,
            second,
            self.read(wire.block(node, 2), scope, loops),
            self.read(wire.block(node, 6), scope | {variable, second, result}, loops + 1),
            # `map` and `filter` start from a list, the others from a bool or a number.
            collects=7 in start,
        )

    def _bind(self, node: wire.Fields, scope: _Scope, loops: int) -> Node:
        name = wire.text(node, 3)
        value = self.read(wire.block(node, 4), scope, loops)
        return Bind(name, value, self.read(wire.block(node, 7), scope | {name}, loops))
