"""Following an execution to its end: what is said before, when the connection breaks, and at the end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from grpc import StatusCode

from flowkeep.errors import FlowkeepError, UnavailableError
from flowkeep.payload import from_value
from flowkeep.v1.event_pb2 import ExecutionEvent, ExecutionFinished
from flowkeep.v1.execution_pb2 import Execution, ExecutionView
from flowkeep.v1.execution_service_pb2 import ExecuteResponse, WatchExecutionResponse
from flowkeep.v1.workflow_pb2 import WorkflowDefinition
from service.cli.failures import failure_text, more_of
from service.cli.json_form import json_form
from service.cli.progress import news, show_progress
from service.cli.progress_lines import history_line
from service.cli.progress_state import Progress, outline
from service.cli.rendering import clean, is_screen, one_line, open_console, payload_text, plain, show, show_json
from service.cli.session import Session
from service.cli.tables import execution_view


def name_started(session: Session, started: ExecuteResponse) -> None:
    """Say which execution was started before anything else can go wrong: with JSON on standard error."""
    execution = started.execution
    if session.json:
        named = {"execution_id": execution.execution_id, "created": started.created}
        print(json.dumps({"started": named}), file=sys.stderr)
        return
    show(plain(f"{started_text(started)}: {execution.execution_id}"))


def name_forked(session: Session, execution: Execution, source: str, *, created: bool) -> None:
    """Say which execution was made of another one, as `name_started` does."""
    if session.json:
        named = {"execution_id": execution.execution_id, "created": created}
        print(json.dumps({"started": named}), file=sys.stderr)
        return
    what = "Made" if created else "This request had made"
    show(plain(f"{what} of {source} (revision {execution.revision}): {execution.execution_id}"))


def started_text(started: ExecuteResponse) -> str:
    """Return what was started, and whether by an earlier call of the same request."""
    what = "Started" if started.created else "This request had started"
    return f"{what} {started.execution.workflow_name} (revision {started.execution.revision})"


@contextmanager
def told_how_to_ask_again(session: Session, request_id: str, done: str = "what it started") -> Iterator[None]:
    """When the answer of a call is lost, say how to learn what was done: the request may have arrived."""
    try:
        yield
    except (asyncio.CancelledError, FlowkeepError) as error:
        if isinstance(error, asyncio.CancelledError) or _is_unknown(error):
            text = f"If the request arrived, the same with --request-id {request_id} finds {done}."
            _tell(session, text, {"request_id": request_id})
        raise


async def follow(session: Session, execution_id: str, after_seq: int = 0) -> int:
    """Show how an execution goes until it ends, then what came of it; return the exit code."""
    with _told_how_to_go_on(session, execution_id):
        execution = await session.client.get_execution(execution_id)
        progress = Progress(outline(execution), execution_id=execution_id)
        if after_seq:
            progress = Progress.of_execution(execution)
        async with aclosing(news(_responses(session, execution_id, after_seq))) as happenings:
            finished = await show_progress(happenings, progress, output=session.output)
    if finished is None:  # the events after the last one were asked for
        return code(execution)
    if not session.json:
        show_outcome(finished, execution_id, shown=not after_seq)
    return code(finished)


async def wait(session: Session, execution: Execution) -> int:
    """Show an execution when it has ended; return the exit code."""
    # By watching: one call that waits could not outlast a restart of the server, nor the longest deadline.
    with _told_how_to_go_on(session, execution.execution_id):
        after_seq = max(0, execution.last_seq - 1)
        async with aclosing(news(_responses(session, execution.execution_id, after_seq))) as happenings:
            async for _ in happenings:
                pass
        ended = await session.client.get_execution(execution.execution_id)
    show_execution(session, ended)
    return code(ended)


async def show_history(session: Session, execution_id: str, after_seq: int, *, to_the_end: bool) -> None:
    """Print the events of an execution after a seq, one on a line: those there are, or all up to the end."""
    execution = await session.client.get_execution(execution_id, ExecutionView.EXECUTION_VIEW_BASIC)
    if after_seq == execution.last_seq and not to_the_end:
        return
    progress = Progress(WorkflowDefinition(name=execution.workflow_name), execution_id=execution_id)
    async with aclosing(news(_responses(session, execution_id, after_seq))) as happenings:
        async for happening in happenings:
            if not isinstance(happening, ExecutionEvent):
                continue
            progress.apply(happening)
            if session.json:
                show_json({"execution_id": execution_id} | json_form(happening), line=True)
            else:
                show(history_line(happening, progress))
            if happening.seq >= execution.last_seq and not to_the_end:
                return


def show_outcome(finished: ExecutionFinished, execution_id: str = "", *, shown: bool = True) -> None:
    """Print what came of an execution: its result as JSON, or why it failed and how to see more.

    `shown` says that its events were: where they stand as lines, they have said why.
    """
    if finished.HasField("result"):
        show(payload_text("Result", from_value(finished.result)))
    elif finished.HasField("failure"):
        if not shown or is_screen(open_console()):
            show(failure_text(finished.failure))
        if execution_id and finished.failure.step_path:
            show(more_of(execution_id, finished.failure.step_path))


def show_execution(session: Session, execution: Execution) -> None:
    """Print an execution in the view FULL."""
    if session.json:
        show_json(json_form(execution))
    else:
        show(execution_view(execution))


def code(ended: Execution | ExecutionFinished | None) -> int:
    """Return the exit code for an end: 0 when the execution completed, else 1."""
    return 0 if ended is not None and ended.state == Execution.STATE_COMPLETED else 1


async def _responses(
    session: Session, execution_id: str, after_seq: int
) -> AsyncGenerator[WatchExecutionResponse, None]:
    """Yield the responses of a watch; say once of each break that it tries again, and that it goes on when it does."""
    is_broken = False
    about = {"execution_id": execution_id}

    def tell(error: FlowkeepError) -> None:
        nonlocal is_broken
        # An error with a reason is from the server itself, which hands its watchers over; if no other one takes them
        # up, the next try says so.
        if not is_broken and not error.reason:
            is_broken = True
            _tell(session, f"The connection broke ({one_line(clean(error.message))}). Trying again …", about)

    async with aclosing(session.client.watch_responses(execution_id, after_seq, on_break=tell)) as responses:
        async for response in responses:
            if is_broken:
                is_broken = False
                _tell(session, "The connection is back.", about)
            yield response


@contextmanager
def _told_how_to_go_on(session: Session, execution_id: str) -> Iterator[None]:
    try:
        yield
    except (asyncio.CancelledError, FlowkeepError) as error:
        if isinstance(error, FlowkeepError) and not _is_unknown(error):
            raise
        text = f"The execution goes on. See it again with: flowkeep watch {execution_id}"
        _tell(session, text, {"execution_id": execution_id})
        raise


def _is_unknown(error: FlowkeepError) -> bool:
    """Whether a call that ended so may have had its effect."""
    return isinstance(error, UnavailableError) or error.code in (StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED)


def _tell(session: Session, text: str, about: dict[str, str]) -> None:
    """Print to standard error, which with JSON holds JSON too."""
    # Not by typer's echo, which would write past the bars into the middle of them.
    print(json.dumps({**about, "message": text}) if session.json else text, file=sys.stderr)
