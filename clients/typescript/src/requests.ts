/** Requests of the service, built from plain values. */

import { randomUUID } from "node:crypto";

import { create, type DescEnum, fromJson } from "@bufbuild/protobuf";
import { type Duration, timestampFromDate } from "@bufbuild/protobuf/wkt";

import { type DryRunOptions, dryRunMessage } from "./dry_runs.js";
import { type Span, toDuration } from "./durations.js";
import { type Execution_State, type ExecutionView, Execution_StateSchema } from "./gen/flowkeep/v1/execution_pb.js";
import {
  type ExecuteRequest,
  ExecuteRequestSchema,
  type ExecutionFilter,
  ExecutionFilterSchema,
  type ForkExecutionRequest,
  ForkExecutionRequestSchema,
  type ListExecutionsRequest_Order,
  type RetryRequest,
  RetryRequestSchema,
  type SignalWithStartRequest,
  SignalWithStartRequestSchema,
  type TimeRange,
  TimeRangeSchema,
} from "./gen/flowkeep/v1/execution_service_pb.js";
import { type Input, toStruct, toValue } from "./payload.js";

/** What every call takes. */
export interface CallOptions {
  /** Ends the call when it is aborted; what the call did on the server stays done. */
  readonly signal?: AbortSignal | undefined;
}

/** What every call takes that changes something. */
export interface ChangeOptions extends CallOptions {
  /** Id of the request; by default the client makes one. Give your own where you may have to call again. */
  readonly requestId?: string | undefined;
}

/** How a workflow is executed, beside its input. */
export interface ExecuteOptions extends ChangeOptions {
  /** Revision to run; by default the latest. */
  readonly revision?: number | undefined;
  /** To find the execution by, beside the tags of the workflow. */
  readonly tags?: readonly string[] | undefined;
  /** To find the execution by. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** -100 to 100, higher goes first; by default the workflow's. */
  readonly priority?: number | undefined;
  /** Id of the thing outside that the execution belongs to. */
  readonly correlationId?: string | undefined;
  /** How long to wait before the start. */
  readonly startDelay?: Span | undefined;
  /** How long the execution may take from its start; by default the workflow's. */
  readonly timeout?: Span | undefined;
  /** Where it is held: paths of steps with conditions, empty for always; `*` is each step. */
  readonly breakpoints?: Readonly<Record<string, string>> | undefined;
  /** Answer when the execution has ended, or after 300 s with the execution still running. */
  readonly wait?: boolean | undefined;
  /** How much of the execution is returned; by default BASIC, with `wait` together with the result. */
  readonly view?: ExecutionView | undefined;
  /** Makes it a dry run, which sends nothing outside. */
  readonly dryRun?: DryRunOptions | undefined;
}

/** How an execution is started where none has not ended: with its `input`, and otherwise as by `execute`. */
export interface SignalStartOptions extends Omit<ExecuteOptions, "correlationId" | "wait" | "view"> {
  /** Input of the execution, where it is started. */
  readonly input?: Input | undefined;
}

/** How an execution goes on after its end. */
export interface RetryOptions extends ChangeOptions {
  /** Why, for the history. */
  readonly reason?: string | undefined;
  /** How long the new run may take from now on; by default the timeout of the execution. */
  readonly timeout?: Span | undefined;
  /** What one step is called with this time; excludes `skip`. */
  readonly edit?: { readonly path: string; readonly input: object } | undefined;
  /** A step that is not run, and what it gives. */
  readonly skip?: { readonly path: string; readonly output?: unknown } | undefined;
}

/** What is otherwise in an execution that is made from another one; what is not given is as it was. */
export interface ForkOptions extends ChangeOptions {
  /** Id of the step to begin from; what lies before is inherited and does not run. Default: the beginning. */
  readonly step?: string | undefined;
  /** Number of the whole run of that step; by default the newest. */
  readonly iteration?: number | undefined;
  /** Input of the new execution. */
  readonly input?: Input | undefined;
  /** Variables that stand so where it begins. */
  readonly vars?: Input | undefined;
  /** Outputs of steps before, by their ids, in place of those that were recorded. */
  readonly outputs?: Readonly<Record<string, unknown>> | undefined;
  /** Revision that it runs; 0 means the latest. */
  readonly revision?: number | undefined;
  /** Only tell what does not fit. */
  readonly validateOnly?: boolean | undefined;
}

/** Which executions are meant; all must hold. Beginnings of ranges are inclusive, their ends exclusive. */
export interface ExecutionFilters {
  /** Id or name of the workflow. */
  readonly workflow?: string | undefined;
  /** States by their names, such as `FAILED`. */
  readonly states?: readonly (keyof typeof Execution_State)[] | undefined;
  readonly owner?: string | undefined;
  readonly tags?: readonly string[] | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly correlationId?: string | undefined;
  readonly createdFrom?: Date | undefined;
  readonly createdBefore?: Date | undefined;
  readonly endedFrom?: Date | undefined;
  readonly endedBefore?: Date | undefined;
  readonly executionIdPrefix?: string | undefined;
  /** Id of the execution that they were made from. */
  readonly sourceExecutionId?: string | undefined;
  /** Only dry runs, or with false only what is none. */
  readonly dryRun?: boolean | undefined;
}

/** Which executions to list, in which order, and how much of each: NEWEST first and BASIC by default. */
export interface ListOptions extends ExecutionFilters, CallOptions {
  readonly order?: ListExecutionsRequest_Order | undefined;
  readonly view?: ExecutionView | undefined;
  /** How many come with one call of the service; the iterator fetches pages as needed. */
  readonly pageSize?: number | undefined;
}

/**
 * Returns a request of Execute. It always has a request id, so that sending it again starts nothing twice.
 *
 * Throws PayloadError for an input that payloads cannot carry, RangeError for a span that is none.
 */
export function executeRequest(workflow: string, input?: Input, options: ExecuteOptions = {}): ExecuteRequest {
  const request = create(ExecuteRequestSchema, {
    workflow,
    revision: options.revision ?? 0,
    requestId: requestId(options),
    tags: [...(options.tags ?? [])],
    labels: { ...options.labels },
    correlationId: options.correlationId ?? "",
    breakpoints: breakpointsOf(options.breakpoints ?? {}),
    wait: options.wait ?? false,
    view: options.view ?? 0,
  });
  if (input !== undefined) {
    request.input = toStruct(input, "input");
  }
  if (options.priority !== undefined) {
    request.priority = options.priority;
  }
  if (options.startDelay !== undefined) {
    request.startDelay = named("startDelay", options.startDelay);
  }
  if (options.timeout !== undefined) {
    request.timeout = named("timeout", options.timeout);
  }
  if (options.dryRun !== undefined) {
    request.dryRun = dryRunMessage(options.dryRun);
  }
  return request;
}

/** Returns breakpoints as they are sent. */
export function breakpointsOf(breakpoints: Readonly<Record<string, string>>): { path: string; condition: string }[] {
  return Object.entries(breakpoints).map(([path, condition]) => ({ path, condition }));
}

/** Returns a request of SignalWithStart. It always has a request id, so that sending it again sends nothing twice. */
export function signalWithStartRequest(
  workflow: string,
  correlationId: string,
  name: string,
  payload: Input,
  options: SignalStartOptions,
): SignalWithStartRequest {
  const start = executeRequest(workflow, options.input, { ...options, correlationId });
  start.requestId = ""; // the request as a whole has one
  return create(SignalWithStartRequestSchema, {
    start,
    name,
    payload: toStruct(payload, "payload"),
    requestId: requestId(options),
  });
}

/** Returns a request id as it is sent: the given one, or one that nobody else has. */
export function requestId(options: ChangeOptions): string {
  return options.requestId || randomUUID();
}

/** Returns a filter of executions. Throws RangeError for a state that does not exist. */
export function executionFilter(filters: ExecutionFilters): ExecutionFilter {
  const filter = create(ExecutionFilterSchema, {
    workflow: filters.workflow ?? "",
    states: (filters.states ?? []).map((name) => stateOf(Execution_StateSchema, name)),
    owner: filters.owner ?? "",
    tags: [...(filters.tags ?? [])],
    labels: { ...filters.labels },
    correlationId: filters.correlationId ?? "",
    executionIdPrefix: filters.executionIdPrefix ?? "",
    sourceExecutionId: filters.sourceExecutionId ?? "",
  });
  const created = timeRange(filters.createdFrom, filters.createdBefore);
  const ended = timeRange(filters.endedFrom, filters.endedBefore);
  if (created !== undefined) {
    filter.createTime = created;
  }
  if (ended !== undefined) {
    filter.endTime = ended;
  }
  if (filters.dryRun !== undefined) {
    filter.dryRun = filters.dryRun;
  }
  return filter;
}

/** Returns the number of a state. Throws RangeError for one that does not exist. */
export function stateOf(states: DescEnum, name: string): number {
  const found = states.values.find((each) => each.localName === name);
  if (found === undefined || found.number === 0) {
    const names = states.values.slice(1).map((each) => each.localName);
    throw new RangeError(`states: ${JSON.stringify(name)} is none of ${names.join(", ")}`);
  }
  return found.number;
}

function timeRange(start: Date | undefined, end: Date | undefined): TimeRange | undefined {
  if (start === undefined && end === undefined) {
    return undefined;
  }
  return create(TimeRangeSchema, {
    ...(start && { startTime: timestampFromDate(start) }),
    ...(end && { endTime: timestampFromDate(end) }),
  });
}

function named(name: string, span: Span): Duration {
  try {
    return toDuration(span);
  } catch (error) {
    throw new RangeError(`${name} ${(error as Error).message}`, { cause: error });
  }
}

/** Returns a request of Retry. */
export function retryRequest(executionId: string, options: RetryOptions): RetryRequest {
  const { edit, skip } = options;
  const request = fromJson(RetryRequestSchema, {
    executionId,
    reason: options.reason ?? "",
    requestId: requestId(options),
    ...(edit !== undefined && { edit: { path: edit.path, input: toStruct(edit.input, "edit.input") } }),
    ...(skip !== undefined && { skip: { path: skip.path, output: toValue(skip.output ?? null, "skip.output") } }),
  });
  if (options.timeout !== undefined) {
    request.timeout = named("timeout", options.timeout);
  }
  return request;
}

/** Returns a request of ForkExecution. */
export function forkRequest(executionId: string, options: ForkOptions): ForkExecutionRequest {
  const { input, vars, outputs = {}, revision } = options;
  return fromJson(ForkExecutionRequestSchema, {
    executionId,
    requestId: requestId(options),
    validateOnly: options.validateOnly ?? false,
    stepPath: options.step ?? "",
    stepIteration: options.iteration ?? 0,
    ...(input !== undefined && { input: toStruct(input, "input") }),
    ...(vars !== undefined && { vars: toStruct(vars, "vars") }),
    outputs: Object.entries(outputs).map(([path, output]) => ({ path, output: toValue(output, `outputs.${path}`) })),
    ...(revision !== undefined && { revision }),
  });
}
