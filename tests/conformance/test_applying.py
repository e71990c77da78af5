"""Several workflows made as documents say: all or none, and nothing where they are so already."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from persistence.errors import PersistenceError
from persistence.listing import WorkflowFilter
from persistence.model import Applied, Outcome, Workflow
from persistence.repository import Repository
from service.engine.ids import uuid7
from tests.conformance.builders import FOREIGN_ORG, ORG, SCOPE, document, outcome

EVERY = WorkflowFilter()


async def apply(repository: Repository, *documents: dict[str, Any], org: str = ORG, **more: Any) -> list[Applied]:
    return list(await repository.apply_workflows(org, [(uuid7(), each) for each in documents], "bob", **more))


async def test_each_document_becomes_a_workflow_a_revision_or_nothing(
    repository: Repository, workflow: Workflow
) -> None:
    same = await repository.create_workflow(ORG, uuid7(), document("same"), "ann")
    changed = document("research", description="more")
    zero = document("a-new-one")

    applied = await apply(repository, changed, document("same"), zero)

    assert [each.outcome for each in applied] == [Outcome.UPDATED, Outcome.UNCHANGED, Outcome.CREATED]
    updated, unchanged, created = (each.workflow for each in applied)
    assert (updated.id, updated.revision, updated.document, updated.updated_by) == (workflow.id, 2, changed, "bob")
    assert unchanged == same
    assert (created.revision, created.document, created.updated_by) == (1, zero, "bob")
    for each in (updated, unchanged, created):
        assert await repository.get_workflow(SCOPE, each.name) == each


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1, "b": [1, {}]}, {"b": [1.0, {}], "a": 1}, Outcome.UNCHANGED),
        ({"n": 0}, {"n": -0.0}, Outcome.UNCHANGED),
        ({"n": 1}, {"n": True}, Outcome.UPDATED),
        ({"n": [1, 2]}, {"n": [2, 1]}, Outcome.UPDATED),
        ({"n": None}, {}, Outcome.UPDATED),
        ({"n": "1"}, {"n": 1}, Outcome.UPDATED),
        ({"n": 0.1}, {"n": 0.1}, Outcome.UNCHANGED),
    ],
)
async def test_documents_are_compared_as_json(
    repository: Repository, before: dict[str, Any], after: dict[str, Any], expected: Outcome
) -> None:
    await apply(repository, document("w", labels=before))
    (applied,) = await apply(repository, document("w", labels=after))
    assert applied.outcome is expected
    assert applied.workflow.revision == (1 if expected is Outcome.UNCHANGED else 2)


async def test_a_dry_run_tells_the_same_and_writes_nothing(repository: Repository, workflow: Workflow) -> None:
    documents = document("research", description="more"), document("new")
    told = await apply(repository, *documents, dry_run=True)
    assert await repository.list_workflows(SCOPE, EVERY, None, 10) == [workflow]
    done = await apply(repository, *documents)
    for one, other in zip(told, done, strict=True):
        assert (one.outcome, one.workflow.revision, one.workflow.document) == (
            other.outcome,
            other.workflow.revision,
            other.workflow.document,
        )


async def test_when_one_cannot_be_kept_none_is(repository: Repository, workflow: Workflow) -> None:
    for bad in (document("n" * 129), document("z", description="\0"), document("research"), document("new")):
        with pytest.raises(PersistenceError):
            await apply(repository, document("new"), document("research", description="more"), bad)
    assert await repository.list_workflows(SCOPE, EVERY, None, 10) == [workflow]


async def test_an_org_applies_its_own(repository: Repository, workflow: Workflow) -> None:
    (theirs,) = await apply(repository, document("research", n=1), org=FOREIGN_ORG.org)
    assert theirs.outcome is Outcome.CREATED
    assert await repository.get_workflow(SCOPE, "research") == workflow


async def test_a_deleted_workflow_is_made_anew(repository: Repository, workflow: Workflow) -> None:
    await repository.delete_workflow(SCOPE, workflow.name, "", False, "ann")
    (applied,) = await apply(repository, document("research"))
    assert applied.outcome is Outcome.CREATED
    assert applied.workflow.id != workflow.id


async def test_many_at_once_come_one_after_the_other(repository: Repository, workflow: Workflow) -> None:
    """Each writes all names in another order, some of them new, while they are deleted, too."""
    names = ["research", "a", "b", "c"]

    async def one(number: int) -> None:
        turned = names[number % 4 :] + names[: number % 4]
        await apply(repository, *(document(name, n=number) for name in turned))

    async def remove(name: str) -> None:
        await outcome(repository.delete_workflow(SCOPE, name, "", False, "eve"))

    await asyncio.gather(*(one(number) for number in range(24)), remove("a"), remove("c"))
    await one(99)
    kept = [await repository.get_workflow(SCOPE, name) for name in names]
    assert [each.document["n"] for each in kept] == [99] * 4
    # Of a transaction all or nothing is seen: whoever came last before wrote all of them.
    before = [await repository.get_workflow(SCOPE, each.name, each.revision - 1) for each in kept[:1] + kept[2:3]]
    assert len({each.document["n"] for each in before}) == 1
