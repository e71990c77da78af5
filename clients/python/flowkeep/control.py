"""The calls that send executions something: pause, resume, terminate, signal, retry, fork, and that debug them.

Also those that pause all executions of a workflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Unpack

from flowkeep.arguments import flag, text
from flowkeep.connection import Connection
from flowkeep.durations import Span
from flowkeep.payload import Input, to_struct
from flowkeep.requests import (
    Breakpoints,
    RequestId,
    StartOptions,
    breakpoint_messages,
    fork_request,
    request_text,
    retry_request,
    signal_request,
    signal_with_start_request,
)
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import Execution
from flowkeep.v1.workflow_breakpoints_pb2 import WorkflowBreakpoints
from flowkeep.v1.workflow_pb2 import Workflow
from flowkeep.v1.workflow_service_pb2 import GetWorkflowRequest
from flowkeep.workflow_requests import (
    pause_workflow_request,
    resume_workflow_request,
    workflow_breakpoints_request,
)


class ControlCalls(Connection):
    """What `Client` offers to control executions that run, one by one or all of a workflow."""

    async def pause(
        self,
        execution_id: str,
        reason: str = "",
        *,
        hard: bool = False,
        stop_deadline: bool = False,
        request_id: RequestId = None,
    ) -> Execution:
        """Let nothing of an execution begin until it is resumed, and return it.

        With `hard` attempts that run are stopped, and made again after that; with `stop_deadline` the time until then
        does not count. Raises NotFoundError, FailedPreconditionError (EXECUTION_STATE, EXECUTION_FINISHED).
        """
        request = pb.PauseRequest(
            execution_id=text("execution_id", execution_id),
            reason=text("reason", reason),
            hard=flag("hard", hard),
            stop_deadline=flag("stop_deadline", stop_deadline),
            request_id=request_text(request_id),
        )
        return (await self._call(self._executions.Pause, request)).execution

    async def resume(
        self,
        execution_id: str,
        reason: str = "",
        *,
        step_over: bool = False,
        run_to: str = "",
        request_id: RequestId = None,
    ) -> Execution:
        """Let a paused execution go on, and return it: with `step_over` to the next step, with `run_to` to that one.

        Raises NotFoundError, FailedPreconditionError (EXECUTION_STATE, EXECUTION_FINISHED).
        """
        if step_over and run_to:
            raise ValueError("step_over and run_to exclude each other")
        request = pb.ResumeRequest(
            execution_id=text("execution_id", execution_id),
            reason=text("reason", reason),
            request_id=request_text(request_id),
        )
        if flag("step_over", step_over):
            request.step_over = True
        elif text("run_to", run_to):
            request.run_to = run_to
        return (await self._call(self._executions.Resume, request)).execution

    async def set_breakpoints(
        self, execution_id: str, breakpoints: Breakpoints = (), *, request_id: RequestId = None
    ) -> Execution:
        """Let an execution be held before these steps from now on, and before no others, and return it.

        Raises NotFoundError, InvalidArgumentError, FailedPreconditionError (EXECUTION_STATE, EXECUTION_FINISHED).
        """
        request = pb.SetBreakpointsRequest(
            execution_id=text("execution_id", execution_id),
            breakpoints=breakpoint_messages(breakpoints),
            request_id=request_text(request_id),
        )
        return (await self._call(self._executions.SetBreakpoints, request)).execution

    async def edit_step_input(
        self, execution_id: str, path: str, input: Input, *, request_id: RequestId = None
    ) -> Execution:
        """Let a step that is held be called with this input, and return the execution.

        Raises NotFoundError, InvalidArgumentError for an input that does not fit, FailedPreconditionError
        (EXECUTION_STATE, EXECUTION_FINISHED, STEP_NOT_HELD).
        """
        request = pb.EditStepInputRequest(
            execution_id=text("execution_id", execution_id),
            path=text("path", path),
            input=to_struct(input, "input"),
            request_id=request_text(request_id),
        )
        return (await self._call(self._executions.EditStepInput, request)).execution

    async def edit_variables(self, execution_id: str, vars: Input, *, request_id: RequestId = None) -> Execution:
        """Set variables of an execution that is paused, and return it: what is evaluated from then on sees them.

        Raises NotFoundError, InvalidArgumentError for what is no variable of the workflow and for values that are too
        large, FailedPreconditionError (EXECUTION_STATE, EXECUTION_FINISHED).
        """
        request = pb.EditVariablesRequest(
            execution_id=text("execution_id", execution_id),
            vars=to_struct(vars, "vars"),
            request_id=request_text(request_id),
        )
        return (await self._call(self._executions.EditVariables, request)).execution

    async def terminate(self, execution_id: str, reason: str = "", *, request_id: RequestId = None) -> Execution:
        """End an execution at once, without waiting for what runs, and return it.

        What ran may still take effect. Raises NotFoundError, FailedPreconditionError (EXECUTION_FINISHED).
        """
        request = pb.TerminateRequest(
            execution_id=text("execution_id", execution_id),
            reason=text("reason", reason),
            request_id=request_text(request_id),
        )
        return (await self._call(self._executions.Terminate, request)).execution

    async def signal(
        self,
        execution_id: str,
        name: str,
        payload: Input | None = None,
        *,
        workflow: str = "",
        correlation_id: str = "",
        request_id: RequestId = None,
    ) -> pb.SignalExecutionResponse:
        """Send an execution a signal, for which a step of it waits or will; return the execution and the signal's id.

        With an empty `execution_id`, that of a `workflow` which has this `correlation_id` and has not ended. Sent once,
        however often it is tried. Raises NotFoundError, FailedPreconditionError (EXECUTION_FINISHED, EXECUTION_STATE,
        CORRELATION_AMBIGUOUS), InvalidArgumentError for a payload that a step which waits does not take, and
        ResourceExhaustedError (SIGNALS_FULL).
        """
        request = signal_request(
            execution_id, name, payload, workflow=workflow, correlation_id=correlation_id, request_id=request_id
        )
        return await self._call(self._executions.SignalExecution, request)

    async def signal_with_start(
        self,
        workflow: str,
        correlation_id: str,
        name: str,
        payload: Input | None = None,
        *,
        input: Input | None = None,
        request_id: RequestId = None,
        **options: Unpack[StartOptions],
    ) -> pb.SignalWithStartResponse:
        """Send a signal to the execution of a workflow with a correlation id that has not ended, or start it with one.

        The response has the execution, the id of the signal, and whether this call started it: with the `input` and
        the `options` that `flowkeep.requests.execute_request` describes. Of any number of calls at once one starts an
        execution; sent once, however often it is tried. Raises NotFoundError, FailedPreconditionError
        (CORRELATION_AMBIGUOUS, EXECUTION_STATE), InvalidArgumentError, and ResourceExhaustedError (SIGNALS_FULL).
        """
        request = signal_with_start_request(
            workflow, correlation_id, name, payload, input=input, request_id=request_id, **options
        )
        return await self._call(self._executions.SignalWithStart, request)

    async def retry(
        self,
        execution_id: str,
        reason: str = "",
        *,
        timeout: Span | None = None,
        edit: tuple[str, Mapping[str, Any]] | None = None,
        skip: tuple[str, Any] | None = None,
        request_id: RequestId = None,
    ) -> Execution:
        """Let an execution that ended FAILED, TIMED_OUT or CANCELLED go on from what failed, and return it.

        What is done stays. `edit` is the path of a step and the input that it is called with this time, `skip` the path
        of one that is not run and the output that it has; `timeout` counts from now on. Raises NotFoundError,
        FailedPreconditionError (EXECUTION_STATE, STEP_NOT_RETRIED), and InvalidArgumentError for an input that does not
        fit.
        """
        request = retry_request(execution_id, reason, timeout=timeout, edit=edit, skip=skip, request_id=request_id)
        return (await self._call(self._executions.Retry, request)).execution

    async def fork(
        self,
        execution_id: str,
        step: str = "",
        *,
        iteration: int = 0,
        input: Input | None = None,
        vars: Input | None = None,
        outputs: Mapping[str, Any] | None = None,
        revision: int | None = None,
        validate_only: bool = False,
        request_id: RequestId = None,
    ) -> pb.ForkExecutionResponse:
        """Make a new execution of an existing one, which stays as it is; the response has it as `execution`.

        It begins from a `step`, from the beginning without one; what lies before is inherited and does not run. What is
        None is as it was; `revision` 0 is the latest, `outputs` are by the ids of steps. With `validate_only` the
        response only has the `checks`: what is recorded and does not fit. Raises NotFoundError,
        FailedPreconditionError (FORK_NOT_FITTING, FORK_TOO_LARGE), and InvalidArgumentError for what does not fit of
        what is given.
        """
        request = fork_request(
            execution_id,
            step,
            iteration=iteration,
            input=input,
            vars=vars,
            outputs=outputs,
            revision=revision,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._call(self._executions.ForkExecution, request)

    async def pause_workflow(
        self,
        workflow: str,
        reason: str = "",
        *,
        pause_running: bool = False,
        hard: bool = False,
        stop_deadline: bool = False,
        request_id: RequestId = None,
    ) -> Workflow:
        """Let executions of a workflow wait, PENDING, before they start until it is resumed, and return it.

        With `pause_running` those that run are paused, too, as `pause` does with `hard` and `stop_deadline`. Raises
        NotFoundError.
        """
        request = pause_workflow_request(workflow, reason, pause_running, hard, stop_deadline, request_id)
        return (await self._call(self._workflows.PauseWorkflow, request)).workflow

    async def resume_workflow(self, workflow: str, reason: str = "", *, request_id: RequestId = None) -> Workflow:
        """Let what waits of a paused workflow start, and what its pause has paused go on; return it.

        Raises NotFoundError.
        """
        request = resume_workflow_request(workflow, reason, request_id)
        return (await self._call(self._workflows.ResumeWorkflow, request)).workflow

    async def set_workflow_breakpoints(
        self,
        workflow: str,
        breakpoints: Breakpoints = (),
        *,
        executions: int = 1,
        expire_time: datetime | None = None,
        request_id: RequestId = None,
    ) -> WorkflowBreakpoints | None:
        """Let so many of the next executions of a workflow be held before steps, and return what is set.

        `breakpoints` are paths of steps, or a mapping of paths to conditions on `params`, as of `execute`; none: the
        next executions are not held. Without `expire_time` it lasts a day. Raises NotFoundError, InvalidArgumentError.
        """
        request = workflow_breakpoints_request(workflow, breakpoints, executions, expire_time, request_id)
        response = await self._call(self._workflows.SetWorkflowBreakpoints, request)
        return response.breakpoints if response.HasField("breakpoints") else None

    async def get_workflow_breakpoints(self, workflow: str) -> WorkflowBreakpoints | None:
        """Return where the next executions of a workflow are held, None for nowhere. Raises NotFoundError."""
        request = GetWorkflowRequest(workflow=text("workflow", workflow))
        response = await self._call(self._workflows.GetWorkflow, request)
        return response.breakpoints if response.HasField("breakpoints") else None
