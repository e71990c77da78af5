"""Steps that ask people: each makes a task, and goes on with what somebody says, or with what is to happen without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from persistence.model import ExecutionState, Message, Step, StepState, Wait, WaitKind
from persistence.people import NewTask, TaskChange, TaskState
from service.engine import ids, payload
from service.engine.definition import Ask
from service.engine.expressions import ExpressionError
from service.engine.failure import EXPRESSION_ERROR, INVALID_PARAMS, TASK_OVERDUE, Failure
from service.engine.people import asking
from service.engine.people.asking import Asked, Default, Escalation
from service.engine.planning import events
from service.engine.planning.state import awaited_task
from service.engine.planning.step_rules import WORK_OF_STEP, StepRules

WORK_OF_FORM = 20
"""Work of judging a byte of what is asked."""


class PeopleRules(StepRules):
    """The rules of single steps, and of those that wait for people."""

    def ask(self, step: Step, action: Ask) -> None:
        """Make a task, and let the step wait for it unless it need not. Raises PutOffError."""
        try:
            params = action.params.render(self.draft.variables(self.scope(step)), self.allowance)
            size = payload.size(params)
            self.allowance.count(WORK_OF_FORM * size)
            asked = asking.read(params, self.latest)  # counted from there, a due time is never too early
        except ExpressionError as error:
            self.fail_for_good(step, Failure(EXPRESSION_ERROR, str(error)))
            return
        except ValueError as error:
            self.fail_for_good(step, Failure(INVALID_PARAMS, str(error)))
            return
        if not self.draft.has_room(size):
            self.fail_for_good(step, self.too_large("its parameters", size))
            return
        task = self._task(step, asked)
        if asked.is_waited:
            self._wait_for(step, task, params)
        else:
            self.complete(step, {"task_id": str(task.id)})
        if self.draft.steps[step.path].state is not StepState.FAILED:
            self.draft.tasks[task.id] = task
        self.draft.charge(size)

    def _task(self, step: Step, asked: Asked) -> NewTask:
        facts = self.draft.state.facts
        return NewTask(
            id=ids.task_id(self.time, facts["id"], step.path, step.iteration),
            path=step.path,
            iteration=step.iteration,
            title=asked.title,
            description=asked.description,
            form=asked.form,
            outcomes=asked.outcomes,
            assignees=asked.assignees,
            groups=asked.groups,
            create_time=self.time,
            due_time=asked.due_time,
            waited=asked.is_waited,
            workflow_name=facts["workflow"],
            owner=facts["owner"],
        )

    def _wait_for(self, step: Step, task: NewTask, params: Mapping[str, Any]) -> None:
        reason = f"waits for a person: task {task.id}"
        wait = Wait(WaitKind.TASK, self.time, task.due_time, reason, task=str(task.id))
        self.allowance.count(WORK_OF_STEP)
        begun = replace(step, input=params, start_time=self.time, attempt_time=self.time)
        self.draft.put(replace(begun, state=StepState.WAITING, wait=wait))
        self.draft.record(events.StepStarted(step.path, step.handler, step.attempt, "", params, step.iteration))
        self.draft.record(events.StepWaiting(step.path, wait, step.iteration))

    def answer(self, message: Message) -> None:
        """Complete the step of a task with what somebody said, if it waits for that still. Raises PutOffError."""
        body = message.body
        step = self.draft.steps.get(str(body.get("path")))
        if step is None or awaited_task(step) != message.id:
            return
        ending = self.draft.state.ending
        if ending is not None and ending.state is ExecutionState.CANCELLED:
            self.stop(step)
        else:  # also where another end is decided: it is kept, and nothing follows from it (CONTRACT ST13)
            self.complete(step, _output(message, str(body.get("outcome")), body.get("values"), body.get("comment")))
        self.draft.task_changes.pop(message.id, None)  # it has ended, by whoever completed it

    def overdue(self, step: Step) -> None:
        """Do what the step says of a task that nobody has done in time. Raises PutOffError."""
        task_id, wait = awaited_task(step), step.wait
        if task_id is None or wait is None:
            raise TypeError(f"step {step.path} waits for no person")
        match asking.overdue(step.input, self.latest, escalated=wait.escalated):
            case Escalation(assignees=assignees, groups=groups, due_time=due_time):
                later = replace(wait, wake_time=due_time, escalated=True)
                self.draft.put(replace(step, wait=later))
                self.draft.record(events.StepWaiting(step.path, later, step.iteration))
                change = TaskChange(task_id, TaskState.OPEN, self.time, "", assignees, groups, due_time)
                self.draft.task_changes[task_id] = change
            case Default(outcome=outcome, values=values):
                message = Message(task_id, "", self.time, "", {})
                self.complete(step, _output(message, outcome, values, ""))
            case None:
                failure = Failure(TASK_OVERDUE, "nobody completed the task in time", {"task_id": wait.task})
                self.fail_for_good(step, failure)


def _output(message: Message, outcome: str, values: Any, comment: Any) -> dict[str, Any]:
    """Return the output of a step whose task has ended; nobody has sent the message of one that is overdue."""
    return {
        "task_id": str(message.id),
        "outcome": outcome,
        "values": {} if values is None else values,
        "completed_by": message.sender,
        "comment": comment or "",
        "overdue": not message.sender,
    }
