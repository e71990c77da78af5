/** What handlers are written against. */

import { create, type JsonObject } from "@bufbuild/protobuf";

import { type Span } from "./durations.js";
import { Handler_Effect, type Handler, HandlerSchema } from "./gen/flowkeep/v1/handler_pb.js";
import type { AttemptCancelled_Reason } from "./gen/flowkeep/v1/worker_service_pb.js";
import { toStruct } from "./payload.js";

/** What a worker says of a handler. */
export interface HandlerDeclaration {
  /** Name by which steps call it. */
  readonly name: string;
  /** What it does, for people. */
  readonly description?: string | undefined;
  /** JSON Schema (draft 2020-12) of its params, an object; by default they may be anything. */
  readonly params?: object | undefined;
  /**
   * What an attempt does outside of the execution: nothing; what is the same after a second attempt, given the idempotency
   * token (the default); what a second attempt may do again.
   */
  readonly effect?: "none" | "idempotent" | "external" | undefined;
}

/** Runs one attempt: params in, output out, both JSON. It should end soon after `context.signal` is aborted. */
export type HandlerFunction<Params> = (params: Params, context: AttemptContext) => unknown;

/** What an attempt uses up. */
export interface Used {
  readonly inputTokens?: number | undefined;
  readonly outputTokens?: number | undefined;
  /** In millionths of the org's currency. */
  readonly costMicros?: number | undefined;
}

/** One attempt of a step, as its handler sees it. */
export interface AttemptContext {
  readonly executionId: string;
  readonly stepPath: string;
  /** Number of the whole run of the step, from 1. */
  readonly iteration: number;
  /** Number of the attempt within the iteration, from 1. */
  readonly attempt: number;
  readonly workflow: string;
  /** Subject that started the execution. */
  readonly owner: string;
  /** The same for all attempts of an iteration: pass it on to what must not be done twice. */
  readonly idempotencyToken: string;
  /** When the time of the attempt is over, by the server's clock. */
  readonly deadline: Date | undefined;
  /** Aborted with a StoppedError when the attempt is to stop. */
  readonly signal: AbortSignal;
  /** Says how far the attempt is, 0 to 100, and what it does. At most four a second are recorded. */
  report(progressPercent: number, message?: string): void;
  /** Shows text to those who watch, such as tokens of a model. It is not recorded, and may be lost. */
  emit(text: string): void;
  /** Adds to what the attempt has used up. */
  use(used: Used): void;
}

/** An attempt fails with a code of its own. */
export class HandlerError extends Error {
  /** In UPPER_SNAKE_CASE. */
  readonly code: string;
  /** Machine-readable facts. */
  readonly details: object | undefined;
  /** Whether another attempt could help. Default true. */
  readonly retryable: boolean;
  /** Pause before another attempt, at least. */
  readonly retryAfter: Span | undefined;

  constructor(
    code: string,
    message: string,
    options: { details?: object; retryable?: boolean; retryAfter?: Span; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "HandlerError";
    if (!/^[A-Z][A-Z0-9_]{0,63}$/.test(code)) {
      throw new RangeError(`a code is UPPER_SNAKE_CASE and has at most 64 characters, unlike ${JSON.stringify(code)}`);
    }
    this.code = code;
    this.details = options.details;
    this.retryable = options.retryable ?? true;
    this.retryAfter = options.retryAfter;
  }
}

/** An attempt is to stop: its execution was cancelled, its time is over, another attempt may run, or the worker stops. */
export class StoppedError extends Error {
  /** UNSPECIFIED when the worker stops. */
  readonly reason: AttemptCancelled_Reason;

  constructor(reason: AttemptCancelled_Reason, message: string) {
    super(message);
    this.name = "StoppedError";
    this.reason = reason;
  }
}

const EFFECTS = {
  none: Handler_Effect.NONE,
  idempotent: Handler_Effect.IDEMPOTENT,
  external: Handler_Effect.EXTERNAL,
} as const;

/** Returns a declaration as a message. Throws PayloadError for a schema that is no JSON. */
export function handlerMessage(declaration: HandlerDeclaration): Handler {
  const schema: JsonObject = toStruct(declaration.params ?? { type: "object" }, "params");
  return create(HandlerSchema, {
    name: declaration.name,
    description: declaration.description ?? "",
    paramsSchema: schema,
    effect: EFFECTS[declaration.effect ?? "idempotent"],
  });
}
