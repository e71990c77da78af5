"""Commands about workflows: apply, list, get, delete, validate, and the handlers that steps can run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.connection import Session, command

if TYPE_CHECKING:
    from flowkeep.client import Client
    from flowkeep.v1.workflow_pb2 import Workflow, WorkflowDefinition

# What works with messages is imported within the commands, so that the help need not wait for gRPC.

_PANEL = "Workflows"
_TRIES = 3
_WorkflowName = Annotated[str, typer.Argument(help="Name or id of the workflow.", show_default=False)]
_Files = Annotated[
    list[str], typer.Argument(help="Definitions in YAML or JSON; - for standard input.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "apply", panel=_PANEL)(apply)
    command(app, "handlers", panel=_PANEL)(handlers)
    group = typer.Typer(no_args_is_help=True, help="List, show, delete and check workflows.")
    command(group, "list")(list_workflows)
    command(group, "get")(get)
    command(group, "delete")(delete)
    command(group, "validate")(validate)
    app.add_typer(group, name="workflows", rich_help_panel=_PANEL)


async def apply(session: Session, files: _Files) -> None:
    """Create workflows, or make new revisions of those whose definitions differ."""
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json

    results = []
    for document in _documents(files):
        action, workflow = await apply_document(session.client, document)
        results.append({"action": action, "workflow": json_form(workflow)})
        if not session.json:
            show(plain(f"{action} {workflow.name} (revision {workflow.revision})"))
    if session.json:
        show_json({"results": results})


async def apply_document(client: Client, document: Any) -> tuple[str, Workflow]:
    """Make a workflow be as a document says; return `created`, `updated` or `unchanged`, and the workflow.

    A change that somebody else makes at the same time is not overwritten unseen: the comparison is made again.
    """
    from flowkeep.definition import definition
    from flowkeep.errors import FlowkeepError

    wanted = definition(document)
    for _ in range(_TRIES - 1):
        try:
            return await _apply_once(client, wanted)
        except FlowkeepError as error:
            if error.reason not in ("WORKFLOW_NAME_TAKEN", "ETAG_MISMATCH"):
                raise
    return await _apply_once(client, wanted)


async def _apply_once(client: Client, wanted: WorkflowDefinition) -> tuple[str, Workflow]:
    from flowkeep.errors import NotFoundError

    try:
        # Without a name there is nothing to find; the service says what is wrong with that.
        current = await client.get_workflow(wanted.name) if wanted.name else None
    except NotFoundError:
        current = None
    if current is None:
        return "created", await client.create_workflow(wanted)
    if current.definition == wanted:
        return "unchanged", current
    return "updated", await client.update_workflow(current.workflow_id, wanted, etag=current.etag)


async def list_workflows(
    session: Session,
    prefix: Annotated[str, typer.Option(help="Only names that begin so.", show_default=False)] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag. Repeatable.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = 50,
) -> None:
    """List workflows, newest first."""
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import workflows_table

    found: list[Workflow] = []
    async for workflow in session.client.list_workflows(name_prefix=prefix, tags=tag or (), page_size=min(limit, 200)):
        found.append(workflow)
        if len(found) == limit:
            break
    if session.json:
        show_json({"workflows": [json_form(workflow) for workflow in found]})
    else:
        show(workflows_table(found) if found else "There are no workflows.")


async def get(
    session: Session,
    workflow: _WorkflowName,
    revision: Annotated[int, typer.Option(min=0, help="Revision to show; 0 for the latest.")] = 0,
) -> None:
    """Show a workflow with its definition."""
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import workflow_view

    found = await session.client.get_workflow(workflow, revision=revision)
    if session.json:
        show_json(json_form(found))
    else:
        show(workflow_view(found))


async def delete(
    session: Session,
    workflow: _WorkflowName,
    force: Annotated[bool, typer.Option("--force", help="Cancel executions that have not ended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a workflow with all its revisions and executions."""
    from service.cli.asking import confirm
    from service.cli.rendering import plain, show, show_json

    confirm(f"This deletes the workflow {workflow} with all its executions.", yes=yes)
    await session.client.delete_workflow(workflow, force=force)
    if session.json:
        show_json({"deleted": workflow})
    else:
        show(plain(f"deleted {workflow}"))


async def validate(session: Session, files: _Files) -> int:
    """Check definitions without keeping anything. Ends with 2 if something is wrong."""
    from service.cli.rendering import plain, show, show_json

    violations = []
    for document in _documents(files):
        violations += await session.client.validate_workflow(document)
    if session.json:
        show_json({"violations": [{"field": field, "description": text} for field, text in violations]})
    elif violations:
        show(*(plain(str(violation)) for violation in violations))
    else:
        show("sound")
    return 2 if violations else 0


async def handlers(session: Session) -> None:
    """List what steps can run."""
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.tables import handlers_table

    found = await session.client.list_handlers()
    if session.json:
        show_json({"handlers": [json_form(handler) for handler in found]})
    else:
        show(handlers_table(found))


def _documents(files: list[str]) -> list[Any]:
    from service.cli.arguments import read_documents

    # All files are read before anything is changed.
    documents = [document for file in files for document in read_documents(file)]
    if not documents:
        raise typer.BadParameter("there is no definition in it")
    return documents
