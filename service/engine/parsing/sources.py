"""Compiles the CEL of a workflow, and checks which steps it reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from service.engine import payload
from service.engine.definition import PREVIOUS, index_name
from service.engine.expressions import (
    Expression,
    ExpressionError,
    Template,
    compile_condition,
    compile_value,
)
from service.engine.expressions.template import MAX_EXPRESSIONS as MAX_IN_TEMPLATE
from service.engine.expressions.template import sources
from service.engine.graph import Precedence
from service.engine.handlers.model import OF_ANSWER
from service.engine.parsing.fields import Findings
from service.engine.schema import nearest
from service.engine.slices import Work
from service.engine.violations import ValidationError

VARIABLES = frozenset({"input", "vars", "steps", "execution"})
IN_PARAMS = VARIABLES | {"attempt"}
IN_ASSIGN = IN_PARAMS | {"result"}
# In what an engine step assigns: it has no attempts.
OF_ENGINE_STEP = VARIABLES | {"result"}
LONGEST = 4096
# Each takes some 0.1 ms to compile, in which the process does nothing else.
MAX_EXPRESSIONS = 5_000
# In microseconds: what it takes to look for the name that was meant. And what a template is read with.
_SUGGESTION = 2_000
_BYTES_A_MICROSECOND = 4


@dataclass(frozen=True, slots=True)
class Use:
    """At `field`, the step `reader` of a block reads the step `read`. No reader: the output of the block.

    `near` are the ids of the blocks inside, in which there is none of that name.
    """

    field: str
    reader: str
    read: str
    near: frozenset[str] = frozenset()


class Sources:
    """Compiles the expressions and templates of one block, notes what is wrong, and remembers the steps that they read.

    In what is written now, not loaded, it also notes what a template was surely meant by. `outer` is that of the block
    in which the step `owner` runs this one for each item of a list; without it, this is the root.
    """

    def __init__(
        self,
        findings: Findings,
        *,
        is_written_now: bool,
        outer: Sources | None = None,
        owner: str = "",
        more: frozenset[str] = frozenset(),
        is_round: bool = False,
    ) -> None:
        self._findings = findings
        self._is_written_now = is_written_now
        self._uses: list[Use] = []
        self._outer = outer
        self._owner = owner
        self._more = more
        self._is_round = is_round
        # Fields, and the steps of the round before that they read.
        self._of_previous: list[tuple[str, str]] = []
        # How many expressions there are in all blocks.
        self._counter: list[int] = [0] if outer is None else outer._counter

    def of_body(self, owner: str, item_name: str = "item", *, is_round: bool = False) -> Sources:
        """Return those of the block that a step of this one runs for each item, or in rounds."""
        more = self._more | {item_name, index_name(item_name)} | ({PREVIOUS} if is_round else set())
        return Sources(
            self._findings, is_written_now=self._is_written_now, outer=self, owner=owner, more=more, is_round=is_round
        )

    def condition(
        self, source: str, field: str, reader: str, names: frozenset[str] = VARIABLES
    ) -> Work[Expression | None]:
        """Return a compiled condition, None when it is wrong."""
        return self._compile(compile_condition, source, field, reader, names | self._more)

    def value(self, source: str, field: str, reader: str, names: frozenset[str]) -> Work[Expression | None]:
        """Return a compiled expression for any value, None when it is wrong."""
        return self._compile(compile_value, source, field, reader, names | self._more)

    def of_handler(self, source: str, field: str, names: frozenset[str]) -> Work[Expression | None]:
        """Return a compiled expression that a handler evaluates, which sees these variables and no others."""
        return self._compile(compile_value, source, field, "", names)

    def template(
        self,
        value: Any,
        field: str,
        reader: str,
        names: frozenset[str],
        cel_at: Container[str] = (),
        *,
        may_hold_secrets: bool = False,
    ) -> Work[Template | None]:
        """Return a template, None when an expression in it is wrong. At `cel_at` there is CEL as it stands."""
        text = payload.encode(value)
        if not self._admits(text.count(b"${"), field):
            return None
        yield len(text) // _BYTES_A_MICROSECOND
        if b"${" not in text and not (self._is_written_now and b"{{" in text):
            return Template.constant(value, field)
        compiled = yield from self._compiled(value, names | self._more)
        try:
            template = Template.parse(
                value,
                names | self._more,
                field,
                is_written_now=self._is_written_now,
                cel_at=cel_at,
                compiled=compiled,
                may_hold_secrets=may_hold_secrets,
            )
        except ValidationError as error:
            self._findings.add_all(error)
            return None
        self._note(template, field, reader)
        return template

    def _compiled(self, value: Any, names: frozenset[str]) -> Work[Mapping[str, Expression | ExpressionError]]:
        """Return the expressions that a template may have, or what is wrong with them."""
        compiled: dict[str, Expression | ExpressionError] = {}
        for source in dict.fromkeys(islice(sources(value), MAX_IN_TEMPLATE)):
            yield _cost(source)
            try:
                compiled[source] = compile_value(source, names)
            except ExpressionError as error:
                compiled[source] = error
        return compiled

    def refuse_uses(self, names: Collection[str], reader: str = "") -> None:
        """Note each reading of a step of one of these names, which hide what is meant; by `reader`, or at all."""
        left, hidden = list[Use](), "a name that the steps of tools take; rename it"
        for use in self._uses:
            if use.read in names and reader in ("", use.reader):
                self._findings.add(use.field, f'reads step "{use.read}", {hidden}')
            else:
                left.append(use)
        self._uses = left

    def check_uses(
        self, ids: Mapping[str, int], misnamed: Collection[str], order: Precedence | None, is_graph: bool
    ) -> Work[None]:
        """Note each reading of a step that does not exist, or that need not have ended by then.

        What the block does not have may be of those around it: they are checked later, and with them what is left.
        """
        for use in self._uses:
            yield 1
            if use.read in misnamed:
                continue
            if use.read not in ids and self._outer is not None:
                self._outer._uses.append(Use(use.field, self._owner, use.read, use.near.union(ids)))
            elif use.read not in ids:
                yield _SUGGESTION
                meant = nearest(use.read, sorted(use.near.union(ids)) if use.near else ids)
                self._findings.add(use.field, f'reads step "{use.read}", which does not exist{meant}')
            elif use.read == use.reader:
                self._findings.add(use.field, f'reads its own step "{use.read}"; only assign can, as `result`')
            elif order is not None and use.reader in ids and not order.precedes(use.read, use.reader):
                self._findings.add(use.field, _too_early(use, is_graph))
        yield from self._check_previous(ids, misnamed)

    def _note(self, read: Expression | Template, field: str, reader: str) -> None:
        self._uses.extend(Use(field, reader, each) for each in sorted(read.references))
        self._of_previous.extend((field, each) for each in sorted(read.previous))

    def _check_previous(self, ids: Mapping[str, int], misnamed: Collection[str]) -> Work[None]:
        """Note what is read of steps of the round before that rounds do not have, in what is written now.

        In what was accepted before, such a reading may stand where it is never evaluated, or in `has`.
        """
        if not self._is_round and self._outer is not None:
            self._outer._of_previous += self._of_previous
        elif self._is_written_now:
            for field, read in self._of_previous:
                yield 1
                if read not in ids and read not in misnamed:
                    yield _SUGGESTION
                    text = f'reads "{PREVIOUS}.{read}", but the rounds have no step "{read}"{nearest(read, ids)}'
                    self._findings.add(field, text)

    def _admits(self, count: int, field: str) -> bool:
        """Return whether so many more expressions may be compiled. Said of the first field that goes beyond."""
        before = self._counter[0]
        after = self._counter[0] = before + count
        if before <= MAX_EXPRESSIONS < after:
            self._findings.add(field, f"goes beyond the {MAX_EXPRESSIONS:,} expressions that a workflow may have")
        return after <= MAX_EXPRESSIONS

    def _compile(
        self,
        compiler: Callable[[str, frozenset[str]], Expression],
        source: str,
        field: str,
        reader: str,
        names: frozenset[str],
    ) -> Work[Expression | None]:
        if len(source) > LONGEST:
            self._findings.add(field, f"has {len(source):,} characters; an expression has at most {LONGEST:,}")
            return None
        if not self._admits(1, field):
            return None
        yield _cost(source)
        try:
            expression = compiler(source, names)
        except ExpressionError as error:
            self._findings.add(field, str(error))
            return None
        self._note(expression, field, reader)
        return expression


def prepare() -> None:
    """Make what the first expression would have to wait for."""
    for names in (VARIABLES, IN_PARAMS, IN_ASSIGN, OF_ENGINE_STEP, OF_ANSWER):
        compile_value("true", names)


def _cost(source: str) -> int:
    """Return about how many microseconds a source takes to compile."""
    return 100 + 3 * len(source)


def _too_early(use: Use, is_graph: bool) -> str:
    if is_graph:
        return f'reads step "{use.read}" without waiting for it; add "{use.read}" to depends_on'
    return f'reads step "{use.read}", which runs later; only earlier steps have an output by then'
