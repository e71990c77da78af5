"""The verdict on a run: each invariant of the fault programme that a simulation can show, by its id."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from persistence.transition import CommitResult
from service.engine.failure import INTERRUPTED, OUTCOME_UNKNOWN, TERMINATED
from tests.simulation.bulking import check_bulks
from tests.simulation.cancelling import check_cancels
from tests.simulation.clients import PERSON
from tests.simulation.debugging import check_breakpoints
from tests.simulation.dry_running import check_dry_runs
from tests.simulation.editing import check_variables
from tests.simulation.folding import agrees, fold, given_by_hand, opened
from tests.simulation.forking import check_forks
from tests.simulation.history import Call, Claim, Write
from tests.simulation.link import HELD
from tests.simulation.pausing import check_halts, check_pauses
from tests.simulation.retrying import check_retries
from tests.simulation.runs import Runs
from tests.simulation.signalling import GROUP, check_signal_starts, check_signals
from tests.simulation.timing import check_times

if TYPE_CHECKING:
    from tests.simulation.world import World

CUT_OFF = frozenset({INTERRUPTED, OUTCOME_UNKNOWN})
MOST_KILLS = 5
"""Processes that one execution may take down (ST7)."""


def check(world: World) -> list[str]:
    """Return all violations that a finished run shows; none for a run that kept every promise."""
    problems = list(world.history.problems)
    parts = (
        _acknowledged,
        _requests,
        _rows,
        _writes,
        _calls,
        _streams,
        check_cancels,
        _messages,
        _people,
        _cut_off,
        check_times,
        check_pauses,
        check_halts,
        check_breakpoints,
        check_dry_runs,
        check_signals,
        check_signal_starts,
        check_variables,
        check_retries,
        check_forks,
        check_bulks,
    )
    for part in parts:
        problems += part(world)
    return problems


def _acknowledged(world: World) -> Iterator[str]:
    rows = world.database.tables.executions
    for answer in world.history.answers:
        has_one = answer.kind not in ("bulk", "stop bulk", "halt")
        if answer.outcome == "ok" and has_one and answer.execution_id not in rows:
            yield f"I1: {answer.execution_id} was acknowledged at {answer.time:.3f} and does not exist"


def _requests(world: World) -> Iterator[str]:
    """Check that an order has one execution, and that what was refused for good left nothing."""
    made: dict[str, list[UUID]] = defaultdict(list)
    for execution_id, row in world.database.tables.executions.items():
        if row.execution.lineage is not None or row.execution.correlation_id.startswith(GROUP):
            continue  # nobody ordered it
        made[row.execution.correlation_id].append(execution_id)
        if row.input.get("changed"):
            first = next((a for a in world.history.answers if a.is_changed and a.execution_id == execution_id), None)
            if first is None:
                yield f"I12: {execution_id} was made by a request that was never acknowledged as its own"
    for order, ids in made.items():
        if len(ids) > 1:
            yield f"I2: {order} has {len(ids)} executions: {[str(each) for each in ids]}"
    told: dict[int, set[UUID]] = defaultdict(set)
    firsts: Counter[int] = Counter()
    for answer in world.history.answers:
        if answer.kind == "execute" and answer.outcome == "ok" and answer.execution_id is not None:
            told[answer.order].add(answer.execution_id)
            firsts[answer.order] += answer.detail == "created"
        if answer.outcome == "definite" and answer.kind == "execute" and not _may_refuse(world, answer.order):
            yield f"EX3: order {answer.order} was refused: {answer.detail}"
    for number, known in told.items():
        if len(known) > 1:
            yield f"I2: callers of order {number} were told of {sorted(map(str, known))}"
        if firsts[number] > 1:
            yield f"I2: {firsts[number]} callers of order {number} were told that theirs made it"


def _may_refuse(world: World, order: int) -> bool:
    return any(request.is_changed for request in world.scenario.requests if request.order == order)


def _rows(world: World) -> Iterator[str]:
    by_execution: dict[UUID, list[Any]] = defaultdict(list)
    for write in world.history.writes:
        if write.result is CommitResult.COMMITTED:
            by_execution[write.execution_id] += write.events
    for execution_id, row in world.database.tables.executions.items():
        messages = opened(row.events)
        folded = fold(messages)
        problems = folded.problems + agrees(folded, row)
        if row.execution.last_seq != len(row.events):
            problems.append(f"I3: last_seq is {row.execution.last_seq} with {len(row.events)} events")
        if by_execution[execution_id] != row.events:
            problems.append("I6: the log is not what was accepted, in its order")
        ends = [event.seq for event in row.events if event.kind == "finished"]
        # An end is the last event, or another run follows it.
        right = [event.seq - 1 for event in row.events if event.kind == "reopened"] + [len(row.events)]
        if ends != right and row.execution.state.is_end:
            problems.append(f"I4: ends at {ends} of {len(row.events)} events")
        if row.execution.state.is_end and row.execution.incarnation is not None:
            problems.append("I6: it has ended and somebody owns it")
        code = (row.execution.failure or {}).get("code")
        if code == "INTERNAL":
            problems.append(f"EX7: the server gave it up: {row.execution.failure}")
        kills = sum(call.outcome == "killed" for call in world.history.calls if call.execution_id == execution_id)
        if code == "POISONED" and not kills and _died_of_others(world, execution_id):
            problems.append(f"ST7: quarantined after {row.execution.deaths} deaths, none of them by itself")
        if kills > MOST_KILLS * row.execution.run:
            problems.append(f"ST7: it took down {kills} processes")
        yield from (f"{problem} ({execution_id})" for problem in problems)


def _died_of_others(world: World, execution_id: UUID) -> bool:
    """Whether every owner was taken down by another execution: that must be told apart; a power cut cannot."""
    killed = {call.incarnation for call in world.history.calls if call.outcome == "killed"}
    owners = [claim.incarnation for claim in world.history.claims if claim.execution_id == execution_id]
    return killed.issuperset(owners[-MOST_KILLS - 1 : -1])


def _writes(world: World) -> Iterator[str]:
    owners: dict[tuple[UUID, int], tuple[str, UUID]] = {}
    newest: dict[UUID, int] = {}
    latest_claim: dict[UUID, list[tuple[float, int]]] = defaultdict(list)
    for claim in world.history.claims:
        latest_claim[claim.execution_id].append((claim.time, claim.epoch))
    for write in world.history.writes:
        if write.result is not CommitResult.COMMITTED:
            if write.has_changed_row:
                yield f"I10: a rejected write of {write.process} changed {write.execution_id}"
            continue
        if write.epoch < newest.get(write.execution_id, 0):
            yield f"I9: {write.execution_id} took a write of epoch {write.epoch} after {newest[write.execution_id]}"
        owed = max((epoch for time, epoch in latest_claim[write.execution_id] if time <= write.committed), default=1)
        if write.epoch < owed:
            yield f"I9: {write.execution_id} took a write of epoch {write.epoch} when {owed} owned it"
        newest[write.execution_id] = max(newest.get(write.execution_id, 0), write.epoch)
        if write.incarnation.int == 0:
            continue  # it was made without an owner
        owner = owners.setdefault((write.execution_id, write.epoch), (write.process, write.incarnation))
        if owner != (write.process, write.incarnation):
            yield f"I9: {write.execution_id} epoch {write.epoch} is written by {owner[0]} and {write.process}"


def _calls(world: World) -> Iterator[str]:
    rows = world.database.tables.executions
    calls: dict[tuple[UUID, str, int], list[Call]] = defaultdict(list)
    for call in world.history.calls:
        calls[call.execution_id, call.path, call.iteration].append(call)
    for (execution_id, path, iteration), made in calls.items():
        name = path if iteration == 1 else f"{path}#{iteration}"
        if {call.token for call in made} != {str(uuid5(execution_id, name))}:
            yield f"ST5: {execution_id} {path} has tokens {sorted({call.token for call in made})}"
        row = rows.get(execution_id)
        if row is None:
            yield f"I1: {execution_id} {path} was called and its execution does not exist"
            continue
        if len(made) > 1 and _is_once(world, execution_id, path):
            yield f"I8: {execution_id} {path} is AT_MOST_ONCE and was called {len(made)} times"
        # One without effect outside leaves no trace when it is cut off.
        for attempt, count in Counter(call.attempt for call in made if not call.is_harmless).items():
            if count > 1:
                yield f"ST3: {execution_id} {path} attempt {attempt} was called {count} times"
    yield from _completed_without_call(world, calls)
    yield from _calls_before_commits(world)
    yield from _calls_of_losers(world)
    yield from _calls_of_fenced(world)


def _is_once(world: World, execution_id: UUID, path: str) -> bool:
    row = world.database.tables.executions[execution_id]
    workflow = world.scenario.workflows[row.execution.workflow_id.int - 1]
    step = next(step for step in workflow.document["steps"] if step["id"] == path)
    return bool(step.get("delivery") == "AT_MOST_ONCE")


def _completed_without_call(world: World, calls: dict[tuple[UUID, str, int], list[Call]]) -> Iterator[str]:
    for execution_id, row in world.database.tables.executions.items():
        given = given_by_hand(row.events)
        for (path, iteration), step in row.steps.items():
            is_given = step.is_mocked or step.key in given
            if step.handler in ("effect", "pure") and step.state.value == "COMPLETED" and not is_given:
                made = calls.get((execution_id, path, iteration), [])
                if not any(call.outcome == "succeeded" and call.attempt == step.attempt for call in made):
                    yield f"ST1: {execution_id} {path} is COMPLETED and no call of its attempt succeeded"


def _calls_before_commits(world: World) -> Iterator[str]:
    """Check that a call with an effect outside begins after the commit of its start, and so of all that led to it."""
    started: dict[tuple[UUID, int, str, int, int], float] = {}
    for write in world.history.writes:
        if write.result is CommitResult.COMMITTED:
            for message in opened(write.events):
                if message.WhichOneof("kind") == "step_started":
                    body = message.step_started
                    key = write.execution_id, write.epoch, body.path, body.iteration, body.attempt
                    started.setdefault(key, write.committed)
    for call in world.history.calls:
        if call.execution_id not in world.database.tables.executions:
            continue  # I1 tells of it
        if call.is_harmless and not _is_once(world, call.execution_id, call.path):
            continue
        committed = started.get((call.execution_id, call.epoch, call.path, call.iteration, call.attempt))
        if committed is None or committed > call.begun:
            yield (
                f"ST12: {call.process} called {call.execution_id} {call.path} at {call.begun:.3f}, "
                f"and its start was committed {'never' if committed is None else f'at {committed:.3f}'}"
            )


def _calls_of_losers(world: World) -> Iterator[str]:
    """Check that who lost a write of an execution begins nothing more of it (ST10)."""
    lost: dict[tuple[UUID, str, int], Write] = {}
    for write in world.history.writes:
        if write.result is CommitResult.FENCED:
            lost.setdefault((write.execution_id, write.process, write.epoch), write)
    for call in world.history.calls:
        refused = lost.get((call.execution_id, call.process, call.epoch))
        if refused is None or call.begun <= refused.committed + _delay(world, refused) or _owned_still(world, call):
            continue
        yield (
            f"ST10: {call.process} called {call.execution_id} {call.path} at {call.begun:.3f}, "
            f"having lost epoch {call.epoch} at {refused.committed:.3f}"
        )


def _calls_of_fenced(world: World) -> Iterator[str]:
    """Check that nobody begins a call after another one took the execution: its own lease had ended before (ST10).

    Only who stood still in between may not know it yet; and a process that took it again itself, while what it took
    before was still being read, may call a harmless handler for the epoch before, whose writes are refused. So may one
    that the pause of a workflow took the execution from, with an epoch that nobody claimed.
    """
    claims: dict[UUID, list[Claim]] = defaultdict(list)
    for claim in world.history.claims:
        claims[claim.execution_id].append(claim)
    for call in world.history.calls:
        taken = next((c for c in claims[call.execution_id] if c.epoch > call.epoch and c.time < call.begun), None)
        if taken is None or (call.is_harmless and taken.incarnation == call.incarnation):
            continue
        was_taken_away = all(claim.epoch != call.epoch + 1 for claim in claims[call.execution_id])
        if call.is_harmless and was_taken_away:
            continue
        if not _stood_still(world, call):
            yield (
                f"ST10: {call.process} called {call.execution_id} {call.path} at {call.begun:.3f} in epoch "
                f"{call.epoch}, and epoch {taken.epoch} had begun at {taken.time:.3f}"
            )


def _stood_still(world: World, call: Call) -> bool:
    return any(who == call.process and begin <= call.begun <= end for who, begin, end in world.history.pauses)


def _owned_still(world: World, call: Call) -> bool:
    """Whether the caller's epoch was still the newest: a fenced end does not take the execution away."""
    epochs = [c.epoch for c in world.history.claims if c.execution_id == call.execution_id and c.time <= call.begun]
    return call.epoch >= max(epochs, default=1)


def _delay(world: World, write: Write) -> float:
    """Return how long the answer to a write may have taken."""
    stops = [end for _, begin, end in world.history.disturbances if begin - 1.0 <= write.committed <= end]
    return max([*stops, write.committed]) - write.committed + 3.0 + (HELD if world.scenario.held_rate else 0.0)


def _streams(world: World) -> Iterator[str]:
    for stream in world.history.streams:
        row = world.database.tables.executions.get(stream.execution_id)
        yield from (f"{problem} ({stream.execution_id})" for problem in stream.problems)
        given, all_of_it = len(stream.events), row.events if row is not None else []
        # Whoever watches to an end does not see the run that follows.
        is_whole = given == len(all_of_it) or (given < len(all_of_it) and all_of_it[given].kind == "reopened")
        if row is not None and stream.has_ended and not (is_whole and stream.events == all_of_it[:given]):
            yield f"I11: a watcher of {stream.execution_id} got {len(stream.events)} of {len(row.events)} events"
        if stream.has_ended and (not stream.events or stream.events[-1].kind != "finished"):
            yield f"I11: the stream of {stream.execution_id} ended before the last event (W9)"
        if not all(before.seq + 1 == after.seq for before, after in pairwise(stream.events)):
            yield f"I11: a watcher of {stream.execution_id} got a gap (W3)"


def _messages(world: World) -> Iterator[str]:
    """Check that whatever was sent is consumed once, before the end of its execution if it binds, as all here does."""
    consumed: dict[tuple[UUID, UUID, int], list[float]] = defaultdict(list)
    runs, without_events = Runs(world), set[tuple[UUID, int, int, tuple[UUID, ...]]]()
    for write in world.history.writes:
        if write.result is CommitResult.COMMITTED:
            # One without events that had no answer is written again, and then changes nothing: its seq tells no
            # difference.
            again = write.execution_id, write.epoch, write.base_seq, write.consumed
            if not write.events and again in without_events:
                continue
            without_events |= set() if write.events else {again}
            run = runs.number(write.execution_id, write.committed)
            for message_id in write.consumed:
                consumed[write.execution_id, message_id, run].append(write.committed)
    for key, times in consumed.items():
        if len(times) > 1:
            yield f"I21: message {key[1]} of {key[0]} was consumed {len(times)} times"
    tasks = world.database.tables.tasks
    for key, sent in world.history.messages.items():
        end, how = runs.end(key[0], key[2]) or (sent, "")
        is_wish = key[1] == key[0]  # to cancel it, which whoever terminates it does, too
        if how and key[1] not in tasks and (how == TERMINATED or not is_wish):
            continue  # what else it was sent asks nothing of what somebody has cancelled
        if not consumed[key]:
            yield f"I21: message {key[1]} of {key[0]} was sent at {sent:.3f} and never consumed"
        elif end < min(consumed[key]):
            yield f"I21: message {key[1]} of {key[0]} was passed by its end"


def _people(world: World) -> Iterator[str]:
    """Check that a step goes on with the completion that was acknowledged, and with none that was refused."""
    runs = Runs(world)
    for answer in world.history.answers:
        row = world.database.tables.executions.get(answer.execution_id) if answer.execution_id else None
        if answer.kind != "complete" or answer.outcome == "unknown" or row is None:
            continue
        output = row.steps[answer.path, answer.iteration].output or {}
        said = output.get("outcome") if output.get("completed_by") == PERSON else None
        if answer.outcome == "definite" and said:
            yield f"ST13: {answer.path} of {answer.execution_id} went on with {said}, which was refused"
        elif answer.outcome == "ok" and said != answer.detail and not runs.was_cancelled(row.execution.id):
            yield f"ST13: {answer.path} of {answer.execution_id} was to go on with {answer.detail}, not with {said}"


def _cut_off(world: World) -> Iterator[str]:
    """Check that no attempt is told to be cut off by who began it a moment before."""
    begun: dict[tuple[UUID, str, int, int], float] = {}
    for write in world.history.writes:
        if write.result is not CommitResult.COMMITTED:
            continue
        for message in (each for each in opened(write.events) if not each.inherited):
            match message.WhichOneof("kind"):
                case "step_started":
                    body = message.step_started
                    begun[write.execution_id, body.path, body.iteration, body.attempt] = write.decided
                case "step_retrying" | "step_failed" as kind:
                    body = getattr(message, kind)
                    since = begun.get((write.execution_id, body.path, body.iteration, body.attempt))
                    if body.failure.code in CUT_OFF and since == write.decided:
                        yield f"ST6: {body.path} of {write.execution_id} was cut off in the moment in which it began"
