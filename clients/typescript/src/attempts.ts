/** The attempts that a worker runs, or whose results are not settled. They outlive the stream that brought them. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";

import { toDuration } from "./durations.js";
import { type Usage, UsageSchema } from "./gen/flowkeep/v1/execution_pb.js";
import {
  type Assignment,
  type Attempt,
  AttemptCancelled_Reason as Reason,
  type WorkRequest,
  WorkRequestSchema,
} from "./gen/flowkeep/v1/worker_service_pb.js";
import { type AttemptContext, HandlerError, type HandlerFunction, StoppedError, type Used } from "./handlers.js";
import { toStruct, toValue } from "./payload.js";

/** Sends a request on the stream that stands; without one it is dropped. */
export type Send = (request: WorkRequest) => void;

/** What a worker says. */
export type Said = NonNullable<MessageInitShape<typeof WorkRequestSchema>["message"]>;

const MAX_OUTPUT_BYTES = 2 * 1024 * 1024;
const MAX_DETAILS_BYTES = 16 * 1024;
const MAX_EMIT_LENGTH = 16 * 1024; // in UTF-16, of which each takes at most three bytes
const MAX_NAMED = 2_000; // a server looks at no more
const MAX_AMOUNT = 1e12;
const WHY: Readonly<Record<number, string>> = {
  [Reason.CANCELLED]: "the execution or the step was cancelled, or has ended",
  [Reason.TIMEOUT]: "the attempt has taken longer than it may",
  [Reason.STALE]: "the attempt was lost, and another one may run",
};

/** Returns what a worker says as a request. */
export function said(message: Said): WorkRequest {
  return create(WorkRequestSchema, { message });
}

interface Running {
  readonly attempt: Attempt;
  readonly stop: AbortController;
  /** Once it has ended: what is sent until it is settled. */
  result?: WorkRequest;
}

/** Runs attempts by their handlers, at most as many at a time as there is room for. */
export class Attempts {
  readonly #handlers: ReadonlyMap<string, HandlerFunction<never>>;
  readonly #capacity: number;
  readonly #send: Send;
  readonly #kept = new Map<string, Running>();
  readonly #waiting: (() => void)[] = [];
  #active = 0;
  #whenEmpty: (() => void) | undefined;

  constructor(handlers: ReadonlyMap<string, HandlerFunction<never>>, capacity: number, send: Send) {
    this.#handlers = handlers;
    this.#capacity = capacity;
    this.#send = send;
  }

  /**
   * Returns what a server should know of when the worker connects, what runs first: results beyond what it looks at are
   * said to it all the same.
   */
  named(): Attempt[] {
    const kept = [...this.#kept.values()];
    const byNeed = [...kept.filter((each) => !each.result), ...kept.filter((each) => each.result)];
    return byNeed.slice(0, MAX_NAMED).map((each) => each.attempt);
  }

  /** Whether no attempt runs, and no result waits to be settled. */
  get isEmpty(): boolean {
    return this.#kept.size === 0;
  }

  /** Sends the results that are not settled, again. */
  resend(): void {
    for (const each of this.#kept.values()) {
      if (each.result) {
        this.#send(each.result);
      }
    }
  }

  /** Begins an attempt; one that is kept already is not begun twice. */
  begin(assignment: Assignment): void {
    const attempt = assignment.attempt;
    if (attempt === undefined) {
      return;
    }
    const key = keyOf(attempt);
    const kept = this.#kept.get(key);
    if (kept) {
      if (kept.result) {
        this.#send(kept.result);
      }
      return;
    }
    const running: Running = { attempt, stop: new AbortController() };
    this.#kept.set(key, running);
    void this.#run(running, assignment);
  }

  /** Tells an attempt to stop. One that is stale is forgotten: nothing of it is sent any more. */
  cancel(attempt: Attempt | undefined, reason: Reason): void {
    const kept = attempt && this.#kept.get(keyOf(attempt));
    if (!kept) {
      return;
    }
    if (reason === Reason.STALE) {
      this.#forget(kept.attempt);
    }
    kept.stop.abort(new StoppedError(reason, WHY[reason] ?? "the attempt is to stop"));
  }

  /** Forgets an attempt whose result was settled. */
  settle(attempt: Attempt | undefined): void {
    if (attempt) {
      this.#forget(attempt);
    }
  }

  /** Returns when no attempt is kept any more. */
  async empty(): Promise<void> {
    if (this.#kept.size > 0) {
      await new Promise<void>((resolve) => {
        this.#whenEmpty = resolve;
      });
    }
  }

  /** Stops what runs, so that another worker gets it. */
  giveBack(): void {
    for (const each of this.#kept.values()) {
      if (!each.result) {
        each.stop.abort(new StoppedError(Reason.UNSPECIFIED, "the worker stops"));
      }
    }
  }

  /** Stops all attempts; nothing of them is sent any more. */
  abandon(): void {
    for (const { attempt } of [...this.#kept.values()]) {
      this.cancel(attempt, Reason.STALE);
    }
  }

  async #run(running: Running, assignment: Assignment): Promise<void> {
    await this.#room();
    const use = new Usages();
    let result: Said;
    try {
      running.stop.signal.throwIfAborted();
      const handler = this.#handlers.get(assignment.handler);
      if (handler === undefined) {
        throw new HandlerError("INVALID_PARAMS", `this worker has no handler ${assignment.handler}`, { retryable: false });
      }
      const params = JSON.parse(new TextDecoder().decode(assignment.params) || "{}") as never;
      result = completed(running.attempt, await handler(params, this.#context(running, assignment, use)), use.taken());
    } catch (error) {
      result = failed(assignment.handler, running.attempt, error, running.stop.signal, use.taken());
    } finally {
      this.#leave();
    }
    if (this.#kept.get(keyOf(running.attempt)) === running) {
      running.result = said(result);
      this.#send(running.result);
    }
  }

  #context(running: Running, assignment: Assignment, use: Usages): AttemptContext {
    const { attempt, stop } = running;
    const deadline = assignment.deadlineTime;
    const progress = (value: Partial<{ progressPercent: number; message: string; output: string }>): void => {
      const isOver = running.result !== undefined || this.#kept.get(keyOf(attempt)) !== running;
      if (!isOver) {
        this.#send(said({ case: "progress", value: { attempt, ...value } }));
      }
    };
    return {
      executionId: attempt.executionId,
      stepPath: attempt.stepPath,
      iteration: attempt.iteration,
      attempt: attempt.attempt,
      workflow: assignment.workflow,
      owner: assignment.owner,
      idempotencyToken: assignment.idempotencyToken,
      deadline: deadline && new Date(Number(deadline.seconds) * 1000 + deadline.nanos / 1e6),
      signal: stop.signal,
      report(progressPercent, message = "") {
        if (Number.isNaN(Number(progressPercent))) {
          throw new RangeError(`progress is a number from 0 to 100, not ${String(progressPercent)}`);
        }
        const bounded = Math.min(100, Math.max(0, Math.round(progressPercent)));
        progress({ progressPercent: bounded, message: sendable(message, 256) });
      },
      emit(text) {
        const sound = sendable(text);
        for (let at = 0; at < sound.length; at += MAX_EMIT_LENGTH) {
          progress({ output: sound.slice(at, at + MAX_EMIT_LENGTH).toWellFormed() });
        }
      },
      use: (used) => use.add(used),
    };
  }

  /** Returns when there is room for one more attempt, and takes it. */
  async #room(): Promise<void> {
    if (this.#active < this.#capacity) {
      this.#active += 1;
      return;
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve)); // who leaves hands his room on
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next) {
      next();
    } else {
      this.#active -= 1;
    }
  }

  #forget(attempt: Attempt): void {
    this.#kept.delete(keyOf(attempt));
    if (this.#kept.size === 0) {
      this.#whenEmpty?.();
    }
  }
}

/** What an attempt has used up, told with its result: an attempt whose stream broke must not tell it twice. */
class Usages {
  #inputTokens = 0;
  #outputTokens = 0;
  #costMicros = 0;

  add(used: Used): void {
    if (!Object.values(used).every((amount) => amount === undefined || (amount >= 0 && amount <= MAX_AMOUNT))) {
      throw new RangeError("what an attempt has used up are numbers from 0 to 10^12");
    }
    this.#inputTokens += used.inputTokens ?? 0;
    this.#outputTokens += used.outputTokens ?? 0;
    this.#costMicros += used.costMicros ?? 0;
  }

  taken(): Usage {
    return create(UsageSchema, {
      inputTokens: BigInt(Math.round(this.#inputTokens)),
      outputTokens: BigInt(Math.round(this.#outputTokens)),
      costMicros: BigInt(Math.round(this.#costMicros)),
    });
  }
}

function keyOf(attempt: Attempt): string {
  return JSON.stringify([attempt.executionId, attempt.stepPath, attempt.iteration, attempt.attempt]);
}

function completed(attempt: Attempt, given: unknown, usage: Usage): Said {
  let output;
  try {
    output = json(toValue(given === undefined ? null : given, "output"));
  } catch (error) {
    throw new HandlerError("INVALID_OUTPUT", messageOf(error), { retryable: false });
  }
  if (output.length > MAX_OUTPUT_BYTES) {
    throw new HandlerError("INVALID_OUTPUT", "the output is larger than 2 MiB", { retryable: false });
  }
  return { case: "completed", value: { attempt, output, usage } };
}

// What is thrown is anybody's, and whatever it does when it is looked at, the attempt fails, and not the worker.
function failed(handler: string, attempt: Attempt, error: unknown, signal: AbortSignal, usage: Usage): Said {
  try {
    return toldFailure(handler, attempt, error, signal, usage);
  } catch {
    const message = sendable(`handler ${JSON.stringify(handler)} threw what cannot be read`, 2048);
    return { case: "failed", value: { attempt, code: "HANDLER_ERROR", message, retryable: true, usage } };
  }
}

// Only the stack trace, which not everybody sees, has the text of an error that is no HandlerError: it may hold secrets.
function toldFailure(handler: string, attempt: Attempt, error: unknown, signal: AbortSignal, usage: Usage): Said {
  if (error instanceof HandlerError) {
    return {
      case: "failed",
      value: {
        attempt,
        code: error.code,
        message: sendable(error.message, 2048),
        details: detailsOf(error),
        retryable: error.retryable,
        ...pauseOf(error),
        stackTrace: stackOf(error),
        usage,
      },
    };
  }
  if (signal.aborted) {
    return { case: "failed", value: { attempt, code: "CANCELLED", message: "stopped as it was told to", usage } };
  }
  const kind = error instanceof Error ? error.name : typeof error;
  const message = sendable(`handler ${JSON.stringify(handler)} threw ${kind}; its stack trace tells more`, 2048);
  const stackTrace = stackOf(error);
  return { case: "failed", value: { attempt, code: "HANDLER_ERROR", message, retryable: true, stackTrace, usage } };
}

function pauseOf(error: HandlerError): { retryAfter?: Duration } {
  try {
    return error.retryAfter === undefined ? {} : { retryAfter: toDuration(error.retryAfter) };
  } catch {
    return {}; // the failure itself matters more
  }
}

function detailsOf(error: HandlerError): Uint8Array {
  try {
    const details = error.details === undefined ? new Uint8Array() : json(toStruct(error.details));
    return details.length <= MAX_DETAILS_BYTES ? details : new Uint8Array();
  } catch {
    return new Uint8Array(); // the failure itself matters more
  }
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function messageOf(error: unknown): string {
  return sendable(String(error instanceof Error ? error.message : error), 2048);
}

function stackOf(error: unknown): string {
  return sendable(error instanceof Error ? (error.stack ?? messageOf(error)) : messageOf(error), 8192);
}

/** Returns the beginning of a text as one that the server can keep. */
function sendable(text: string, longest = text.length): string {
  return text.slice(0, longest).toWellFormed().replaceAll("\0", "\uFFFD");
}
