/** The client: the calls of the service as methods, plain values in and messages out; here those that start and read executions. */

import { create, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";

import { given } from "./answer.js";
import { executeAll, type Outcome } from "./batch.js";
import { Connection, type ConnectionOptions } from "./connection.js";
import { ExecutionFailedError, type FlowkeepError } from "./errors.js";
import type { CompareExecutionsResponse } from "./gen/flowkeep/v1/comparison_pb.js";
import type { ExecutionEvent, ExecutionFinished } from "./gen/flowkeep/v1/event_pb.js";
import { type Execution, Execution_State, ExecutionView, StepView } from "./gen/flowkeep/v1/execution_pb.js";
import type { StepExecution } from "./gen/flowkeep/v1/execution_pb.js";
import type { ExplainExecutionResponse, ExplainQueueResponse } from "./gen/flowkeep/v1/explanation_pb.js";
import {
  type ExecuteRequest,
  type ExecuteResponse,
  type GetStepResponse,
  ListExecutionsRequestSchema,
  ListStepsRequestSchema,
  WatchExecutionRequestSchema,
  type WatchExecutionResponse,
} from "./gen/flowkeep/v1/execution_service_pb.js";
import type { TestStepRequestSchema, TestStepResponse } from "./gen/flowkeep/v1/step_test_pb.js";
import { fromValue, type Input } from "./payload.js";
import {
  type CallOptions,
  type ExecuteOptions,
  executeRequest,
  executionFilter,
  type ListOptions,
  type RetryOptions,
  retryRequest,
} from "./requests.js";
import { eventsOf, follow } from "./watch.js";
import { WorkflowCalls } from "./workflows.js";

const WAIT_SECONDS = 300;

/** Where a watch begins. */
export interface WatchOptions extends CallOptions {
  /** Only events after this one. By default from the beginning. */
  readonly afterSeq?: bigint | number | undefined;
  /** Only events from now on; excludes `afterSeq`. */
  readonly snapshot?: boolean | undefined;
  /** Called with the error of each break, and of each try after it that fails. */
  readonly onBreak?: ((error: FlowkeepError) => void) | undefined;
}

/**
 * A connection to Flowkeep, opened by the first call.
 *
 * Every method throws FlowkeepError or a subclass. A call that met a broken connection, or a server that is away or has
 * too much work, is sent again, with growing pauses, until `timeout` (30 s) has passed in all: safe, because reads may be
 * repeated, and each call that changes something carries a `requestId`, under which the server does it once and answers
 * it as often as it comes. An aborted `signal` ends a call with the signal's reason.
 */
export class Client extends WorkflowCalls {
  readonly #connection: Connection;

  /** Throws TypeError for a target that is neither `host:port` nor `unix:/path`. */
  constructor(target = "localhost:50051", options: ConnectionOptions = {}) {
    const connection = new Connection(target, options);
    super(connection);
    this.#connection = connection;
  }

  /** Closes the connection. Calls and watches under way end with an error. */
  close(): void {
    this.#connection.close();
  }

  /**
   * Starts an execution and returns it, with `wait` when it has ended.
   *
   * Once this returns, the execution is kept and will reach its end. When it throws UnavailableError it may have started:
   * call again with the same `requestId`. Throws NotFoundError, PayloadError for an input that payloads cannot carry,
   * InvalidArgumentError for one that the workflow refuses, AlreadyExistsError for a request id that was used with other
   * content, ResourceExhaustedError when the queue stays full.
   */
  async execute(workflow: string, input?: Input, options: ExecuteOptions = {}): Promise<Execution> {
    return given((await this.start(executeRequest(workflow, input, options), options)).execution);
  }

  /** Sends a request made by `executeRequest`; the response also tells whether this call made the execution. */
  async start(request: ExecuteRequest, options: CallOptions = {}): Promise<ExecuteResponse> {
    const { executions, timeoutSeconds } = this.#connection;
    return this.#connection.call((attempt) => executions.execute(request, attempt), {
      ...options,
      timeoutSeconds: request.wait ? Math.max(timeoutSeconds, WAIT_SECONDS) : timeoutSeconds,
    });
  }

  /**
   * Starts up to 1,000 executions by requests that `executeRequest` made; returns in order what became of each.
   *
   * That is the response that `start` gives, or the error that it throws; what `start` sends again is sent again. Throws
   * FlowkeepError for what is wrong with the call as a whole: too many requests, or more than 4 MiB of them.
   */
  async batchExecute(requests: readonly ExecuteRequest[], options: CallOptions = {}): Promise<Outcome[]> {
    return executeAll(this.#connection, requests, options.signal);
  }

  /**
   * Returns an execution, with its steps and payloads in the view FULL; as it was after an event with `atSeq`.
   *
   * Throws NotFoundError; with `atSeq` OutOfRangeError beyond the newest event.
   */
  async getExecution(
    executionId: string,
    options: CallOptions & {
      readonly view?: ExecutionView | undefined;
      readonly atSeq?: bigint | number | undefined;
    } = {},
  ): Promise<Execution> {
    const request = { executionId, view: options.view ?? ExecutionView.FULL, atSeq: BigInt(options.atSeq ?? 0) };
    const { executions } = this.#connection;
    return given(
      (await this.#connection.call((attempt) => executions.getExecution(request, attempt), options)).execution,
    );
  }

  /** Yields the executions that meet all filters, newest first by default. Pages are fetched as needed. */
  async *listExecutions(options: ListOptions = {}): AsyncGenerator<Execution, void, undefined> {
    const request = create(ListExecutionsRequestSchema, {
      filter: executionFilter(options),
      order: options.order ?? 0,
      view: options.view ?? 0,
      pageSize: options.pageSize ?? 0,
    });
    const { executions } = this.#connection;
    do {
      const page = await this.#connection.call((attempt) => executions.listExecutions(request, attempt), options);
      yield* page.executions;
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /** Yields the steps of an execution in the order of the definition, in the view FULL with their payloads. */
  async *listSteps(
    executionId: string,
    options: CallOptions & {
      readonly handler?: string | undefined;
      readonly view?: StepView | undefined;
      readonly pageSize?: number | undefined;
    } = {},
  ): AsyncGenerator<StepExecution, void, undefined> {
    const request = create(ListStepsRequestSchema, {
      executionId,
      handler: options.handler ?? "",
      view: options.view ?? StepView.BASIC,
      pageSize: options.pageSize ?? 0,
    });
    const { executions } = this.#connection;
    do {
      const page = await this.#connection.call((attempt) => executions.listSteps(request, attempt), options);
      yield* page.steps;
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /** Returns a step with all of its payloads, in its newest or another iteration. Throws NotFoundError. */
  async getStep(
    executionId: string,
    path: string,
    options: CallOptions & { readonly iteration?: number | undefined } = {},
  ): Promise<GetStepResponse> {
    const request = { executionId, path, iteration: options.iteration ?? 0 };
    const { executions } = this.#connection;
    return this.#connection.call((attempt) => executions.getStep(request, attempt), options);
  }

  /** Returns why an execution and each of its open steps do not move. Throws NotFoundError. */
  async explainExecution(executionId: string, options: CallOptions = {}): Promise<ExplainExecutionResponse> {
    const { executions } = this.#connection;
    return this.#connection.call((attempt) => executions.explainExecution({ executionId }, attempt), options);
  }

  /** Returns why executions of a workflow, by name or id, wait for a server with room: 50 unless told. Throws NotFoundError. */
  async explainQueue(workflow: string, pageSize = 0, options: CallOptions = {}): Promise<ExplainQueueResponse> {
    const { executions } = this.#connection;
    return this.#connection.call((attempt) => executions.explainQueue({ workflow, pageSize }, attempt), options);
  }

  /** Returns how another execution, of the same workflow or another one, differs, step by step. Throws NotFoundError. */
  async compareExecutions(
    executionId: string,
    otherExecutionId: string,
    options: CallOptions = {},
  ): Promise<CompareExecutionsResponse> {
    const { executions } = this.#connection;
    const request = { executionId, otherExecutionId };
    return this.#connection.call((attempt) => executions.compareExecutions(request, attempt), options);
  }

  /**
   * Lets an execution that ended FAILED, TIMED_OUT or CANCELLED go on from what failed, and returns it; what is done stays.
   *
   * `edit` is the path of a step and the input that it is called with this time, `skip` that of one that is not run, and
   * the output that it has. Throws NotFoundError, and FailedPreconditionError (EXECUTION_STATE, STEP_NOT_RETRIED).
   */
  async retry(executionId: string, options: RetryOptions = {}): Promise<Execution> {
    const request = retryRequest(executionId, options);
    const { executions } = this.#connection;
    const response = await this.#connection.call((attempt) => executions.retry(request, attempt), options);
    return given(response.execution);
  }

  /**
   * Runs one step by itself, and returns what became of it and what would come next. Nothing is kept.
   *
   * The handler is really called, once: a call that met a broken connection is not made again. Throws NotFoundError,
   * InvalidArgumentError, and FailedPreconditionError (STEP_NOT_TESTED).
   */
  async testStep(
    request: MessageInitShape<typeof TestStepRequestSchema>,
    options: CallOptions = {},
  ): Promise<TestStepResponse> {
    const { executions } = this.#connection;
    return this.#connection.once((attempt) => executions.testStep(request, attempt), options, 300);
  }

  /**
   * Yields the events of an execution, first those that happened, up to the finished event.
   *
   * Every event after `afterSeq` comes exactly once and in order, through any broken connection, for as long as it takes;
   * bound it with `signal`. Throws NotFoundError, OutOfRangeError for a position that is not, or no longer, in the
   * history, and errors of identity.
   */
  watch(executionId: string, options: WatchOptions = {}): AsyncGenerator<ExecutionEvent, void, undefined> {
    return eventsOf(this.watchResponses(executionId, options));
  }

  /**
   * Yields what `watch` does as whole messages: the events of a transition together, bookmarks, output of steps. With
   * `snapshot` the first message holds the execution as it stands.
   */
  watchResponses(
    executionId: string,
    options: WatchOptions = {},
  ): AsyncGenerator<WatchExecutionResponse, void, undefined> {
    const afterSeq = BigInt(options.afterSeq ?? 0);
    if (options.snapshot && afterSeq !== 0n) {
      throw new TypeError("a watch begins after a seq or with a snapshot, not both");
    }
    const connection = this.#connection;
    const request = create(WatchExecutionRequestSchema, { executionId, afterSeq, snapshot: options.snapshot ?? false });
    return follow(
      async function* (from, signal) {
        yield* connection.executions.watchExecution(from, { headers: await connection.headers(), signal });
      },
      request,
      connection.signalWith(options.signal),
      options.onBreak,
    );
  }

  /**
   * Waits for the end of an execution and returns its result.
   *
   * Throws ExecutionFailedError when it ended otherwise than COMPLETED, and what `watch` throws.
   */
  async result(executionId: string, options: CallOptions = {}): Promise<JsonValue> {
    return this.#resultOf(await this.getExecution(executionId, { ...options, view: ExecutionView.BASIC }), options);
  }

  /** Starts an execution, waits for its end and returns its result. Throws as `execute` and `result` do. */
  async run(workflow: string, input?: Input, options: ExecuteOptions = {}): Promise<JsonValue> {
    return this.#resultOf(await this.execute(workflow, input, options), options);
  }

  async #resultOf(execution: Execution, options: CallOptions): Promise<JsonValue> {
    // From the newest event on: of an execution that has ended, that one is the finished event.
    const afterSeq = execution.lastSeq > 0n ? execution.lastSeq - 1n : 0n;
    for await (const event of this.watch(execution.executionId, { signal: options.signal, afterSeq })) {
      if (event.kind.case === "finished") {
        return outcomeOf(execution.executionId, event.kind.value);
      }
    }
    throw new Error(`the history of execution ${execution.executionId} ended without its finished event`);
  }
}

function outcomeOf(executionId: string, finished: ExecutionFinished): JsonValue {
  if (finished.state !== Execution_State.COMPLETED) {
    const failure = finished.outcome.case === "failure" ? finished.outcome.value : undefined;
    throw new ExecutionFailedError(executionId, finished.state, failure);
  }
  return fromValue(finished.outcome.case === "result" ? finished.outcome.value : undefined);
}
