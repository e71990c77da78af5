"""The command that runs one step by itself: test-step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.arguments import SET_HELP, SET_STRING_HELP
from service.cli.session import Session, command

if TYPE_CHECKING:
    from flowkeep.v1.step_test_pb2 import TestStepResponse

_Strings = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "test-step", panel="Workflows")(test_step)


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


async def test_step(
    session: Session,
    source: Annotated[
        str,
        typer.Argument(
            help="Name or id of the workflow, or @FILE with a definition; - for that of the --execution.",
            show_default=False,
        ),
    ],
    path: Annotated[str, typer.Argument(help="Path of the step, such as fetch or fan_out[3].fetch.")],
    input: Annotated[
        str | None, _option("Input of the execution: JSON, @FILE, or - for standard input.", "--input", "-i")
    ] = None,
    set: Annotated[_Strings, _option(SET_HELP)] = None,
    set_string: Annotated[_Strings, _option(SET_STRING_HELP)] = None,
    given: Annotated[
        str | None,
        _option("Outputs of other steps by path: JSON or @FILE.", "--outputs"),
    ] = None,
    variables: Annotated[str | None, _option("Variables by name: JSON or @FILE.")] = None,
    items: Annotated[str | None, _option('Items by name, such as {"item": 7}: JSON or @FILE.')] = None,
    params: Annotated[str | None, _option("What the handler is called with instead: JSON or @FILE.")] = None,
    execution: Annotated[str, _option("Id of an execution whose values are taken.")] = "",
    at: Annotated[int, typer.Option(min=0, help="Take them as they were after this event; 0 for as they are.")] = 0,
    revision: Annotated[int, typer.Option(min=0, help="Revision of the workflow; 0 for the latest.")] = 0,
) -> int:
    """Run one step by itself, and keep nothing: its handler is really called. Ends with 1 if it fails."""
    from flowkeep.v1.execution_pb2 import StepExecution
    from service.cli.arguments import read_input, read_json
    from service.cli.execution_ids import whole_id
    from service.cli.json_form import json_form
    from service.cli.rendering import show, show_json
    from service.cli.step_view import step_view

    options: Any = {"revision": revision, "at_seq": at}
    if execution:
        options["execution_id"] = await whole_id(session.client, execution)
    if (read := read_input(input, set or (), set_string or ())) is not None:
        options["input"] = read
    for name, written in (("outputs", given), ("variables", variables), ("items", items), ("params", params)):
        if written is not None:
            value = read_json(written, f"--{name}")
            if not isinstance(value, dict):
                raise typer.BadParameter("must be an object", param_hint=f"--{name}")
            options[name] = value
    what = read_json(source, "SOURCE") if source.startswith("@") else "" if source == "-" else source
    response = await session.client.test_step(what, path, **options)
    if session.json:
        show_json(json_form(response))
    else:
        show(step_view("", response.step, response.unreadable, withheld=response.definition_withheld))
        _show_next(response)
    return 1 if response.step.state == StepExecution.STATE_FAILED else 0


def _show_next(response: TestStepResponse) -> None:
    from service.cli.rendering import clean, one_line, plain, show

    for each in response.next_steps:
        fate = "would run" if each.runs else "would be skipped"
        if each.error:
            fate = f"cannot be told: {one_line(clean(each.error))}"
        show(plain(f"Next: {clean(each.path)} {fate}"))
