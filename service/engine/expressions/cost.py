"""How much work an expression may be, told from its tree and from the values it reads, before it runs.

The library holds the GIL and cannot be stopped, and its only own limit is 10,000 loop rounds. Without this bound,
one `matches` ran for 155 s, and `cel.bind` doubling a list 28 times, or one `replace`, took all memory.

The bound is an upper one, in units of about 5 ns on the 2-core machine on which they were measured, and 8 ns when
others want its processors: a call costs the sizes it reads and writes, and what stands in a loop counts in every round.
Sizes are those of the real values as far as these can be followed without evaluating, else of what they are part of.
To find the bound is part of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from service.engine.expressions.errors import ExpressionError, PutOffError
from service.engine.expressions.extent import VALUE, Extent, Measures, Scope, contents, elements, keys, members
from service.engine.expressions.regex import program_size
from service.engine.expressions.results import PIECE
from service.engine.expressions.rewrite import ZONED
from service.engine.expressions.tree import Bind, Call, Constant, Key, Local, Loop, Many, Member, Node, Path

MAX_WORK = 4_800_000
"""Most work of one part of an allowance: 20 to 25 ms, in which nobody else has the event loop. Two loops over a list of
8,000 numbers fit into it, which are charged for more than they take."""

PER_ALLOWANCE = 600_000
"""Work after which the next part is put off: 4 ms."""

PER_STEP = 1_200_000
"""Work of all outcomes of a step, or of all that it assigns, after which no more of them is evaluated."""

MAX_COLLECTED = 1_000  # elements of what `map` or `filter` goes over (LIBRARIES C5)
MAX_ROUNDS = 10_000  # of all loops of one evaluation; the library stops beyond

# Measured with cel-expr-python 0.1.3: a call or a round of a loop 100 to 300 ns, a pair of elements in `map` 9 to 17,
# an instruction of a regex 230 ns to compile and at worst 22 ns per character to run, a search 1 ns for 100 pairs of
# characters, and what is replaced 33 ns.
# Durations and computed time zones are read, and the computed keys of a map compared, by our own code.
_CALL, _PAIR, _REGEX_COMPILE, _REGEX_RUN, _SEARCH, _REPLACE = 24, 1.8, 40, 3, 500, 3
_DURATION, _ZONE, _DISTINCT = 600, 600, 400
# What a list that is built in pieces costs for each element and by itself, and the pairs from which on it is.
_IN_PIECES, _PIECES, _FEW_PAIRS = 200, 1_500, 100_000

_OPERATORS = ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "@in")
_TESTS = ("size", "contains", "startsWith", "endsWith", "matches", "indexOf", "lastIndexOf")
_PREDICATES = frozenset({*_OPERATORS, *_TESTS, "int", "uint", "double", "bool"})
_SEARCHES = frozenset({"contains", "indexOf", "lastIndexOf", "split", "replace"})
# How many characters (or bytes) these may write for one.
_GROWTH = {"bytes": 4, "quote": 2, "encode": 2}
# Of each value: to give it to the library, to take it back and check it, to write it into an event, and to follow it.
_GIVE, _TAKE, _WRITE, _FOLLOW = 32, 80, 200, 40
# Of an evaluation, and of each node with what small values it reads.
_LEAST, _LEAST_NODE = 1_000, 40
_SMALL_VALUE = 1_024  # bytes
_COLLECTED = Local("@result")
_COSTLY = frozenset({*_SEARCHES, *_GROWTH, "matches", "join", "format"})


def is_costly(nodes: Iterable[Node]) -> bool:
    """Return whether the work can exceed a small multiple of what the expression reads."""
    return any(isinstance(node, Loop | Bind) or (isinstance(node, Call) and node.function in _COSTLY) for node in nodes)


def least_work(nodes: Iterable[Node]) -> int:
    """Return the work of an expression that reads only small values."""
    return _LEAST + _LEAST_NODE * sum(1 for _ in nodes)


class Allowance:
    """The work that is allowed in one go: of one application of the planner, or of one evaluation elsewhere.

    It is taken in parts that cannot be cut. The first may be MAX_WORK; what does not fit into the rest is put off.
    """

    __slots__ = ("_limit", "spent")

    def __init__(self) -> None:
        self.spent = 0
        self._limit = MAX_WORK

    def begin(self) -> None:
        """Begin another part. Raises PutOffError when there is no more room for one."""
        if self.spent >= PER_ALLOWANCE:
            raise PutOffError
        self._limit = PER_ALLOWANCE if self.spent else MAX_WORK

    def take(self, work: int) -> None:
        """Take work of a part, before it is done.

        Raises PutOffError when it may be more than is left, and ExpressionError when that was all.
        """
        if self.spent + work > self._limit:
            raise self._refusal()
        self.spent += work

    def count(self, work: int) -> None:
        """Take work that follows from a part and cannot be refused any more."""
        self.spent += work

    def count_value(self, value: Any, size: int) -> None:
        """Take the work of checking a value of so many bytes, or writing it into an event."""
        # A value has two bytes at least.
        self.spent += _WRITE // 2 * size if size <= _SMALL_VALUE else Measures().of(value).work(_WRITE)

    def spend(
        self,
        tree: Node,
        variables: Mapping[str, Any],
        given: Sequence[Any],
        can_build_in_pieces: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Take the work of an expression, for which these large values are given to the library; raises as `take`.

        Returns whether its lists are to be built in pieces.
        """
        estimate = _Estimate(variables, self._limit - self.spent)
        try:
            estimate.give(given)
            estimate.take(estimate.taking(tree))
            return estimate.building(can_build_in_pieces)
        except _TooMuchError:
            raise self._refusal() from None
        finally:
            self.spent = self._limit - max(0, estimate.left)

    def _refusal(self) -> ExpressionError | PutOffError:
        """Return the error of a part, after which nothing else fits; what is put off has not been done."""
        is_all = self._limit == MAX_WORK
        self.spent = self._limit = max(self.spent, MAX_WORK if is_all else PER_ALLOWANCE)
        if not is_all:
            return PutOffError()
        return ExpressionError("may be too much work for values of this size; use smaller values, or several steps")


class _TooMuchError(Exception):
    """The work is over the limit."""


def find(variables: Mapping[str, Any], keys: tuple[Key, ...]) -> Any:
    """Return the value at a path, None when it is not there."""
    value: Any = variables
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


class _Estimate:
    """One walk over the tree, which ends as soon as the work is over the limit."""

    def __init__(self, variables: Mapping[str, Any], left: int) -> None:
        self._variables = variables
        self._read: dict[tuple[Key, ...], Extent] = {}
        self._measures = Measures(self._look)
        self.left = left
        # Work of the lists that loops build and rounds of all loops, as they are, and what these are in pieces.
        self._pairs = self._rounds = 0
        self._work_in_pieces = self._more_rounds = 0

    def take(self, work: int) -> None:
        self.left -= work
        if self.left < 0:
            raise _TooMuchError

    def _look(self, values: int, copying: int) -> None:
        self.take(_GIVE * values + copying)

    def give(self, values: Sequence[Any]) -> None:
        """Take the work of measuring values and giving them to the library."""
        for value in values:
            self._measures.each(value)

    def taking(self, tree: Node) -> int:
        """Return the work of taking the result back and checking it."""
        result = self.extent(tree, Scope())
        if isinstance(tree, Path) and result.values:
            return self._measures.of(result.values[0]).work(_TAKE)
        return _TAKE * result.total // VALUE

    def building(self, can_build_in_pieces: Callable[[], bool]) -> bool:
        """Take the work of building lists, and return whether they are to be built in pieces."""
        has_rounds = self._rounds + self._more_rounds <= MAX_ROUNDS
        is_less = self._pairs > _FEW_PAIRS + self._work_in_pieces
        in_pieces = is_less and has_rounds and can_build_in_pieces()
        self.take(self._work_in_pieces if in_pieces else self._pairs)
        return in_pieces

    def extent(self, node: Node, scope: Scope) -> Extent:
        match node:
            case Constant(value):
                return scope.each(VALUE + (len(value) if isinstance(value, str) else 0))
            case Path(keys):
                return self._path(keys).in_rounds(scope.rounds)
            case Local(name):
                return scope.look_up(name)
            case Member():
                return self._member(node, scope)
            case Many(items, count):
                self.take(_CALL * scope.rounds * (1 + count))
                made = [self.extent(item, scope) for item in items]
                if len(items) > count and sum(not isinstance(key, Constant) for key in items[::2]) > 1:
                    self.take(_DISTINCT * scope.rounds + sum(item.total for item in made))
                largest = max((item.size for item in made), default=0)
                return scope.sum(made)._replace(width=count, elements=count * scope.rounds, item=largest)
            case Loop():
                return self._loop(node, scope)
            case Bind(name, value, body):
                return self.extent(body, scope.bind(name, self.extent(value, scope)))
            case Call():
                return self._call(node, scope)

    def _path(self, keys: tuple[Key, ...]) -> Extent:
        if keys not in self._read:
            self._read[keys] = self._measures.known([find(self._variables, keys)], 1)
        return self._read[keys]

    def _member(self, node: Member, scope: Scope) -> Extent:
        self.take(_CALL * scope.rounds)
        of = self.extent(node.of, scope)
        if of.values is None:
            return of.part(scope.rounds)
        return self._followed(members(of.values, node.key), of.repeats)

    def _followed(self, values: list[Any], repeats: int) -> Extent:
        """Following the values takes time as well."""
        self.take(_FOLLOW * len(values))
        return self._measures.known(values, repeats)

    def _loop(self, node: Loop, scope: Scope) -> Extent:
        over = self.extent(node.range, scope)
        if node.collects and over.width > MAX_COLLECTED:
            raise ExpressionError(f"uses map or filter on what may be more than {MAX_COLLECTED:,} elements")
        rounds = max(1, min(over.elements, MAX_ROUNDS))
        inner = Scope(rounds, scope.depth + 1, scope.names)
        inner = self._bound(node, over, inner).bind(_COLLECTED.name, inner.each(VALUE))
        step = self.extent(node.step, inner)
        self.take(_CALL * rounds * (2 if node.second else 1))
        if _may_be_a_map(node.range, over):
            self.take(over.total)  # once more, to put its keys in order
        self._rounds += rounds
        if not node.collects:
            return scope.each(VALUE)
        pairs = int(_PAIR * over.width * rounds)
        self._pairs += pairs
        self._work_in_pieces += pairs // PIECE + _IN_PIECES * rounds + _PIECES * scope.rounds
        self._more_rounds += rounds // PIECE + scope.rounds
        size = VALUE + min(step.total, step.size * over.width)
        return Extent(size, step.total + VALUE * scope.rounds, over.width, over.elements, step.size)

    def _bound(self, node: Loop, over: Extent, inner: Scope) -> Scope:
        """Return the scope of the step: with the elements or keys, or with these and the elements or values."""
        if over.values is None:
            part = over.part(inner.rounds)
            return inner.bind(node.variable, part).bind(node.second, part)
        if not node.second:
            return inner.bind(node.variable, self._followed(elements(over.values), over.repeats))
        keyed = inner.bind(node.variable, self._followed(keys(over.values), over.repeats))
        return keyed.bind(node.second, self._followed(contents(over.values), over.repeats))

    def _call(self, node: Call, scope: Scope) -> Extent:
        operands = [self.extent(operand, scope) for operand in node.operands]
        self.take(_CALL * scope.rounds)
        match node.function:
            case "_?_:_":
                return scope.sum(operands)
            case "_[_]":
                return operands[0].part(scope.rounds)
            case "has":
                return scope.each(VALUE)
            case "duration" if not isinstance(node.operands[0], Constant):
                self.take(_DURATION * scope.rounds)
            case function if function in ZONED and not isinstance(node.operands[-1], Constant):
                self.take(_ZONE * scope.rounds)
            case "_+_" if node.operands[0] == _COLLECTED:
                return operands[1]  # one more element; what it costs to copy the others is counted by the loop
        self.take(sum(operand.total for operand in operands))
        if node.function in _SEARCHES and len(operands) > 1:
            self.take(operands[0].total * operands[1].characters // _SEARCH)
        written = self._written(node, operands, scope)
        self.take(written.total)
        return written

    def _written(self, node: Call, operands: list[Extent], scope: Scope) -> Extent:
        match node.function:
            case "matches" if len(operands) == 2:
                self._match(node, operands, scope)
            case "replace" if len(operands) > 2:
                return self._replaced(node, operands[0], operands[2], scope)
            case "join" if operands:
                texts, separator = operands[0], operands[1].characters if len(operands) > 1 else 0
                return Extent(texts.size + texts.width * separator, texts.total + texts.elements * separator)
            case "split" if len(operands) > 1:
                return self._split(node, operands[0], scope)
            case "format" if operands:
                return self._formatted(node, operands, scope)
        if node.function in _PREDICATES:
            return scope.each(VALUE)
        return scope.sum(operands).grown(_GROWTH.get(node.function, 1))

    def _match(self, node: Call, operands: list[Extent], scope: Scope) -> None:
        pattern = self._text(node.operands[1])
        # A few characters of an unknown pattern can mean a thousand instructions: `.{100}`.
        program = program_size(pattern) if pattern is not None else 200 * operands[1].characters
        characters = operands[0].total - VALUE * scope.rounds
        self.take(program * (_REGEX_COMPILE * scope.rounds + _REGEX_RUN * characters))

    def _replaced(self, node: Call, text: Extent, new: Extent, scope: Scope) -> Extent:
        # The empty string stands between any two characters; of an unknown one no length is known.
        length = max(1, len(self._text(node.operands[1]) or ""))
        self.take(_REPLACE * text.total // length)
        return Extent(
            text.size + (text.size // length + 1) * new.characters,
            text.total + (text.total // length + scope.rounds) * new.characters,
        )

    def _split(self, node: Call, text: Extent, scope: Scope) -> Extent:
        whole, separator = self._text(node.operands[0]), self._text(node.operands[1])
        if whole is not None and separator:
            parts = whole.count(separator) + 1
        else:
            parts = text.characters // max(1, len(separator or "")) + 1
        added = scope.each(VALUE * parts, parts, text.size)
        return added._replace(size=added.size + text.size, total=added.total + text.total)

    def _formatted(self, node: Call, operands: list[Extent], scope: Scope) -> Extent:
        """`%f` writes up to 310 digits, `%.1000f` 1,000 more; `%b` and `%x` write up to eight for a character."""
        template = self._text(node.operands[0])
        if template is None:
            return scope.sum([*operands, scope.each(400 * operands[0].size)]).grown(8)
        digits = scope.each(310 * template.count("%") + 1_000 * template.count("%."))
        factor = 8 if any(letter in template for letter in "bxXo") else 1
        return scope.sum([*operands, digits]).grown(factor)

    def _text(self, node: Node) -> str | None:
        """Return the string that a node always is, if that is known."""
        match node:
            case Constant(str() as text):
                return text
            case Path(keys) if isinstance(text := find(self._variables, keys), str):
                return text
        return None


def _may_be_a_map(node: Node, extent: Extent) -> bool:
    if extent.values is not None:
        return any(isinstance(value, Mapping) for value in extent.values)
    return not isinstance(node, Many | Loop)
