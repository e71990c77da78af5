"""A walk through the recorded history of an execution: forwards, backwards, to an event or the next one of a step."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

import typer

from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_pb2 import Execution
from service.cli.following import show_execution
from service.cli.json_form import json_form
from service.cli.rendering import clean, plain, show, show_json
from service.cli.session import Session
from service.cli.step_view import step_view
from service.cli.typed import CommandError, typed_lines
from service.cli.walk import Moment, moment_at

_HELP = """\
n [COUNT]    on by one event, or so many; so does an empty line
b [COUNT]    back
g SEQ        to the event with this number; so does the number alone
f, l         to the first event, to the last
t STEP       on to the next event of a step
s [STEP]     show the whole execution as it was then, or a step
h            this help
q            end"""


async def walk(session: Session, execution_id: str, seq: int) -> None:
    """Show the event `seq` of an execution and how all stood after it, then go where standard input says.

    Raises BadParameter for a command that cannot be done, unless a person at a terminal can type another.
    """
    execution = await session.client.get_execution(execution_id)
    events = [event async for event in _recorded(session, execution)]
    way = _Way(session, execution, events)
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    try:
        way.go(seq)
    except CommandError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from None
    async for line in typed_lines(lambda: _prompt(way) if is_terminal else None):
        try:
            if not await way.do(line.split()):
                return
        except CommandError as error:
            if not is_terminal:
                raise typer.BadParameter(str(error), param_hint="standard input") from None
            print(clean(str(error)), file=sys.stderr)


async def walk_through(session: Session, execution_id: str, seq: int) -> None:
    """Show every event of an execution from the event `seq` on, each with how all stood after it."""
    execution = await session.client.get_execution(execution_id)
    if seq > execution.last_seq:
        raise typer.BadParameter(_beyond(execution.last_seq), param_hint="--at")
    moment = Moment(execution)
    async for event in _recorded(session, execution):
        moment.apply(event)
        if event.seq >= seq:
            _show(session, moment)


class _Way:
    """Where in a history the walk stands."""

    def __init__(self, session: Session, execution: Execution, events: list[ExecutionEvent]) -> None:
        self._session = session
        self._execution = execution
        self._events = events
        self._moment = Moment(execution)
        self.at = 0

    @property
    def last(self) -> int:
        return len(self._events)

    def go(self, seq: int) -> None:
        """Go to an event and show it."""
        if not 1 <= seq <= self.last:
            raise CommandError(_beyond(self.last))
        if seq < self.at:
            self._moment = moment_at(self._execution, self._events, seq)
        for event in self._events[self.at : seq]:
            self._moment.apply(event)
        self.at = seq
        _show(self._session, self._moment)

    async def do(self, words: list[str]) -> bool:
        """Do what a line says; return whether the walk goes on."""
        match words:
            case [] | ["n"]:
                self.go(min(self.at + 1, self.last))
            case ["n", count]:
                self.go(min(self.at + _number(count), self.last))
            case ["b"]:
                self.go(max(self.at - 1, 1))
            case ["b", count]:
                self.go(max(self.at - _number(count), 1))
            case ["f"]:
                self.go(1)
            case ["l"]:
                self.go(self.last)
            case ["t", path]:
                self.go(self._next_of(path))
            case ["s", *path] if len(path) < 2:
                await self._show_then(*path)
            case ["h"]:
                show(_HELP)
            case ["q"]:
                return False
            case ["g", seq] | [seq] if seq.isdecimal():
                self.go(_number(seq))
            case _:
                raise CommandError(f"no such command: {' '.join(words)!r}; h shows them")
        return True

    def _next_of(self, path: str) -> int:
        ahead = self._events[self.at :]
        found = (event.seq for event in ahead if (kind := event.WhichOneof("kind")) and _is_of(event, kind, path))
        if (seq := next(found, 0)) == 0:
            raise CommandError(f"nothing happens to a step {path} after event {self.at}")
        return seq

    async def _show_then(self, path: str = "") -> None:
        """Show all of the execution, or of a step, as the server puts it together from the history."""
        then = await self._session.client.get_execution(self._execution.execution_id, at_seq=self.at)
        if not path:
            show_execution(self._session, then)
            return
        step = next((each for each in then.steps if each.path == path), None)
        if step is None:
            more = ", or is not among the first 1,000" if then.steps_omitted else ""
            raise CommandError(f"there is no step {path} yet{more}")
        if self._session.json:
            show_json(json_form(step), line=True)
        else:
            show(step_view(then.execution_id, step, then.unreadable, withheld=then.definition_withheld))


def _is_of(event: ExecutionEvent, kind: str, path: str) -> bool:
    return bool(getattr(getattr(event, kind), "path", "") == path)


def _show(session: Session, moment: Moment) -> None:
    if session.json:
        show_json(moment.as_json(), line=True)
    else:
        show(moment.view(), "")


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise CommandError(f"must be a whole number, not {text!r}")
    return int(text)


def _beyond(last: int) -> str:
    return f"the events have the numbers 1 to {last}"


async def _recorded(session: Session, execution: Execution) -> AsyncGenerator[ExecutionEvent, None]:
    """Give the events that there were when the execution was read."""
    async with aclosing(session.client.watch_responses(execution.execution_id)) as responses:
        async for response in responses:
            for event in response.events.events:
                yield event
                if event.seq >= execution.last_seq:
                    return


def _prompt(way: _Way) -> None:
    show(plain(f"{way.at} of {way.last}: n on, b back, s show, h help, q end", "dim"))
