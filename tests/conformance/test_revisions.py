"""Revisions: every update makes one, and none is ever changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from persistence.errors import EtagMismatchError, RevisionNotFoundError, WorkflowNotFoundError
from persistence.model import Workflow
from persistence.repository import Repository
from tests.conformance.builders import FOREIGN_ORG, SCOPE, document, outcome


async def test_an_update_is_the_next_revision(repository: Repository, workflow: Workflow) -> None:
    changed = document("research", description="more")
    updated = await repository.update_workflow(SCOPE, workflow.name, changed, workflow.etag, "bob")
    assert (updated.id, updated.name, updated.revision) == (workflow.id, workflow.name, 2)
    assert (updated.document, updated.updated_by) == (changed, "bob")
    assert updated.etag not in ("", workflow.etag)
    assert updated.create_time == workflow.create_time < updated.update_time
    assert await repository.get_workflow(SCOPE, workflow.name) == updated
    assert await repository.get_workflow(SCOPE, str(workflow.id), 2) == updated


async def test_an_earlier_revision_stays_as_it_was(repository: Repository, workflow: Workflow) -> None:
    latest = workflow
    latest = workflow
    for _ in range(3):
        latest = await repository.update_workflow(SCOPE, str(workflow.id), document("research", n=1), "", "bob")
    assert await repository.get_workflow(SCOPE, workflow.name, 1) == replace(workflow, etag=latest.etag)


async def test_a_revision_that_never_was_is_not_found(repository: Repository, workflow: Workflow) -> None:
    for revision in (2, 2**31 - 1):
        with pytest.raises(RevisionNotFoundError) as caught:
            await repository.get_workflow(SCOPE, workflow.name, revision)
        assert (caught.value.workflow, caught.value.revision) == (workflow.name, revision)


async def test_a_stale_etag_changes_nothing(repository: Repository, workflow: Workflow) -> None:
    updated = await repository.update_workflow(SCOPE, workflow.name, document(n=2), workflow.etag, "bob")
    for stale in (workflow.etag, "nonsense"):
        with pytest.raises(EtagMismatchError) as caught:
            await repository.update_workflow(SCOPE, workflow.name, document(n=3), stale, "bob")
        assert caught.value.workflow == workflow.name
    assert await repository.get_workflow(SCOPE, workflow.name) == updated


async def test_of_two_with_the_same_etag_one_succeeds(repository: Repository, workflow: Workflow) -> None:
    answers = await asyncio.gather(
        *(
            outcome(repository.update_workflow(SCOPE, workflow.name, document(n=n), workflow.etag, "bob"))
            for n in range(16)
        )
    )
    [winner] = [answer for answer in answers if isinstance(answer, Workflow)]
    assert sum(isinstance(answer, EtagMismatchError) for answer in answers) == 15
    assert winner.revision == 2
    assert await repository.get_workflow(SCOPE, workflow.name) == winner


async def test_updates_without_etag_all_succeed_one_after_the_other(repository: Repository, workflow: Workflow) -> None:
    updated = await asyncio.gather(
        *(repository.update_workflow(SCOPE, workflow.name, document(n=n), "", "bob") for n in range(16))
    )
    assert sorted(each.revision for each in updated) == list(range(2, 18))
    assert len({each.etag for each in updated}) == 16
    for each in updated:
        kept = await repository.get_workflow(SCOPE, workflow.name, each.revision)
        assert replace(kept, etag=each.etag) == each


async def test_an_absent_or_foreign_workflow_is_not_updated(repository: Repository, workflow: Workflow) -> None:
    for scope, reference in ((SCOPE, "nothing"), (FOREIGN_ORG, workflow.name), (FOREIGN_ORG, str(workflow.id))):
        for etag in ("", workflow.etag, "nonsense"):
            with pytest.raises(WorkflowNotFoundError):
                await repository.update_workflow(scope, reference, document(), etag, "eve")
    assert await repository.get_workflow(SCOPE, workflow.name) == workflow


async def test_every_revision_shows_the_etag_of_the_latest(repository: Repository, workflow: Workflow) -> None:
    updated = await repository.update_workflow(SCOPE, workflow.name, document(n=2), "", "bob")
    first = await repository.get_workflow(SCOPE, workflow.name, 1)
    assert (first.revision, first.etag) == (1, updated.etag)
