"""Commands about workflows: apply, list, get, delete, pause, resume, validate, and the handlers that steps can run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.arguments import RequestId, breakpoints, expiry
from service.cli.asking import Yes, confirm
from service.cli.session import Session, command

if TYPE_CHECKING:
    from flowkeep.v1.workflow_pb2 import Workflow
    from flowkeep.v1.workflow_service_pb2 import ApplyWorkflowsResponse
    from service.cli.definitions import Caution

# What works with messages is imported within the commands, so that the help need not wait for gRPC.

_PANEL = "Workflows"
_WorkflowName = Annotated[str, typer.Argument(help="Name or id of the workflow.", show_default=False)]
_Files = Annotated[
    list[str], typer.Argument(help="Definitions in YAML or JSON; - for standard input.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "apply", panel=_PANEL)(apply)
    command(app, "handlers", panel=_PANEL)(handlers)
    group = typer.Typer(no_args_is_help=True, help="List, show, delete, pause and check workflows.")
    command(group, "list")(list_workflows)
    command(group, "get")(get)
    command(group, "delete")(delete)
    command(group, "pause")(pause)
    command(group, "resume")(resume)
    command(group, "break")(break_next)
    command(group, "validate")(validate)
    app.add_typer(group, name="workflows", rich_help_panel=_PANEL)


async def apply(
    session: Session,
    files: _Files,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    request_id: RequestId = None,
) -> None:
    """Create workflows, or make new revisions of those whose definitions differ: all of them or none."""
    from service.cli.definitions import apply_files
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json

    results, cautions = await apply_files(session.client, files, dry_run=dry_run, request_id=request_id)
    if session.json:
        form = [{"action": action_of(each), "workflow": json_form(each.workflow)} for each in results]
        show_json({"results": form, "warnings": [each.json() for each in cautions]})
        return
    show_warnings(cautions)
    for each in results:
        done = f"would be {action_of(each)}:" if dry_run else action_of(each)
        show(plain(f"{done} {each.workflow.name} (revision {each.workflow.revision})"))


def action_of(result: ApplyWorkflowsResponse.Result) -> str:
    """Return what was done to a workflow: `created`, `updated` or `unchanged`."""
    from flowkeep.v1.workflow_service_pb2 import ApplyWorkflowsResponse

    return ApplyWorkflowsResponse.Outcome.Name(result.outcome).removeprefix("OUTCOME_").lower()


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
    yes: Yes = False,
    request_id: RequestId = None,
) -> None:
    """Delete a workflow with all its revisions and executions."""
    from flowkeep.requests import request_text
    from service.cli.following import told_how_to_ask_again
    from service.cli.rendering import plain, show, show_json

    confirm(f"This deletes the workflow {workflow} with all its executions.", yes=yes)
    request_id = request_text(request_id)
    with told_how_to_ask_again(session, request_id, "that it is deleted"):
        await session.client.delete_workflow(workflow, force=force, request_id=request_id)
    if session.json:
        show_json({"deleted": workflow})
    else:
        show(plain(f"deleted {workflow}"))


_Reason = Annotated[str, typer.Option(help="Why, for all who look at it.", show_default=False)]


async def pause(
    session: Session,
    workflow: _WorkflowName,
    reason: _Reason = "",
    running: Annotated[bool, typer.Option("--running", help="Pause executions that run, too.")] = False,
    hard: Annotated[bool, typer.Option("--hard", help="With --running: stop what runs of them, too.")] = False,
    stop_deadline: Annotated[
        bool, typer.Option("--stop-deadline", help="With --running: let the time of the pause not count.")
    ] = False,
    request_id: RequestId = None,
) -> None:
    """Let new executions of a workflow wait until it is resumed."""
    paused = await session.client.pause_workflow(
        workflow, reason, pause_running=running, hard=hard, stop_deadline=stop_deadline, request_id=request_id
    )
    _show(session, paused)


async def resume(session: Session, workflow: _WorkflowName, reason: _Reason = "", request_id: RequestId = None) -> None:
    """Let executions of a paused workflow start, and those that its pause has paused go on."""
    _show(session, await session.client.resume_workflow(workflow, reason, request_id=request_id))


async def break_next(
    session: Session,
    workflow: _WorkflowName,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="Hold them before this step, such as 'ship' or 'ship if params.amount > 100'. Repeatable; without, "
            "the next executions are not held.",
            show_default=False,
        ),
    ] = None,
    executions: Annotated[int, typer.Option(min=1, max=1000, help="How many of the next executions.")] = 1,
    within: Annotated[
        str, typer.Option(help="For how long executions take it up, such as 90m or 2d.", show_default="24h")
    ] = "",
    request_id: RequestId = None,
) -> None:
    """Hold the next executions of a workflow before steps; `resume ID` or `debug --execution ID` go on with them."""
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json, time_text

    points, until = breakpoints(at or ()), expiry(within)
    kept = await session.client.set_workflow_breakpoints(
        workflow, points, executions=executions, expire_time=until, request_id=request_id
    )
    if session.json:
        show_json({} if kept is None else json_form(kept))
    elif kept is None:
        show(plain(f"the next executions of {workflow} are not held"))
    else:
        until_text = time_text(kept.expire_time)
        count = kept.executions_left
        next_ones = "execution" if count == 1 else f"{count} executions"
        show(plain(f"the next {next_ones} of {workflow} will be held at {', '.join(points)}, until {until_text}"))


def _show(session: Session, workflow: Workflow) -> None:
    """Print a workflow that was paused or resumed."""
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json
    from service.cli.tables import pause_text

    if session.json:
        show_json(json_form(workflow))
    elif workflow.HasField("pause"):
        show(plain(f"{workflow.name} is {pause_text(workflow)}"))
    else:
        show(plain(f"{workflow.name} is not paused"))


async def validate(session: Session, files: _Files) -> int:
    """Check definitions without keeping anything. Ends with 2 if something is wrong; warnings are no fault."""
    from service.cli.definitions import validate_files
    from service.cli.rendering import plain, show, show_json

    findings, cautions = await validate_files(session.client, files)
    if session.json:
        found, warned = [each._asdict() for each in findings], [each.json() for each in cautions]
        show_json({"violations": found, "warnings": warned})
        return 2 if findings else 0
    show_warnings(cautions)
    if findings:
        show(*(plain(str(each)) for each in findings))
    else:
        show("sound")
    return 2 if findings else 0


def show_warnings(cautions: Iterable[Caution]) -> None:
    """Print what should be otherwise in definitions to standard error."""
    from service.cli.rendering import open_console, plain

    console = open_console(stderr=True)
    for each in cautions:
        console.print(plain(f"warning: {each}"), soft_wrap=True)


async def handlers(
    session: Session,
    tools: Annotated[bool, typer.Option("--tools", help="Ask the MCP servers for their tools, too.")] = False,
) -> None:
    """List what steps can run."""
    from service.cli.json_form import json_form
    from service.cli.rendering import plain, show, show_json
    from service.cli.tables import handlers_table, tools_table

    found = await session.client.list_handlers()
    servers = await session.client.list_mcp_servers() if tools else []
    if session.json:
        more = {"mcp_servers": [json_form(server) for server in servers]} if tools else {}
        show_json({"handlers": [json_form(handler) for handler in found], **more})
        return
    show(handlers_table(found))
    if tools:
        show("", tools_table(servers) if servers else "There are no MCP servers.")
        show(*(plain(f"{each.name}: {each.error}", "red") for each in servers if each.error))
        show(*(plain(f"{each.name}: {each.omitted_tools} more tools") for each in servers if each.omitted_tools))
