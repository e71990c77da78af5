"""What is wrong with a value, or should be otherwise, field by field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: `field` is the path of it (`input.items[3].name`), empty for the whole.

    `of_definition` goes on with the description for those alone who may read the definition, which it repeats.
    """

    field: str
    description: str
    of_definition: str = ""

    @property
    def told(self) -> Violation:
        """As it is told to those who may read the definition."""
        return Violation(self.field, self.description + self.of_definition)

    def under(self, field: str) -> Violation:
        """Return it as one of a field."""
        return replace(self, field=field)

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


@dataclass(frozen=True, slots=True)
class DefinitionWarning:
    """One thing in a sound definition that should be otherwise; `code` is that of the proto, without its prefix."""

    field: str
    code: str
    description: str


class ValidationError(Exception):
    """Everything that is wrong with a value, all at once."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations: tuple[Violation, ...] = tuple(violations)
        super().__init__("; ".join(map(str, self.violations)))


def below(path: str, field: str) -> str:
    """Return the path of a field of what stands at `path`; of the whole, the path itself."""
    return path if field in ("", path, "definition") else f"{path}.{field}"


@contextmanager
def violations_under(path: str) -> Iterator[None]:
    """Put `path` before the field of every violation that is raised inside, unless it is about the whole."""
    try:
        yield
    except ValidationError as error:
        raise ValidationError([each.under(below(path, each.field)) for each in error.violations]) from None
