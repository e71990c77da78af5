"""Workflows: made, found, listed."""

from __future__ import annotations

import asyncio

import pytest

from persistence.errors import NameTakenError, WorkflowNotFoundError
from persistence.listing import WorkflowFilter
from persistence.model import Scope, Workflow
from persistence.repository import Repository
from service.engine.ids import uuid7
from tests.conformance.builders import FOREIGN_ORG, FOREIGN_OWNER, ORG, SCOPE, document, ids, now, outcome

EVERY = WorkflowFilter()


async def put(repository: Repository, name: str, org: str = ORG, **more: object) -> Workflow:
    return await repository.create_workflow(org, uuid7(), document(name, **more), "ann")


async def test_a_new_workflow_is_returned_as_revision_1(repository: Repository) -> None:
    workflow_id, before = uuid7(), now()
    workflow = await repository.create_workflow(ORG, workflow_id, document("research"), "ann")
    assert (workflow.id, workflow.org, workflow.name, workflow.revision) == (workflow_id, ORG, "research", 1)
    assert (workflow.document, workflow.updated_by) == (document("research"), "ann")
    assert workflow.etag
    assert before <= workflow.create_time == workflow.update_time <= now()


async def test_a_workflow_is_found_by_id_and_by_name(repository: Repository, workflow: Workflow) -> None:
    assert await repository.get_workflow(SCOPE, str(workflow.id)) == workflow
    assert await repository.get_workflow(SCOPE, workflow.name) == workflow
    assert await repository.get_workflow(SCOPE, workflow.name, 1) == workflow


@pytest.mark.parametrize("reference", ["nothing", "", "ünbekannt", "12345", "0190a4c8-0000-7000-8000-000000000000"])
async def test_what_does_not_exist_is_not_found(repository: Repository, workflow: Workflow, reference: str) -> None:
    with pytest.raises(WorkflowNotFoundError) as caught:
        await repository.get_workflow(SCOPE, reference)
    assert caught.value.workflow == reference


async def test_only_the_canonical_text_of_an_id_names_a_workflow(repository: Repository, workflow: Workflow) -> None:
    for other in (str(workflow.id).upper(), workflow.id.hex, f"{{{workflow.id}}}"):
        with pytest.raises(WorkflowNotFoundError):
            await repository.get_workflow(SCOPE, other)


async def test_a_name_is_taken_once_in_an_org(repository: Repository, workflow: Workflow) -> None:
    with pytest.raises(NameTakenError) as caught:
        await put(repository, workflow.name)
    assert caught.value.name == workflow.name
    assert ids(await repository.list_workflows(SCOPE, EVERY, None, 10)) == [workflow.id]


async def test_orgs_do_not_share_names(repository: Repository, workflow: Workflow) -> None:
    theirs = await put(repository, workflow.name, FOREIGN_ORG.org)
    assert (await repository.get_workflow(FOREIGN_ORG, workflow.name)).id == theirs.id
    assert (await repository.get_workflow(SCOPE, workflow.name)).id == workflow.id


async def test_of_many_at_once_one_gets_the_name(repository: Repository) -> None:
    answers = await asyncio.gather(*(outcome(put(repository, "wanted")) for _ in range(32)))
    made = [answer for answer in answers if isinstance(answer, Workflow)]
    assert len(made) == 1
    assert sum(isinstance(answer, NameTakenError) for answer in answers) == 31
    assert ids(await repository.list_workflows(SCOPE, EVERY, None, 10)) == ids(made)


async def test_a_foreign_org_sees_nothing(repository: Repository, workflow: Workflow) -> None:
    for reference in (str(workflow.id), workflow.name):
        for revision in (0, 1, 2):
            with pytest.raises(WorkflowNotFoundError):
                await repository.get_workflow(FOREIGN_ORG, reference, revision)
    assert not await repository.list_workflows(FOREIGN_ORG, EVERY, None, 10)


async def test_workflows_belong_to_the_org_and_not_to_an_owner(repository: Repository, workflow: Workflow) -> None:
    assert await repository.get_workflow(FOREIGN_OWNER, workflow.name) == workflow
    assert ids(await repository.list_workflows(FOREIGN_OWNER, EVERY, None, 10)) == [workflow.id]


async def test_a_document_comes_back_as_it_was(repository: Repository) -> None:
    rich = {"ünïcode 🐳": ["\u202e", "e\u0301", "é", "\ufeff"], "n": [0, -1, 2**53 - 1, 0.1, 1e-9, None, True]}
    made = await put(repository, "rich", labels=rich)
    assert made.document == document("rich", labels=rich)
    assert await repository.get_workflow(SCOPE, "rich") == made


async def test_what_a_caller_does_to_a_document_stays_with_the_caller(repository: Repository) -> None:
    mine = document("mine", tags=["a"])
    made = await repository.create_workflow(ORG, uuid7(), mine, "ann")
    mine["tags"].append("b")
    read = await repository.get_workflow(SCOPE, "mine")
    assert isinstance(read.document, dict)
    read.document["tags"].append("c")
    made.document["tags"].append("d")
    assert (await repository.get_workflow(SCOPE, "mine")).document["tags"] == ["a"]


async def test_a_list_is_newest_first_and_goes_on_behind_an_id(repository: Repository) -> None:
    made = ids([await put(repository, f"w{n}") for n in range(7)])
    await put(repository, "theirs", FOREIGN_ORG.org)
    newest_first = made[::-1]
    first = ids(await repository.list_workflows(SCOPE, EVERY, None, 3))
    second = ids(await repository.list_workflows(SCOPE, EVERY, first[-1], 3))
    third = ids(await repository.list_workflows(SCOPE, EVERY, second[-1], 3))
    assert [*first, *second, *third] == newest_first
    assert not await repository.list_workflows(SCOPE, EVERY, third[-1], 3)


async def test_a_list_shows_latest_revisions(repository: Repository, workflow: Workflow) -> None:
    updated = await repository.update_workflow(SCOPE, workflow.name, document("research", tags=["x"]), "", "bob")
    assert await repository.list_workflows(SCOPE, EVERY, None, 10) == [updated]
    assert not await repository.list_workflows(SCOPE, WorkflowFilter(tags=["y"]), None, 10)
    assert await repository.list_workflows(SCOPE, WorkflowFilter(tags=["x"]), None, 10) == [updated]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (WorkflowFilter(name_prefix="re"), ["re%port", "re_port", "report"]),
        (WorkflowFilter(name_prefix="re%"), ["re%port"]),
        (WorkflowFilter(name_prefix="re_"), ["re_port"]),
        (WorkflowFilter(name_prefix="re\\"), []),
        (WorkflowFilter(name_prefix="RE"), []),
        (WorkflowFilter(tags=["a"]), ["other", "report"]),
        (WorkflowFilter(tags=["a", "b"]), ["report"]),
        (WorkflowFilter(name_prefix="re", tags=["a"]), ["report"]),
        (WorkflowFilter(tags=["A"]), []),
    ],
)
async def test_filters(repository: Repository, where: WorkflowFilter, found: list[str]) -> None:
    await put(repository, "report", tags=["a", "b", "c"])
    await put(repository, "re_port")
    await put(repository, "re%port", tags=[])
    await put(repository, "other", tags=["a"])
    listed = await repository.list_workflows(SCOPE, where, None, 10)
    assert sorted(workflow.name for workflow in listed) == found


async def test_only_the_org_of_a_scope_counts(repository: Repository, workflow: Workflow) -> None:
    assert await repository.get_workflow(Scope(ORG, "anybody"), workflow.name) == workflow
