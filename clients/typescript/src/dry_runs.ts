/** Dry runs of executions, which send nothing outside: what stands in the place of their steps. */

import { fromJson, type JsonObject } from "@bufbuild/protobuf";

import { type DryRun, DryRunSchema } from "./gen/flowkeep/v1/dry_run_pb.js";
import { type Input, toStruct, toValue } from "./payload.js";

/** What stands in the place of a step: it gives `output`, null by default, as far as it does not fail. */
export interface Mock {
  readonly output?: unknown;
  /** How attempts of the step fail: the first `times`, or all of them where that is not given. */
  readonly failure?: MockFailure | undefined;
}

/** How attempts of a step fail in whose place a mock stands. */
export interface MockFailure {
  /** What went wrong, such as `HTTP_STATUS_5XX`. */
  readonly code: string;
  readonly message?: string | undefined;
  readonly details?: Input | undefined;
  /** Whether the retry policy of the step decides if it is tried again. */
  readonly retryable?: boolean | undefined;
  readonly times?: number | undefined;
}

/** What makes an execution a dry run. */
export interface DryRunOptions {
  /** By the paths of steps, such as `ship`, `orders[3].ship`, or `orders.ship` for each item. */
  readonly mocks?: Readonly<Record<string, Mock>> | undefined;
  /** By the names of handlers. */
  readonly handlers?: Readonly<Record<string, Mock>> | undefined;
  /** Stands for each step that may send something and has no other. */
  readonly defaultMock?: Mock | undefined;
  /** Whether no time is waited for. */
  readonly skipWaits?: boolean | undefined;
}

/** Returns what makes an execution a dry run, as it is sent. Throws PayloadError for what payloads cannot carry. */
export function dryRunMessage(options: DryRunOptions): DryRun {
  return fromJson(DryRunSchema, {
    mocks: mocks(options.mocks, "dryRun.mocks"),
    handlers: mocks(options.handlers, "dryRun.handlers"),
    ...(options.defaultMock !== undefined && { defaultMock: mock(options.defaultMock, "dryRun.defaultMock") }),
    skipWaits: options.skipWaits ?? false,
  });
}

function mocks(given: Readonly<Record<string, Mock>> = {}, path: string): JsonObject {
  return Object.fromEntries(Object.entries(given).map(([name, each]) => [name, mock(each, `${path}.${name}`)]));
}

function mock({ output, failure }: Mock, path: string): JsonObject {
  const gives = output !== undefined || failure === undefined || Boolean(failure.times);
  return {
    ...(gives && { output: toValue(output ?? null, `${path}.output`) }),
    ...(failure !== undefined && {
      failure: {
        code: failure.code,
        message: failure.message ?? "",
        retryable: failure.retryable ?? false,
        times: failure.times ?? 0,
        ...(failure.details !== undefined && { details: toStruct(failure.details, `${path}.failure.details`) }),
      },
    }),
  };
}
