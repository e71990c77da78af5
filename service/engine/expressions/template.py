"""JSON-like values with `${ CEL }` in their strings."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from service.engine import payload
from service.engine.expressions import hints
from service.engine.expressions.cost import Allowance
from service.engine.expressions.errors import ExpressionError
from service.engine.expressions.expression import Expression, compile_value
from service.engine.expressions.extent import Measures
from service.engine.expressions.library import MAX_SOURCE
from service.engine.expressions.pieces import PIECE
from service.engine.expressions.secret import Secret, count_of_places, paths_of, secret_of
from service.engine.schema_places import Path
from service.engine.violations import ValidationError, Violation

# Each takes some 10 µs, and its result may be a whole payload.
MAX_EXPRESSIONS = 256

# Each is asked for by itself, and what comes back is searched for all of them.
MAX_SECRETS = 16

_CHECK = 80  # work for each value
_MAX_VIOLATIONS = 100

_OPEN = re.compile(r"\$?\$\{")


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON-like value in which any string may hold `${ CEL }`; keys are taken as they are.

    A string that is one `${ … }` from end to end becomes the result, with its type. Otherwise results are put into
    the text: strings as they are, others as compact JSON. `$${` stands for a literal `${`. `references` are the ids
    of the steps that are named, `reads` those of which output or error is read, and `previous` those of the round
    before, as an Expression has them; `size` is about how many bytes of memory the expressions take. `secrets` are
    the names of those that belong into its strings, by the paths of these.
    """

    is_constant: bool
    references: frozenset[str]
    reads: frozenset[str]
    size: int = field(repr=False, compare=False)
    _value: Any = field(repr=False)
    _field: str = field(repr=False, compare=False)
    _least: int = field(repr=False, compare=False, default=0)  # work, whatever its expressions are
    secrets: Mapping[Path, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    previous: frozenset[str] = frozenset()

    @classmethod
    def parse(
        cls,
        value: Any,
        names: frozenset[str],
        field: str = "params",
        *,
        is_written_now: bool = False,
        cel_at: Container[str] = (),
        compiled: Mapping[str, Expression | ExpressionError] = MappingProxyType({}),
        may_hold_secrets: bool = False,
    ) -> Template:
        """Return the template of a value that `payload.normalise` accepts, over variables of these names.

        Raises ValidationError with everything that is wrong, under `field`: what does not compile, a `${` without
        its `}`, more than 256 expressions and places for secrets, more than 16 secrets; and, when it is written now by
        somebody who can mend it, text such as `{{ input.name }}`, by which a template was surely meant, but at the
        paths `cel_at`, where others compile CEL.
        What is `compiled` before, by its source, is not compiled again, whether it could be or not.
        """
        parser = _Parser(names, is_written_now, cel_at, compiled, field, may_hold_secrets=may_hold_secrets)
        parsed = parser.value(value, field)
        if parser.violations:
            raise ValidationError(parser.violations)
        references = frozenset[str]().union(*(expression.references for expression in parser.expressions))
        previous = frozenset[str]().union(*(expression.previous for expression in parser.expressions))
        reads = frozenset[str]().union(*(expression.reads for expression in parser.expressions))
        # In messages of an execution the path begins at the step: `params.body`, not `definition.steps[3].params.body`.
        size = sum(expression.size for expression in parser.expressions)
        least = Measures().of(value).work(_CHECK)
        secrets = MappingProxyType(dict(paths_of(parsed)) if parser.has_secrets else {})
        if len(frozenset[str]().union(*secrets.values())) > MAX_SECRETS:
            raise ValidationError([Violation(field, f"names more than {MAX_SECRETS} secrets")])
        is_constant = not (parser.expressions or secrets)
        return cls(is_constant, references, reads, size, parsed, field.rpartition(".")[2], least, secrets, previous)

    @classmethod
    def constant(cls, value: Any, field: str) -> Template:
        """Return the template of a value without any expression."""
        return cls(True, frozenset(), frozenset(), 0, value, field.rpartition(".")[2])

    @property
    def least_values(self) -> int:
        """How many values it has at least, whatever its expressions give."""
        return _least_values(self._value)

    def member(self, name: str) -> Template:
        """Return the template of a member of this one, which is an object."""
        value = self._value[name]
        return replace(self, _value=value, _field=payload.join_path(self._field, name))

    def render(self, variables: Mapping[str, Any], allowance: Allowance | None = None) -> Any:
        """Return the value with its results, normalised; a constant is the same object every time.

        Takes at most about 50 ms in all, or what is left in `allowance`. Raises ExpressionError, which names the path
        of what failed, and with an allowance PutOffError.
        """
        if self.is_constant:
            return self._value
        allowance = allowance or Allowance()
        allowance.take(self._least)
        rendered = _render(self._value, self._field, variables, allowance)
        try:
            return payload.normalise(rendered, self._field)
        except ValidationError as error:
            raise ExpressionError(str(error.violations[0])) from None


def _least_values(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(map(_least_values, value.values()))
    return 1 + sum(map(_least_values, value)) if isinstance(value, list) else 1


@dataclass(frozen=True, slots=True)
class _Text:
    """Literal text, expressions and places for secrets in turn."""

    pieces: tuple[str | Expression | Secret, ...]

    @property
    def secrets(self) -> frozenset[str]:
        """Names of those that belong into it."""
        return frozenset(piece.name for piece in self.pieces if isinstance(piece, Secret))

    @property
    def count_of_secrets(self) -> int:
        """How many places for secrets it has."""
        return sum(isinstance(piece, Secret) for piece in self.pieces)


class _Parser:
    def __init__(
        self,
        names: frozenset[str],
        is_written_now: bool,
        cel_at: Container[str],
        compiled: Mapping[str, Expression | ExpressionError],
        field: str,
        *,
        may_hold_secrets: bool,
    ) -> None:
        self._names = names
        self._may_hold_secrets = may_hold_secrets
        self.has_secrets = False
        self._field = field
        self._count = 0
        self._compiled = compiled
        self._cel_at = cel_at
        self._is_written_now = is_written_now
        self.expressions: list[Expression] = []
        self.violations: list[Violation] = []

    def value(self, value: Any, path: str) -> Any:
        """Return the value with every string that holds a `${` replaced; others are the same objects."""
        if isinstance(value, str):
            if "${" in value:
                return self._string(value, path)
            self._look_at(value, path)
            return value
        if isinstance(value, Mapping):
            parsed = {key: self.value(item, payload.join_path(path, key)) for key, item in value.items()}
            return parsed if any(parsed[key] is not item for key, item in value.items()) else value
        if isinstance(value, list):
            items = [self.value(item, payload.join_path(path, index)) for index, item in enumerate(value)]
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        return value

    def _string(self, text: str, path: str) -> str | Expression | Secret | _Text:
        try:
            pieces = self._pieces(text)
        except ExpressionError as error:
            self._wrong(path, str(error))
            return text
        for piece in pieces:
            if isinstance(piece, str):
                self._look_at(piece, path)
        match pieces:
            case (Expression() | Secret() as whole,):
                return whole
            case _ if any(isinstance(piece, Expression | Secret) for piece in pieces):
                return _Text(pieces)
        return "".join(str(piece) for piece in pieces)

    def _look_at(self, text: str, path: str) -> None:
        if not self._is_written_now or "{{" not in text or path in self._cel_at:
            return
        if wrong := hints.mustache(text, self._names):
            self._wrong(path, wrong)

    def _wrong(self, path: str, description: str) -> None:
        """Note what is wrong, and give up at the hundredth: more would help nobody."""
        self.violations.append(Violation(path, description))
        if len(self.violations) >= _MAX_VIOLATIONS:
            raise ValidationError(self.violations)

    def _pieces(self, text: str) -> tuple[str | Expression | Secret, ...]:
        pieces: list[str | Expression | Secret] = []
        at = 0
        while opening := _OPEN.search(text, at):
            pieces.append(text[at : opening.start()])
            if opening[0] == "$${":
                pieces.append("${")
                at = opening.end()
            else:
                at = _closing(text, opening.end())
                pieces.append(self._compile(text[opening.end() : at - 1]))
        pieces.append(text[at:])
        return tuple(piece for piece in pieces if piece != "")

    def _compile(self, source: str) -> Expression | Secret:
        self._count += 1
        if self._count > MAX_EXPRESSIONS:  # nobody has compiled those before
            self.violations.append(Violation(self._field, f"has more than {MAX_EXPRESSIONS} expressions"))
            raise ValidationError(self.violations)
        if (secret := secret_of(source)) is not None:
            if not self._may_hold_secrets:
                raise ExpressionError("names a secret, which only the params of a step that calls a handler may do")
            self.has_secrets = True
            return secret
        source = source.strip()
        expression = self._compiled.get(source) or compile_value(source, self._names)
        if isinstance(expression, ExpressionError):
            raise expression
        self.expressions.append(expression)
        return expression


def sources(value: Any) -> Iterator[str]:
    """Yield the CEL in the strings of a value, as far as it can be told where it ends."""
    if isinstance(value, str):
        if "${" in value:
            with suppress(ExpressionError):
                yield from (value[start:end].strip() for start, end in _found(value))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from sources(item)
    elif isinstance(value, list):
        for item in value:
            yield from sources(item)


def _found(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    while opening := _OPEN.search(text, at):
        at = opening.end()
        if opening[0] != "$${":
            at = _closing(text, at)
            yield opening.end(), at - 1


def _closing(text: str, start: int) -> int:
    """Return the index behind the `}` that closes an expression. Raises ExpressionError."""
    depth = 0
    # One more character than an expression may have, so that a long text is not searched over and over.
    end = start + MAX_SOURCE + 1
    for piece in PIECE.finditer(text, start, end):
        if piece[0] == "{":
            depth += 1
        elif piece[0] == "}":
            if not depth:
                return piece.end()
            depth -= 1
    if end < len(text):
        raise ExpressionError(f"has a ${{ that is not closed within {MAX_SOURCE} characters")
    raise ExpressionError("has a ${ without its closing }; write $${ for a literal ${")


def _render(value: Any, path: str, variables: Mapping[str, Any], allowance: Allowance) -> Any:
    if isinstance(value, Expression):
        return _result(value, path, variables, allowance)
    if isinstance(value, _Text):
        return _joined(value, path, variables, allowance)
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _render(item, payload.join_path(path, key), variables, allowance) for key, item in value.items()}
    if isinstance(value, list):
        return [_render(item, f"{path}[{index}]", variables, allowance) for index, item in enumerate(value)]
    return value


def _result(expression: Expression, path: str, variables: Mapping[str, Any], allowance: Allowance) -> Any:
    try:
        return expression.spend(variables, allowance)
    except ExpressionError as error:
        raise ExpressionError(f"{path}: {error}") from None


def _joined(text: _Text, path: str, variables: Mapping[str, Any], allowance: Allowance) -> str:
    pieces = [
        _as_text(_result(piece, path, variables, allowance)) if isinstance(piece, Expression) else str(piece)
        for piece in text.pieces
    ]
    joined = "".join(pieces)
    if (secrets := text.count_of_secrets) and count_of_places(joined) != secrets:
        raise ExpressionError(f"{path}: what stands beside the secret reads like the name of one, too")
    return joined


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else payload.encode(value).decode()
