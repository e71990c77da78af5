"""Definitions in files: read, checked in one pass with every fault at its place, and applied together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from flowkeep.errors import DefinitionError, InvalidArgumentError, Violation
from flowkeep.payload import member
from flowkeep.reading import Reading, is_at_or_below, read
from service.cli.reading import Document, Fault, Place, TextError, UnreadableError, parse_documents, path_of, read_text

if TYPE_CHECKING:
    from flowkeep.advice import DefinitionWarning
    from flowkeep.client import Client
    from flowkeep.v1.workflow_service_pb2 import ApplyWorkflowsResponse


class Finding(NamedTuple):
    """One thing that is wrong, with the file, the document in it (counted from 1), the place, and the step's id."""

    file: str
    document: int
    line: int
    column: int
    step: str
    field: str
    description: str

    def __str__(self) -> str:
        what = f"{self.field}: " if self.field else ""
        step = f"step {self.step}: " if self.step else ""
        return f"{self.file}:{self.line}:{self.column}: {step}{what}{self.description}"


class Caution(NamedTuple):
    """One thing in a sound definition that should be otherwise, with its code and its place as a finding has it."""

    code: str
    finding: Finding

    def __str__(self) -> str:
        return f"{self.finding} ({self.code})"

    def json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**self.finding._asdict(), "code": self.code}


class UnsoundError(DefinitionError):
    """Definitions are not sound. `findings` holds all that is wrong with all of them."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__([Violation(each.field, str(each)) for each in findings])
        self.findings = list(findings)


@dataclass(frozen=True)
class Written:
    """A definition as it stands in a file, and as it was read."""

    file: str
    number: int
    document: Document
    reading: Reading

    def findings(self, found: Iterable[Violation] = ()) -> list[Finding]:
        """Return all that is wrong, in the order of the file: with the text, the fields, and what the service found."""
        faults = self.document.faults
        left_out = [_text(fault.path) for fault in faults if fault.is_left_out]
        violations = [
            violation
            for violation in self.reading.with_found(found)
            if not any(is_at_or_below(violation.field, path) for path in left_out)
        ]
        all_of_it = [*map(self._of_fault, faults), *map(self.finding, violations)]
        return sorted(dict.fromkeys(all_of_it), key=lambda each: (each.line, each.column))

    def finding(self, violation: Violation) -> Finding:
        """Return a violation with its place."""
        field = "" if violation.field == "definition" else violation.field
        path = path_of(field)
        description = violation.description
        if (written := self.document.written.get(path)) is not None:
            description = f"{description} (YAML reads {written} so)"
        return self._at(self.document.place(path), field, description)

    def caution(self, warning: DefinitionWarning) -> Caution:
        """Return a warning with its place, and nothing of what stands there."""
        field = self.reading.written(warning.field)
        return Caution(warning.code, self._at(self.document.place(path_of(field)), field, warning.description))

    def _of_fault(self, fault: Fault) -> Finding:
        return self._at(fault.place, _text(fault.path), fault.description)

    def _at(self, place: Place, field: str, description: str) -> Finding:
        return Finding(self.file, self.number, *place, self._step(field), field, description)

    def _step(self, field: str) -> str:
        """Return the step in which a field stands, the innermost one by its place, such as `fan_out.fetch`."""
        found, steps, path = list[str](), self.reading.message.steps, "steps"
        while True:
            for index, step in enumerate(steps):
                if is_at_or_below(field, self.reading.written(f"{path}[{index}]")):
                    found.append(step.id)
                    steps, path = step.for_each.steps, f"{path}[{index}].for_each.steps"
                    break
            else:
                return ".".join(found)


def read_definitions(files: Sequence[str]) -> tuple[list[Written], list[Finding]]:
    """Return the definitions of files, and of `-` standard input, with a finding for each text that is no document.

    Raises TextError for a file that cannot be read, or in which there is nothing.
    """
    if files.count("-") > 1:
        raise TextError("standard input can be read once")
    written, findings = list[Written](), list[Finding]()
    for file in files:
        text, number = read_text(file), 0
        try:
            for number, document in enumerate(parse_documents(text, file), 1):
                written.append(Written(file, number, document, read(document.value)))
        except UnreadableError as error:
            number += 1
            findings.append(Finding(file, number, *error.place, "", "", error.description))
        if not number:
            raise TextError(f"{file}: there is no definition in it")
    return written, findings


async def validate_files(client: Client, files: Sequence[str]) -> tuple[list[Finding], list[Caution]]:
    """Return all that is wrong with the definitions in files, and what should be otherwise in those that are sound."""
    written, findings = read_definitions(files)
    cautions: list[Caution] = []
    for each in written:
        checked = await client.validate_workflow(each.reading.message)
        findings += each.findings(checked)
        cautions += map(each.caution, checked.warnings)
    return _in_order(findings, files), cautions


async def apply_files(
    client: Client, files: Sequence[str], *, dry_run: bool = False, request_id: str | None = None
) -> tuple[list[ApplyWorkflowsResponse.Result], list[Caution]]:
    """Make workflows be as the definitions in files say, all or none; return in order what became of each.

    With `dry_run` return what would become of them. Beside it stands what should be otherwise in the definitions.
    Raises UnsoundError with all that is wrong.
    """
    written, findings = read_definitions(files)
    findings += _twice_named(written)
    refusal: Exception | None = None
    if not findings and not any(each.findings() for each in written):
        try:
            messages = [each.reading.message for each in written]
            applied = await client.apply(messages, validate_only=dry_run, request_id=request_id)
            return applied, [_caution(each, written) for each in applied.warnings]
        except (InvalidArgumentError, DefinitionError) as error:
            refusal = error
    # The error of a call has room for a few violations; the answer of a check has room for all.
    found = await _found(client, written)
    for each, violations in zip(written, found, strict=True):
        findings += each.findings(violations)
    if not findings and refusal:
        raise refusal
    raise UnsoundError(_in_order(findings, files))


async def _found(client: Client, written: Sequence[Written]) -> list[list[Violation]]:
    """Return what the service finds wrong with each definition."""
    if not written:
        return []
    try:
        await client.apply([each.reading.message for each in written], validate_only=True)
    except DefinitionError as error:
        return [_of_definition(error.violations, index) for index in range(len(written))]
    return [[] for _ in written]


def _caution(warning: DefinitionWarning, written: Sequence[Written]) -> Caution:
    """Return a warning about one of several definitions with its place."""
    index, _, field = warning.field.removeprefix("definitions[").partition("].")
    return written[int(index)].caution(warning._replace(field=field))


def _of_definition(violations: Iterable[Violation], index: int) -> list[Violation]:
    whole = f"definitions[{index}]"
    return [
        Violation(path.removeprefix(whole).removeprefix("."), text)
        for path, text in violations
        # Two of one name are told of with their places.
        if is_at_or_below(path, whole) and not (path == f"{whole}.name" and " is the name of definitions[" in text)
    ]


def _twice_named(written: Sequence[Written]) -> list[Finding]:
    """Return a finding for each definition that has the name of one before."""
    first: dict[str, Written] = {}
    findings = []
    for each in written:
        name = each.reading.message.name
        before = first.setdefault(name, each)
        if name and before is not each:
            place = before.document.place(("name",))
            text = f"{name!r} is the name of the workflow in {before.file}:{place.line}:{place.column} too"
            findings.append(each.finding(Violation("name", text)))
    return findings


def _in_order(findings: Iterable[Finding], files: Sequence[str]) -> list[Finding]:
    return sorted(findings, key=lambda each: (files.index(each.file), each.line, each.column))


def _text(path: Iterable[str | int]) -> str:
    text = ""
    for part in path:
        text = f"{text}[{part}]" if isinstance(part, int) else member(text, part)
    return text
