"""A debugger in the terminal: an execution is held before steps, shown, changed, and let go on as far as is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import RenderableType

from flowkeep import FlowkeepError
from flowkeep.payload import from_struct
from flowkeep.requests import execute_request
from flowkeep.v1.dry_run_pb2 import DryRun
from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL, Breakpoint, Execution
from service.cli.arguments import read_values
from service.cli.following import name_started, show_execution, told_how_to_ask_again
from service.cli.json_form import json_form
from service.cli.progress_lines import history_line
from service.cli.progress_state import Progress, outline
from service.cli.reading import TextError
from service.cli.rendering import clean, payload_text, plain, show, show_json
from service.cli.session import Session
from service.cli.step_view import step_view
from service.cli.typed import CommandError, typed_lines

_HELP = """\
n                    on to the next step that begins; so does an empty line
c                    on to the next breakpoint, or to the end
t STEP               on to a step
i INPUT              call the step that is held with this input, a JSON object
set NAME=VALUE       set a variable: JSON, or else text
b                    show the breakpoints
b STEP [CONDITION]   hold it before a step, too: always, or where a condition in CEL is true of `params`
d STEP               hold it before that step no more
v                    show the execution and its variables
s [STEP]             show all of the step that is held, or of another one
x [REASON]           cancel it
h                    this help
q                    end; what is held stays so"""

_EVERY = "*"


async def start(
    session: Session, workflow: str, given: dict[str, object] | None, points: dict[str, str], dry_run: DryRun | None
) -> str:
    """Start an execution that is held before these steps, or before its first one, and return its id.

    With `dry_run` it sends nothing outside.
    """
    request = execute_request(workflow, given, breakpoints=points or {_EVERY: ""}, dry_run=dry_run)
    with told_how_to_ask_again(session, request.request_id):
        started = await session.client.start(request)
    name_started(session, started)
    return started.execution.execution_id


async def debug(session: Session, execution_id: str, points: dict[str, str], *, is_new: bool) -> int:
    """Go on with an execution as standard input says, until it has ended or is left; 1 if it did not complete."""
    debugger = _Debugger(session, execution_id)
    if points and not is_new:
        await session.client.set_breakpoints(execution_id, points)
    await debugger.follow()
    if is_new and not points and not debugger.has_ended:
        await session.client.set_breakpoints(execution_id)  # it was held before its first step alone
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if not debugger.has_ended:
        async for line in typed_lines(lambda: _prompt(debugger) if is_terminal else None):
            try:
                if not await debugger.do(line):
                    return 0
            except (CommandError, FlowkeepError) as error:
                if not is_terminal:
                    raise typer.BadParameter(str(error), param_hint="standard input") from None
                print(clean(str(error)), file=sys.stderr)
            if debugger.has_ended:
                break
    await debugger.show_all()
    return 0 if debugger.state == Execution.STATE_COMPLETED else 1


class _Debugger:
    """An execution, and how far it has come."""

    def __init__(self, session: Session, execution_id: str) -> None:
        self._session = session
        self._client = session.client
        self._id = execution_id
        self._progress: Progress | None = None
        self._seq = 0
        self.state = Execution.STATE_UNSPECIFIED
        self.held = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes."""
        return self.state not in (Execution.STATE_UNSPECIFIED, Execution.STATE_PAUSED)

    async def follow(self) -> None:
        """Show what happens until the execution is held or has ended."""
        if self._progress is None:
            execution = await self._client.get_execution(self._id, view=EXECUTION_VIEW_FULL)
            self._progress = Progress(outline(execution), execution_id=self._id, title=execution.workflow_name)
        self.held = ""
        async for event in self._client.watch(self._id, after_seq=self._seq):
            self._seq = event.seq
            self._progress.apply(event)
            self._say(history_line(event, self._progress), {"event": json_form(event)})
            if event.HasField("finished"):
                self.state = event.finished.state
            elif event.HasField("paused") and await self._is_held(event):
                return

    async def _is_held(self, event: ExecutionEvent) -> bool:
        """Return whether it is held still, and show before which step: what is told may be long ago."""
        execution = await self._client.get_execution(self._id)
        if execution.state != Execution.STATE_PAUSED or execution.pause.pause_time != event.time:
            return False
        self.state, self.held = execution.state, event.paused.step_path
        if self.held:
            step = (await self._client.get_step(self._id, self.held)).step
            given = from_struct(step.input) if step.HasField("input") else None
            self._say(payload_text("Input", given) if given is not None else None, {"held": self.held, "input": given})
        return True

    async def do(self, line: str) -> bool:
        """Do what a line says; return whether there is more to do."""
        command, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        match command, rest:
            case "" | "n", "":
                await self._go_on(step_over=True)
            case "c", "":
                await self._go_on()
            case "t", path if path:
                await self._go_on(run_to=path)
            case "i", text if text:
                await self._client.edit_step_input(self._id, self._held_step(), _object(text))
                self._say(plain(f"{self.held} will be called with that", "dim"), None)
            case "set", text if text:
                await self._set(text)
            case "b", "":
                self._show_points((await self._client.get_execution(self._id)).breakpoints)
            case "b", text:
                path, _, condition = text.partition(" ")
                await self._set_points({**await self._points(), path: condition.strip()})
            case "d", path if path:
                points = await self._points()
                if path not in points:
                    raise CommandError(f"there is no breakpoint {path}")
                del points[path]
                await self._set_points(points)
            case "v", "":
                await self.show_all()
            case "s", path:
                found = await self._client.get_step(self._id, path or self._held_step())
                view = step_view(self._id, found.step, found.unreadable, withheld=found.definition_withheld)
                self._say(view, {"step": json_form(found.step)})
            case "x", reason:
                await self._client.cancel(self._id, reason)
                await self.follow()
            case "h", "":
                show(_HELP)
            case "q", "":
                again = f"flowkeep debug --execution {self._id}"
                self._say(plain(f"It stays as it is; go on by: {again}", "dim"), None)
                return False
            case _:
                raise CommandError(f"no such command: {line.strip()!r}; h shows them")
        return True

    async def show_all(self) -> None:
        """Show the execution with its variables."""
        execution = await self._client.get_execution(self._id, view=EXECUTION_VIEW_FULL)
        if self._session.json:
            show_json({"execution": json_form(execution)}, line=True)
        else:
            show_execution(self._session, execution)

    async def _set(self, text: str) -> None:
        try:
            given = read_values([text], "set")
        except (typer.BadParameter, TextError) as error:
            raise CommandError(f"set NAME=VALUE: {error}") from None
        await self._client.edit_variables(self._id, given)
        if not self.held:
            return self._say(plain("it is set", "dim"), None)
        step = (await self._client.get_step(self._id, self.held)).step
        now = from_struct(step.input) if step.HasField("input") else None
        self._say(payload_text("Input", now) if now is not None else None, {"held": self.held, "input": now})
        return None

    async def _go_on(self, *, step_over: bool = False, run_to: str = "") -> None:
        await self._client.resume(self._id, step_over=step_over, run_to=run_to)
        await self.follow()

    def _held_step(self) -> str:
        if not self.held:
            raise CommandError("no step is held")
        return self.held

    async def _points(self) -> dict[str, str]:
        execution = await self._client.get_execution(self._id)
        return {each.path: each.condition for each in execution.breakpoints}

    async def _set_points(self, points: dict[str, str]) -> None:
        self._show_points((await self._client.set_breakpoints(self._id, points)).breakpoints)

    def _show_points(self, points: Sequence[Breakpoint]) -> None:
        named = [f"{each.path} {each.condition}".strip() for each in points]
        told = {"breakpoints": {each.path: each.condition for each in points}}
        self._say(plain("\n".join(named) or "no breakpoints"), told)

    def _say(self, text: RenderableType | None, told: Mapping[str, Any] | None) -> None:
        """Show something to people, or tell it as a line of JSON."""
        if self._session.json:
            if told is not None:
                show_json(told, line=True)
        elif text is not None:
            show(text)


def _prompt(debugger: _Debugger) -> None:
    where = f"before {debugger.held}" if debugger.held else "paused"
    show(plain(f"{where}: n next step, c continue, i INPUT, set NAME=VALUE, b STEP, v all, h help, q end", "dim"))


def _object(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"the input must be JSON: {error}") from None
    if not isinstance(found, dict):
        raise CommandError("the input must be a JSON object")
    return found
