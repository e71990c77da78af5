/** The calls that send something to executions: cancel, signal, pause, resume, terminate, fork, and that debug them. */

import { given } from "./answer.js";
import type { Connection } from "./connection.js";
import type { Execution } from "./gen/flowkeep/v1/execution_pb.js";
import type {
  CancelResponse,
  ForkExecutionResponse,
  SignalExecutionResponse,
  SignalWithStartResponse,
} from "./gen/flowkeep/v1/execution_service_pb.js";
import { NotificationCalls } from "./notifications.js";
import { type Input, toStruct } from "./payload.js";
import {
  breakpointsOf,
  type ChangeOptions,
  type ForkOptions,
  forkRequest,
  requestId,
  type SignalStartOptions,
  signalWithStartRequest,
} from "./requests.js";

/** What is done with executions that run. */
export class ControlCalls extends NotificationCalls {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    super(connection);
    this.#connection = connection;
  }

  /**
   * Cancels an execution and returns it with what became of each step.
   *
   * Idempotent. Throws NotFoundError, and FailedPreconditionError (EXECUTION_FINISHED) when it ended otherwise.
   */
  async cancel(
    executionId: string,
    options: ChangeOptions & { readonly reason?: string | undefined } = {},
  ): Promise<CancelResponse> {
    const request = { executionId, reason: options.reason ?? "", requestId: requestId(options) };
    const { executions } = this.#connection;
    return this.#connection.call((attempt) => executions.cancel(request, attempt), options);
  }

  /**
   * Lets nothing of an execution begin until it is resumed, and returns it. `hard` stops what runs, too; it is made again
   * after that. With `stopDeadline` the time until then does not count for the deadline.
   */
  async pause(
    executionId: string,
    options: ChangeOptions & {
      readonly reason?: string | undefined;
      readonly hard?: boolean | undefined;
      readonly stopDeadline?: boolean | undefined;
    } = {},
  ): Promise<Execution> {
    const { reason = "", hard = false, stopDeadline = false } = options;
    const request = { executionId, reason, hard, stopDeadline, requestId: requestId(options) };
    const { executions } = this.#connection;
    return given((await this.#connection.call((attempt) => executions.pause(request, attempt), options)).execution);
  }

  /**
   * Lets a paused execution go on, and returns it: with `stepOver` to the next step that begins, with `runTo` to the step
   * at that path.
   */
  async resume(
    executionId: string,
    options: ChangeOptions & {
      readonly reason?: string | undefined;
      readonly stepOver?: boolean | undefined;
      readonly runTo?: string | undefined;
    } = {},
  ): Promise<Execution> {
    const { reason = "", stepOver, runTo } = options;
    const halt = stepOver
      ? ({ case: "stepOver", value: true } as const)
      : runTo
        ? ({ case: "runTo", value: runTo } as const)
        : ({ case: undefined } as const);
    const request = { executionId, reason, halt, requestId: requestId(options) };
    const { executions } = this.#connection;
    return given((await this.#connection.call((attempt) => executions.resume(request, attempt), options)).execution);
  }

  /**
   * Lets an execution be held before steps from now on, and returns it: `breakpoints` has their paths with conditions,
   * empty for always.
   */
  async setBreakpoints(
    executionId: string,
    breakpoints: Readonly<Record<string, string>>,
    options: ChangeOptions = {},
  ): Promise<Execution> {
    const request = { executionId, breakpoints: breakpointsOf(breakpoints), requestId: requestId(options) };
    const { executions } = this.#connection;
    const response = await this.#connection.call((attempt) => executions.setBreakpoints(request, attempt), options);
    return given(response.execution);
  }

  /**
   * Lets a step that a breakpoint holds be called with this input, and returns the execution. Throws
   * FailedPreconditionError (STEP_NOT_HELD) for one that is not held.
   */
  async editStepInput(
    executionId: string,
    path: string,
    input: Input,
    options: ChangeOptions = {},
  ): Promise<Execution> {
    const request = { executionId, path, input: toStruct(input), requestId: requestId(options) };
    const { executions } = this.#connection;
    const response = await this.#connection.call((attempt) => executions.editStepInput(request, attempt), options);
    return given(response.execution);
  }

  /**
   * Sets variables of an execution that is paused, and returns it: what is evaluated from then on sees them. Throws
   * FailedPreconditionError (EXECUTION_STATE) for one that is not paused, InvalidArgumentError for what is no variable.
   */
  async editVariables(executionId: string, vars: Input, options: ChangeOptions = {}): Promise<Execution> {
    const request = { executionId, vars: toStruct(vars, "vars"), requestId: requestId(options) };
    const { executions } = this.#connection;
    const response = await this.#connection.call((attempt) => executions.editVariables(request, attempt), options);
    return given(response.execution);
  }

  /** Ends an execution at once, without waiting for what runs, and returns it. */
  async terminate(
    executionId: string,
    options: ChangeOptions & { readonly reason?: string | undefined } = {},
  ): Promise<Execution> {
    const request = { executionId, reason: options.reason ?? "", requestId: requestId(options) };
    const { executions } = this.#connection;
    return given((await this.#connection.call((attempt) => executions.terminate(request, attempt), options)).execution);
  }

  /**
   * Sends an execution a signal, for which one of its steps waits or will; it is told by its id, or by its workflow and
   * correlation id. Sent once, however often it is tried.
   *
   * Throws NotFoundError, FailedPreconditionError (EXECUTION_FINISHED, EXECUTION_STATE, CORRELATION_AMBIGUOUS),
   * InvalidArgumentError for a payload that a step which waits does not take, ResourceExhaustedError (SIGNALS_FULL).
   */
  async signal(
    target: string | { readonly workflow: string; readonly correlationId: string },
    name: string,
    payload: Input = {},
    options: ChangeOptions = {},
  ): Promise<SignalExecutionResponse> {
    const meant =
      typeof target === "string"
        ? ({ case: "executionId", value: target } as const)
        : ({ case: "correlation", value: target } as const);
    const request = { target: meant, name, payload: toStruct(payload, "payload"), requestId: requestId(options) };
    const { executions } = this.#connection;
    return this.#connection.call((attempt) => executions.signalExecution(request, attempt), options);
  }

  /**
   * Sends a signal to the execution of a workflow with a correlation id that has not ended, or starts one with it; the
   * response says whether it `started`. Of any number of calls at once one starts an execution; sent once, however often
   * it is tried.
   *
   * Throws NotFoundError, FailedPreconditionError (CORRELATION_AMBIGUOUS, EXECUTION_STATE), InvalidArgumentError,
   * ResourceExhaustedError (SIGNALS_FULL).
   */
  async signalWithStart(
    target: { readonly workflow: string; readonly correlationId: string },
    name: string,
    payload: Input = {},
    options: SignalStartOptions = {},
  ): Promise<SignalWithStartResponse> {
    const request = signalWithStartRequest(target.workflow, target.correlationId, name, payload, options);
    const { executions } = this.#connection;
    return this.#connection.call((attempt) => executions.signalWithStart(request, attempt), options);
  }

  /**
   * Makes a new execution of an existing one, which stays as it is; the response has it as `execution`.
   *
   * It begins from a `step`, from the beginning without one; what lies before is inherited. What is not given is as it was.
   * With `validateOnly` the response only has the `checks`: what is recorded and does not fit. Throws NotFoundError, FailedPreconditionError (FORK_NOT_FITTING, FORK_TOO_LARGE).
   */
  async fork(executionId: string, options: ForkOptions = {}): Promise<ForkExecutionResponse> {
    const request = forkRequest(executionId, options);
    const { executions } = this.#connection;
    return this.#connection.call((attempt) => executions.forkExecution(request, attempt), options);
  }
}
