"""Reasons why executions and steps do not move, each with a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from persistence.model import SUSPECT_DEATHS, Execution, ExecutionState, Pause, Step, Workflow
from persistence.pauses import WorkflowPause
from persistence.people import Task
from persistence.processes import Driving
from persistence.waits import Wait

MOST_NAMED = 20
"""Steps, or holders, that one reason names."""

_MOST_SAID = 3
_LONGEST_MESSAGE = 200


class Kind(StrEnum):
    """What sort of reason it is: the name of its field in the answer."""

    ENDED = "ended"
    PAUSED = "paused"
    ENDING = "ending"
    START_DELAY = "start_delay"
    QUEUE = "queue"
    PARKED = "parked"
    DRIVEN = "driven"
    STOPPED = "stopped"
    SERVERS = "servers"
    EMPTY = "empty"
    WORKFLOW_PAUSED = "workflow_paused"
    PREDECESSORS = "predecessors"
    EXECUTION = "execution"
    RUNNING_ATTEMPT = "running_attempt"
    TIMER = "timer"
    RETRY = "retry"
    SLOT = "slot"
    WORKER = "worker"
    TASK = "task"
    SIGNAL = "signal"
    BREAKPOINT = "breakpoint"


@dataclass(frozen=True, slots=True)
class Room:
    """Whether a server takes one execution more, and one of an org, of which it drives so many."""

    server: str
    has_room: bool
    has_room_for_org: bool
    driven: int


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason, since `start` and, where a time decides, until `end`. Which of the rest is set goes by the kind."""

    kind: Kind
    sentence: str
    start: datetime | None = None
    end: datetime | None = None
    state: ExecutionState | None = None
    pause: Pause | None = None
    server: str = ""
    count: int = 0
    fitting: int = 0
    paths: Sequence[str] = ()
    step: Step | None = None
    wait: Wait | None = None
    task: Task | None = None
    holders: Sequence[tuple[UUID, str]] = ()
    room: Room | None = None
    deaths: int = 0
    is_put_off: bool = False
    is_told_to_stop: bool = False
    workflow: Workflow | None = None


def ended(execution: Execution) -> Obstacle:
    """Return that it has ended, and that nothing is to come."""
    run = f" in run {execution.run}" if execution.run > 1 else ""
    why = _why(execution) if execution.state is not ExecutionState.COMPLETED else ""
    more = "" if execution.state is ExecutionState.COMPLETED else ", unless it is retried"
    sentence = f"It has ended{run}: {execution.state}{why}. Nothing is to come{more}."
    return Obstacle(Kind.ENDED, sentence, execution.end_time, state=execution.state)


def paused(pause: Pause, *, is_put_off: bool = False) -> Obstacle:
    """Return who paused it, and what comes at the resume; of what `is_put_off` that is the end."""
    how = " hard" if pause.is_hard else ""
    why = f": {pause.reason}" if pause.reason else ""
    how += " with its whole workflow" if pause.workflow_pause_id else ""
    then = "All of its steps have ended, and it completes" if is_put_off else "It goes on"
    sentence = f"{pause.by or 'Somebody'} paused it{how}{why}. {then} when it is resumed."
    return Obstacle(Kind.PAUSED, sentence, pause.time, pause=pause, is_put_off=is_put_off)


def workflow_paused(workflow: Workflow, pause: WorkflowPause) -> Obstacle:
    """Return who paused the whole workflow, so that executions of it do not start."""
    why = f": {pause.reason}" if pause.reason else ""
    since = f"workflow {workflow.name} is paused by {pause.by or 'somebody'} since {_at(pause.time)}{why}"
    sentence = f"{since[0].upper()}{since[1:]}. It starts when the workflow is resumed."
    return Obstacle(Kind.WORKFLOW_PAUSED, sentence, pause.time, workflow=workflow)


def ending(execution: Execution) -> Obstacle:
    """Return what it waits for to end."""
    state = execution.ending.state if execution.ending is not None else None
    running = execution.counts.running
    end = "its end" if state is None else f"its end as {state}"
    sentence = f"Before {end}, what still runs is stopped: {_counted(running, 'step')} in work."
    return Obstacle(Kind.ENDING, sentence, state=state, count=running)


def start_delay(execution: Execution, until: datetime) -> Obstacle:
    """Return until when its start was put off."""
    return Obstacle(Kind.START_DELAY, f"Its start was put off to {_at(until)}.", execution.create_time, until)


def queue(execution: Execution, before: int, most: int) -> Obstacle:
    """Return its place in the queue."""
    count = "nothing" if not before else f"{before}{' or more' if before >= most else ''}"
    sentence = f"It waits for a server with room, and {count} of its org {_be(before)} before it."
    if (deaths := execution.deaths) >= SUSPECT_DEATHS:
        sentence = f"{deaths} servers died while they drove it: it waits for one that tries it apart from all others."
    return Obstacle(Kind.QUEUE, sentence, execution.wake_time, count=before, deaths=deaths)


def empty() -> Obstacle:
    """Return that nothing waits."""
    return Obstacle(Kind.EMPTY, "No execution of it waits for a server.")


def servers(count: int, room: Room) -> Obstacle:
    """Return which servers there are, and whether the one that was asked has room."""
    there = f"{_counted(count, 'server')} {_be(count)} there" if count else "No server is there"
    if not room.has_room:
        this = "takes nothing more"
    elif not room.has_room_for_org:
        this = "takes nothing more of this org, to keep room for others"
    else:
        this = "has room, and takes what it finds"
    driven = _counted(room.driven, "execution")
    sentence = f"{there}. {room.server or 'The server'}, which was asked, drives {driven} of this org, and {this}."
    return Obstacle(Kind.SERVERS, sentence, count=count, room=room)


def parked(until: datetime) -> Obstacle:
    """Return that nobody has it, and from when on somebody will."""
    return Obstacle(Kind.PARKED, f"Nothing of it is due before {_at(until)}; no server holds it meanwhile.", end=until)


def server(driving: Driving) -> Obstacle:
    """Return which server has it, and whether that one has stopped."""
    name, until = driving.server or "its server", driving.lease_until
    if until is not None and until > driving.time:
        sentence = f"Server {name} drives it; its lease lasts until {_at(until)} and is renewed while it lives."
        return Obstacle(Kind.DRIVEN, sentence, end=until, server=driving.server)
    when = f": its lease ended at {_at(until)}" if until is not None else ""
    sentence = f"Server {name} has stopped{when}. The next server with room takes it over."
    return Obstacle(Kind.STOPPED, sentence, until, server=driving.server)


def predecessors(before: Sequence[str]) -> Obstacle:
    """Return which steps must end first."""
    more = len(before) - _MOST_SAID
    said = ", ".join(before[:_MOST_SAID]) + (f" and {more} more" if more > 0 else "")
    verb = "has" if len(before) == 1 else "have"
    return Obstacle(
        Kind.PREDECESSORS, f"It begins when {said} {verb} ended.", count=len(before), paths=before[:MOST_NAMED]
    )


def execution(holding: Execution) -> Obstacle:
    """Return that nothing holds a step but what holds its execution."""
    if is_ending(holding):
        return Obstacle(Kind.EXECUTION, "It does not begin any more, since the execution ends.")
    if holding.pause is not None:
        return Obstacle(Kind.EXECUTION, "It begins when the execution is resumed.")
    return Obstacle(Kind.EXECUTION, f"It begins when the execution goes on, which is {holding.state}.")


def running(step: Step, holding: Execution, *, may_be_stopped: bool) -> Obstacle:
    """Return what runs of a step; a hard pause stops it where it `may_be_stopped`."""
    if not step.attempt:
        return Obstacle(Kind.RUNNING_ATTEMPT, "It runs, until the steps in it have ended.", step.start_time, step=step)
    where = f" on {step.worker}" if step.worker else ""
    done = f", {step.progress} % done" if step.progress else ""
    since = f" since {_at(step.attempt_time)}" if step.attempt_time is not None else ""
    sentence = f"Attempt {step.attempt} runs{where}{since}{done}."
    is_told = False
    if is_ending(holding):
        is_told, sentence = True, f"{sentence} It was told to stop, since the execution ends."
    elif holding.pause is not None and holding.pause.is_hard and may_be_stopped:
        is_told, sentence = True, f"{sentence} It was told to stop, and is made again when the execution is resumed."
    elif holding.pause is not None:
        sentence = f"{sentence} The pause lets it finish."
    return Obstacle(Kind.RUNNING_ATTEMPT, sentence, step.attempt_time, step=step, is_told_to_stop=is_told)


def timer(wait: Wait, holding: Execution, now: datetime) -> Obstacle:
    """Return until when a step waits."""
    if (held := _held_since(wait, holding, now)) is not None:
        sentence = f"It waited until {_at(held)}, and goes on when the execution is resumed."
    else:
        until = f" until {_at(wait.wake_time)}" if wait.wake_time is not None else ""
        sentence = f"It waits{until}."
    return _waiting(Kind.TIMER, sentence, wait)


def retry(step: Step, wait: Wait, holding: Execution, now: datetime) -> Obstacle:
    """Return when the next attempt comes."""
    at = f" at {_at(wait.wake_time)}" if wait.wake_time is not None else ""
    if _held_since(wait, holding, now) is not None:
        at = " when the execution is resumed"
    code = failure_code(step)
    why = f", since the last one failed with {code}" if code else ""
    sentence = f"Attempt {wait.attempt} comes{at}{why}."
    return Obstacle(Kind.RETRY, sentence, wait.start_time, wait.wake_time, step=step, wait=wait)


def slot(wait: Wait, holders: Sequence[tuple[UUID, str]], others: int) -> Obstacle:
    """Return who holds what a step waits for."""
    said = ", ".join(f"{path} of {execution_id}" for execution_id, path in holders[:_MOST_SAID])
    more = len(holders) + others - min(len(holders), _MOST_SAID)
    held = " and ".join(filter(None, (said, f"{more} {'more' if said else 'others'}" if more else "")))
    sentence = f"It {wait.reason or f'waits for {wait.resource}'}{f'; held by {held}' if held else ''}."
    return Obstacle(Kind.SLOT, sentence, wait.start_time, wait.wake_time, wait=wait, holders=holders, count=others)


def worker(wait: Wait, having: int, fitting: int) -> Obstacle:
    """Return that nobody may run a step."""
    if not having:
        known = f"no connected worker has the handler {wait.handler}"
    elif not fitting:
        known = f"{_counted(having, 'worker')} {_be(having)} connected with the handler {wait.handler}, but none fits"
    else:
        known = f"{_counted(fitting, 'worker')} that would do {_be(fitting)} connected: it goes on presently"
    wanted = f" ({wait.reason})" if wait.reason else ""
    sentence = f"It waits for somebody who may run it{wanted}; {known}."
    return Obstacle(Kind.WORKER, sentence, wait.start_time, wait.wake_time, wait=wait, count=having, fitting=fitting)


def task(wait: Wait, asked: Task | None) -> Obstacle:
    """Return whom a step waits for; nothing of the task where it is not seen."""
    if asked is None:
        said = "a person to do a task"
    elif asked.claimed_by:
        said = f"{asked.claimed_by} to do {asked.title!r}"
    else:
        groups = [f"the group {each}" for each in asked.groups]
        named = [*asked.assignees, *groups]
        more = [f"{len(named) - _MOST_SAID} more"] if len(named) > _MOST_SAID else []
        said = f"{' or '.join([*named[:_MOST_SAID], *more]) or 'anybody'} to do {asked.title!r}"
    due = f", due at {_at(wait.wake_time)}" if wait.wake_time is not None else ""
    again = "; it was overdue once" if wait.escalated else ""
    sentence = f"It waits for {said}{due}{again}."
    return Obstacle(Kind.TASK, sentence, wait.start_time, wait.wake_time, wait=wait, task=asked)


def signal(wait: Wait) -> Obstacle:
    """Return which signals have not come."""
    more = len(wait.signals) - _MOST_SAID
    names = (" and " if wait.every else " or ").join(wait.signals[:_MOST_SAID])
    rest = f" and {more} more" if more > 0 else ""
    until = f", until {_at(wait.wake_time)} at most" if wait.wake_time is not None else ""
    since = f" since {_at(wait.start_time)}"
    kind = "signal" if len(wait.signals) == 1 else "signals"
    return _waiting(Kind.SIGNAL, f"It waits for the {kind} {names}{rest}{since}{until}.", wait)


def breakpoint_of(wait: Wait) -> Obstacle:
    """Return that somebody may look at the step before it begins."""
    return _waiting(
        Kind.BREAKPOINT, "A breakpoint holds it before it begins: it begins when the execution is resumed.", wait
    )


def is_ending(execution: Execution) -> bool:
    """Return whether its end is decided, and waits for what runs."""
    return execution.ending is not None or execution.state is ExecutionState.CANCELLING


def failure_code(failed: Step | Execution) -> str:
    """Return the code of the failure of the last attempt, or of an end; empty where it cannot be told."""
    code = (failed.failure or {}).get("code", "")
    return code if isinstance(code, str) else ""


def _why(execution: Execution) -> str:
    """Return in which step an execution failed, with which code, and the beginning of what was said of it."""
    failure, code = execution.failure or {}, failure_code(execution)
    path, details = failure.get("step_path"), failure.get("details")
    if not path or not isinstance(details, dict):
        return f" with {code}" if code else ""
    message = str(failure.get("message", ""))[:_LONGEST_MESSAGE].rstrip(".")
    # The code of the step tells more than that a step has failed.
    return f" in {path} with {details.get('code', code)}{message and f': {message}'}"


def _held_since(wait: Wait, holding: Execution, now: datetime) -> datetime | None:
    """Return when a wait was over that a pause has kept from going on, None for others."""
    is_over = wait.wake_time is not None and wait.wake_time <= now
    return wait.wake_time if holding.pause is not None and is_over else None


def _waiting(kind: Kind, sentence: str, wait: Wait) -> Obstacle:
    return Obstacle(kind, sentence, wait.start_time, wait.wake_time, wait=wait)


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _be(number: int) -> str:
    return "is" if number < 2 else "are"
