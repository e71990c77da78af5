"""Workflows: checks definitions, keeps them, and has the parsed ones at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias
from uuid import UUID
from weakref import WeakValueDictionary

from persistence.errors import NotFoundError, UnreadableError
from persistence.model import Applied, Execution, ExecutionDetail, Scope, Workflow
from persistence.repository import WorkflowRepository
from persistence.requests import Method, Request
from service.engine.definition import Definition, StepSpec
from service.engine.handlers.registry import Catalog, Registry
from service.engine.held import Held
from service.engine.ids import uuid7
from service.engine.kept import Kept
from service.engine.mcp.listing import Offer, offers
from service.engine.parsing import Defaults, parsing, prepare
from service.engine.payload import size as json_size
from service.engine.plain_secrets import plain_secrets
from service.engine.planning.outline import outlining
from service.engine.requests import asked
from service.engine.shared_reads import SharedReads
from service.engine.slices import in_slices
from service.engine.violations import DefinitionWarning, ValidationError, Violation, below
from service.engine.workers.known import KnownHandlers, Shown

KEPT_BYTES = 24 << 20
"""Of parsed definitions that nobody uses, in memory; their sizes are told for about half of what they are."""

HELD_BYTES = 256 << 20
"""Of parsed definitions that executions run, as told. An org that has its share of it starts no more meanwhile."""

RECALLED = 20_000
"""References to workflows that are known without asking the store."""

_Reference: TypeAlias = tuple[str, str, int]
"""Org, id or name, and revision or 0."""

# What a byte of JSON takes as Python objects, and a step beside its expressions.
_BYTES_A_BYTE, _STEP_BYTES = 12, 1_500


class Workflows:
    """What the service does with workflows, over one repository.

    A change that is asked for again with its `request_id` is answered as it was the first time: RequestIdReusedError
    when the id was used for something else, WorkflowNotFoundError when what it was answered has been removed.
    """

    def __init__(
        self,
        repository: WorkflowRepository,
        registry: Registry,
        defaults: Defaults,
        known: KnownHandlers | None = None,
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._known_handlers = known
        self._defaults = defaults
        self._resolving = SharedReads(self._resolve)
        self._loading = SharedReads(self._load)
        prepare()
        self._parsed: Kept[tuple[UUID, int], Definition] = Kept(KEPT_BYTES)
        # Also of revisions that are kept no more while executions hold them: each is one object, however many run it.
        self._held: WeakValueDictionary[tuple[UUID, int], Definition] = WeakValueDictionary()
        self.held = Held(HELD_BYTES)
        # What references stood for, without documents, which the definitions have; and what turned out to be wrong.
        self._recalled: Kept[_Reference, Workflow | None] = Kept(RECALLED)
        self._refuted: Kept[_Reference, tuple[UUID, int]] = Kept(RECALLED)

    async def handlers(self, org: str) -> Sequence[Shown]:
        """Return what steps of an org can run, by name."""
        if self._known_handlers is None:
            return [Shown(handler) for handler in self._registry.all()]
        return await self._known_handlers.all(org)

    async def mcp_offers(self, org: str) -> Sequence[Offer]:
        """Return what the MCP servers of the deployment offer to an org, or why that is not known."""
        return await offers(self._registry.mcp, org)

    async def validate(self, org: str, document: Mapping[str, Any]) -> Sequence[DefinitionWarning]:
        """Return what should be otherwise in a definition. Raises ValidationError with all that is wrong with it."""
        await self._parse(org, document)
        return await self.warnings(document)

    async def parsed(self, org: str, document: Mapping[str, Any]) -> Definition:
        """Return what a definition means, without keeping it. Raises ValidationError with all that is wrong with it."""
        return await self._parse(org, document)

    async def warnings(self, document: Mapping[str, Any]) -> Sequence[DefinitionWarning]:
        """Return what should be otherwise in a definition that is sound."""
        return await in_slices(plain_secrets(document, self._registry))

    async def create(self, org: str, document: Mapping[str, Any], created_by: str, request_id: str = "") -> Workflow:
        """Keep a new workflow. Raises ValidationError, NameTakenError."""
        request = await in_slices(asked(Method.CREATE_WORKFLOW, request_id, created_by, [document]))
        try:
            definition = await self._parse(org, document)
        except ValidationError as error:
            return (await self._first(org, request, error))[0].workflow
        workflow = await self._repository.create_workflow(org, uuid7(), document, created_by, request)
        self._remember(workflow, definition)
        return workflow

    async def update(
        self,
        scope: Scope,
        reference: str,
        document: Mapping[str, Any],
        etag: str,
        updated_by: str,
        request_id: str = "",
    ) -> Workflow:
        """Keep a new revision. Raises ValidationError, WorkflowNotFoundError, EtagMismatchError."""
        asking = asked(Method.UPDATE_WORKFLOW, request_id, updated_by, [document], workflow=reference, etag=etag)
        request = await in_slices(asking)
        try:
            current = await self._repository.get_workflow(scope, reference)
            named = {**document, "name": document.get("name") or current.name}
            if named["name"] != current.name:
                raise ValidationError([Violation("name", f"must be {current.name!r}: a workflow keeps its name")])
            definition = await self._parse(scope.org, named)
        except (ValidationError, NotFoundError) as error:
            return (await self._first(scope.org, request, error))[0].workflow
        workflow = await self._repository.update_workflow(scope, str(current.id), named, etag, updated_by, request)
        self._remember(workflow, definition)
        return workflow

    async def apply(
        self,
        org: str,
        documents: Sequence[Mapping[str, Any]],
        applied_by: str,
        request_id: str = "",
        *,
        dry_run: bool = False,
    ) -> Sequence[Applied]:
        """Keep what the documents say, all or none; with `dry_run` only return what would be done, for no request id.

        Raises ValidationError with the violations of all, by fields such as `definitions[3].steps[0].id`.
        """
        asking = asked(Method.APPLY_WORKFLOWS, "" if dry_run else request_id, applied_by, documents)
        request = await in_slices(asking)
        try:
            definitions = await self._parse_all(org, documents)
        except ValidationError as error:
            return await self._first(org, request, error)
        given = [(uuid7(), document) for document in documents]
        applied = await self._repository.apply_workflows(org, given, applied_by, request, dry_run=dry_run)
        if not dry_run:
            for each, definition in zip(applied, definitions, strict=True):
                self._remember(each.workflow, definition)
        return applied

    async def _first(self, org: str, request: Request | None, refused: Exception) -> Sequence[Applied]:
        """Return what the same request was answered before what refuses it now was so; raises `refused` without one."""
        first = None if request is None else await self._repository.find_change(org, request)
        if not first:
            raise refused
        return first

    async def _parse_all(self, org: str, documents: Sequence[Mapping[str, Any]]) -> Sequence[Definition]:
        definitions, found = list[Definition](), list[Violation]()
        named: dict[str, int] = {}
        for index, document in enumerate(documents):
            place, name = f"definitions[{index}]", document.get("name")
            first = named.setdefault(name, index) if name else index
            if first != index:
                found.append(Violation(f"{place}.name", f"{name!r} is the name of definitions[{first}] too"))
            try:
                definitions.append(await self._parse(org, document))
            except ValidationError as error:
                found += (each.under(below(place, each.field)) for each in error.violations)
        if found:
            raise ValidationError(found)
        return definitions

    async def resolve(self, scope: Scope, reference: str, revision: int) -> tuple[Workflow, Definition]:
        """Return a revision and what it means.

        Raises WorkflowNotFoundError, RevisionNotFoundError, UnreadableError.
        """
        return await self._resolving.get((scope.org, reference, revision))

    def recalled(self, scope: Scope, reference: str, revision: int) -> tuple[Workflow, Definition] | None:
        """Return what `resolve` gave before, if that is at hand; it may be so no longer.

        Whoever starts by it has the store look whether it is (`NewExecution.if_latest`), and nothing is refused by it.
        """
        workflow = self._recalled.get((scope.org, reference, revision))
        definition = self._known(workflow.id, workflow.revision) if workflow is not None else None
        return (workflow, definition) if workflow is not None and definition is not None else None

    def refute(self, scope: Scope, reference: str, revision: int, workflow: Workflow) -> None:
        """Recall a workflow no more, which the store has refused.

        Nor again if it is all that the store has, as where the rows of a workflow contradict each other.
        """
        key = scope.org, reference, revision
        self._recalled.put(key, None, 1)
        self._refuted.put(key, (workflow.id, workflow.revision), 1)

    async def _resolve(self, key: _Reference) -> tuple[Workflow, Definition]:
        org, reference, revision = key
        workflow = await self._repository.get_workflow(Scope(org), reference, revision)
        definition = await self._definition(workflow)
        if self._refuted.get(key) != (workflow.id, workflow.revision):
            self._recalled.put(key, replace(workflow, document={}), 1)
        return workflow, definition

    async def of(self, execution: Execution) -> Definition:
        """Return the definition that an execution runs. Raises NotFoundError, UnreadableError."""
        known = self._known(execution.workflow_id, execution.revision)
        if known is not None:
            return known
        return await self._loading.get((execution.org, execution.workflow_id, execution.revision))

    async def find(self, execution: Execution) -> Definition | None:
        """Return the definition that an execution runs, None when it cannot be read."""
        try:
            return await self.of(execution)
        except (NotFoundError, UnreadableError):
            return None

    async def _load(self, key: tuple[str, UUID, int]) -> Definition:
        org, workflow_id, revision = key
        return await self._definition(await self._repository.get_workflow(Scope(org), str(workflow_id), revision))

    async def shown(self, detail: ExecutionDetail) -> tuple[Definition, bool]:
        """Return the definition that an execution is shown with, and whether it is the one that it runs.

        Where that cannot be read, it is as much of one as the records of the steps say.
        """
        definition = await self.find(detail.execution)
        return (await in_slices(outlining(detail)), False) if definition is None else (definition, True)

    async def _parse(self, org: str, document: Mapping[str, Any]) -> Definition:
        catalog: Catalog = self._registry
        if self._known_handlers is not None:
            catalog = await self._known_handlers.catalog(org, document)
        return await in_slices(parsing(document, catalog, self._defaults))

    async def _definition(self, workflow: Workflow) -> Definition:
        known = self._known(workflow.id, workflow.revision)
        if known is not None:
            return known
        if "document" in workflow.unreadable:
            raise UnreadableError(workflow.name, workflow.revision, "its document is no object")
        # What is kept passed the checks when it came; a handler that has gone since is found out by the step.
        try:
            definition = await in_slices(parsing(workflow.document, None, self._defaults))
        except Exception as error:  # whatever it was that wrote it
            raise UnreadableError(workflow.name, workflow.revision, str(error)) from error
        return self._remember(workflow, definition)

    def _known(self, workflow_id: UUID, revision: int) -> Definition | None:
        key = workflow_id, revision
        return self._parsed.get(key) or self._held.get(key)

    def _remember(self, workflow: Workflow, definition: Definition) -> Definition:
        """Keep what a revision means, and return the object that stands for it: another one may have been first."""
        key, size = (workflow.id, workflow.revision), _size(definition)
        if (first := self._held.get(key)) is not None:
            definition = first
        else:
            self._held[key] = definition
            self.held.hold(workflow.org, definition, size)
        self._parsed.put(key, definition, size)
        return definition


def _size(definition: Definition) -> int:
    """Return about how many bytes of memory a definition takes, expressions included that others may have, too."""
    output = definition.root.output.size if definition.root.output is not None else 0
    return output + _BYTES_A_BYTE * json_size(definition.document) + sum(map(_step_size, definition.places.values()))


def _step_size(step: StepSpec) -> int:
    condition = step.condition.size if step.condition is not None else 0
    return _STEP_BYTES + step.action.size + condition + sum(expression.size for _, expression in step.assign)
