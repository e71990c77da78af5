"""The mutants of a module: small changes of its code, each of which a test should notice."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

COMPARED = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}  # fmt: skip
COMPUTED = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "//"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"), ast.BitOr: ("|", "&"), ast.BitAnd: ("&", "|"), ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"), ast.Pow: ("**", "*"),
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutation:
    """One change: these characters of a module become others."""

    start: int
    end: int
    text: str

    def applied(self, source: str) -> str:
        """The module with the change."""
        return source[: self.start] + self.text + source[self.end :]


def mutations(source: str) -> list[Mutation]:
    """All changes of a module, in the order of its text. What only says or annotates something is left as it is."""
    found = _Finder(source)
    found.visit(ast.parse(source))
    return sorted(set(found.mutations), key=lambda each: (each.start, each.end, each.text))


def function_at(source: str, offset: int) -> str:
    """Return the qualified name of the innermost function in whose body this character of a module stands, if any."""
    line, name, within = source.count("\n", 0, offset) + 1, "", ""
    nodes: list[ast.AST] = list(ast.parse(source).body)
    while nodes:
        node = nodes.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            nodes += [each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.expr)]
        elif node.body[0].lineno <= line <= (node.end_lineno or 0):
            within += node.name
            name = within if not isinstance(node, ast.ClassDef) else name
            within += "." if isinstance(node, ast.ClassDef) else ".<locals>."
            nodes = list(node.body)
    return name


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = [0]
        for line in source.encode().splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._bytes = source.encode()
        self.mutations: list[Mutation] = []

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self.visit(node.value)
            return
        if isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or _is_log(node.value)):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for each in [*_defaults(node), *node.body]:
                self.visit(each)
            return
        if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
            return
        for texts, make in _RULES:
            if isinstance(node, texts):
                for of, text in make(node, self._text):
                    self._add(of, text)
        super().visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            start, end = self._span(left)[1], self._span(right)[0]
            text, other = COMPARED[type(operator)]
            self.mutations.append(Mutation(start, end, self._source[start:end].replace(text, other, 1)))
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nothing: before 3.12 Python does not tell where the parts of it stand."""

    def _offset(self, line: int, column: int) -> int:
        return len(self._bytes[: self._lines[line - 1] + column].decode())

    def _span(self, node: Any) -> tuple[int, int]:
        start = self._offset(node.lineno, node.col_offset)
        return start, self._offset(node.end_lineno, node.end_col_offset)

    def _text(self, node: Any) -> str:
        start, end = self._span(node)
        return self._source[start:end]

    def _add(self, of: Any, text: str) -> None:
        first, last = of if isinstance(of, tuple) else (of, of)
        start, end = self._span(first)[0], self._span(last)[1]
        if self._source[start:end] != text:
            self.mutations.append(Mutation(start, end, text))


Text = Callable[[Any], str]
Made = Iterator[tuple[Any, str]]


def _computed(node: ast.BinOp, text: Text) -> Made:
    if type(node.op) in COMPUTED:
        yield node, f"({text(node.left)}) {COMPUTED[type(node.op)][1]} ({text(node.right)})"


def _augmented(node: ast.AugAssign, text: Text) -> Made:
    if type(node.op) in COMPUTED:
        yield node, f"{text(node.target)} {COMPUTED[type(node.op)][1]}= {text(node.value)}"
    yield node, "pass"


def _joined(node: ast.BoolOp, text: Text) -> Made:
    other = " or " if isinstance(node.op, ast.And) else " and "
    yield node, "(" + other.join(f"({text(each)})" for each in node.values) + ")"
    for left_out in node.values:
        kept = [each for each in node.values if each is not left_out]
        yield node, "(" + (" and " if isinstance(node.op, ast.And) else " or ").join(f"({text(k)})" for k in kept) + ")"


def _turned(node: ast.UnaryOp, text: Text) -> Made:
    if isinstance(node.op, ast.Not | ast.USub):
        yield node, f"({text(node.operand)})"


def _decided(node: Any, text: Text) -> Made:
    for other in (f"(not ({text(node.test)}))", "True", "False"):
        if not (isinstance(node, ast.While) and other != "False" and text(node.test) == "True"):
            yield node.test, other


def _filtered(node: ast.comprehension, text: Text) -> Made:
    for each in node.ifs:
        yield each, f"(not ({text(each)}))"
        yield each, "True"


def _constant(node: ast.Constant, text: Text) -> Made:
    match node.value:
        case bool():
            yield node, str(not node.value)
        case int():
            yield node, str(node.value + 1)
        case float():
            yield node, repr(2 * node.value + 1)
        case str():
            yield node, repr(node.value + "?")
        case bytes():
            yield node, repr(node.value + b"?")


def _said(node: ast.Expr, text: Text) -> Made:
    """A call of which only the effect matters is left out."""
    if isinstance(node.value, ast.Call | ast.Await):
        yield node, "pass"


def _assigned(node: ast.Assign, text: Text) -> Made:
    if all(isinstance(each, ast.Attribute | ast.Subscript) for each in node.targets):
        yield node, "pass"


def _left_out(node: ast.stmt, text: Text) -> Made:
    yield node, "pass"


def _looped(node: Any, text: Text) -> Made:
    yield node, "break" if isinstance(node, ast.Continue) else "continue"


def _returned(node: ast.Return, text: Text) -> Made:
    if node.value is not None and text(node.value) != "None":
        yield node, "return None"


def _called(node: ast.Call, text: Text) -> Made:
    if (other := NAMES.get(_name(node.func))) is not None:
        yield node.func, other
    arguments = node.args
    may_swap = _name(node.func) not in NAMES and not any(isinstance(each, ast.Starred) for each in arguments[:2])
    if len(arguments) > 1 and may_swap:
        yield (arguments[0], arguments[1]), f"{text(arguments[1])}, {text(arguments[0])}"
    for keyword in node.keywords:
        kept = [text(each) for each in (*arguments, *node.keywords) if each is not keyword]
        yield node, f"{text(node.func)}({', '.join(kept)})"


_RULES: list[tuple[Any, Callable[[Any, Text], Made]]] = [
    (ast.BinOp, _computed), (ast.AugAssign, _augmented), (ast.BoolOp, _joined),
    (ast.UnaryOp, _turned), (ast.If | ast.While | ast.IfExp, _decided), (ast.comprehension, _filtered),
    (ast.Constant, _constant), (ast.Expr, _said), (ast.Assign, _assigned), (ast.Delete | ast.Raise, _left_out),
    (ast.Break | ast.Continue, _looped), (ast.Return, _returned), (ast.Call, _called),
]  # fmt: skip


def _defaults(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.expr]:
    if isinstance(node, ast.ClassDef):
        return []
    return [each for each in (*node.args.defaults, *node.args.kw_defaults) if each is not None]


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_log(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _name(node.func.value) == "log"
