/** Following an execution through broken streams, without losing or repeating an event. */

import { create } from "@bufbuild/protobuf";

import { pauseFor } from "./connection.js";
import { flowkeepError, type FlowkeepError } from "./errors.js";
import type { ExecutionEvent } from "./gen/flowkeep/v1/event_pb.js";
import { Execution_State } from "./gen/flowkeep/v1/execution_pb.js";
import {
  type EventBatch,
  type Snapshot,
  type WatchExecutionRequest,
  WatchExecutionRequestSchema,
  type WatchExecutionResponse,
} from "./gen/flowkeep/v1/execution_service_pb.js";
import { Backoff, mayResume } from "./retry.js";
import { fromThrown } from "./status.js";

/** Opens the stream of a request; the signal ends it. */
export type OpenWatch = (request: WatchExecutionRequest, signal: AbortSignal) => AsyncIterable<WatchExecutionResponse>;

const ENDED: ReadonlySet<Execution_State> = new Set([
  Execution_State.COMPLETED,
  Execution_State.FAILED,
  Execution_State.CANCELLED,
  Execution_State.TIMED_OUT,
]);
const MAX_GAPS = 5;
const END_MS = 1_000;
// The server gives a sign of life every 10 s. A stream silent for this long hangs in a proxy or a stopped process.
export const SILENCE_MS = 35_000;

/**
 * Yields the responses of a watch until the execution has ended, opening the stream again whenever it breaks.
 *
 * Every event after `afterSeq` (or after the snapshot, if one is asked for) comes exactly once and in order; a message
 * that repeats events is shortened to what is new. A snapshot comes once; bookmarks and output as sent. `onBreak` is
 * called with the error of each stream that broke, before the next try. Throws FlowkeepError for what another try cannot
 * mend, DATA_LOSS when the server leaves out events each time it is asked, and the reason of an aborted signal.
 */
export async function* follow(
  open: OpenWatch,
  request: WatchExecutionRequest,
  signal: AbortSignal,
  onBreak?: (error: FlowkeepError) => void,
): AsyncGenerator<WatchExecutionResponse, void, undefined> {
  const cursor = new Cursor(request);
  const backoff = new Backoff();
  let gaps = 0;
  for (;;) {
    signal.throwIfAborted();
    let error: FlowkeepError;
    try {
      for await (const response of read(open, cursor, signal)) {
        backoff.reset();
        gaps = response.kind.case === "events" ? 0 : gaps;
        yield response;
      }
      return;
    } catch (thrown) {
      signal.throwIfAborted();
      if (cursor.atEnd) {
        return;
      }
      if (thrown instanceof Gap) {
        gaps += 1;
        error = flowkeepError("DATA_LOSS", thrown.message);
        if (gaps === MAX_GAPS) {
          throw error;
        }
      } else {
        error = fromThrown(thrown);
        if (!mayResume(error)) {
          throw error;
        }
      }
    }
    onBreak?.(error);
    await pauseFor(1000 * backoff.after(error), signal);
  }
}

/** Yields the events of a watch one by one. */
export async function* eventsOf(
  responses: AsyncIterable<WatchExecutionResponse>,
): AsyncGenerator<ExecutionEvent, void, undefined> {
  for await (const response of responses) {
    if (response.kind.case !== "events") {
      continue;
    }
    for (const event of response.kind.value.events) {
      yield event;
    }
  }
}

async function* read(
  open: OpenWatch,
  cursor: Cursor,
  outer: AbortSignal,
): AsyncGenerator<WatchExecutionResponse, void, undefined> {
  const stop = new AbortController();
  const responses = open(cursor.request(), AbortSignal.any([outer, stop.signal]))[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await within(SILENCE_MS, responses.next());
      if (next === undefined) {
        throw flowkeepError("UNAVAILABLE", "the server gave no sign of life");
      }
      if (next.done) {
        return;
      }
      const fresh = cursor.admit(next.value);
      if (fresh !== undefined) {
        yield fresh;
      }
    }
  } finally {
    if (cursor.atEnd) {
      await letEnd(responses);
    }
    stop.abort();
  }
}

/** Takes the OK that is on its way, so that a watch that went well does not show as cancelled on the server. */
async function letEnd(responses: AsyncIterator<WatchExecutionResponse>): Promise<void> {
  const drained = (async () => {
    while (!(await responses.next()).done);
  })();
  await within(END_MS, drained.catch(() => undefined));
}

/** Returns what a promise gives, undefined when that takes longer. */
export async function within<Value>(milliseconds: number, promise: Promise<Value>): Promise<Value | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, milliseconds, undefined);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    promise.catch(() => undefined); // what it gives later is nobody's error
  }
}

/** The stream left out events. */
class Gap extends Error {}

/** The position of a watch: what was delivered, and what to ask for next. */
class Cursor {
  atEnd = false;
  readonly #executionId: string;
  #seq: bigint;
  #wantsSnapshot: boolean;

  constructor(request: WatchExecutionRequest) {
    this.#executionId = request.executionId;
    this.#seq = request.afterSeq;
    this.#wantsSnapshot = request.snapshot;
  }

  /** Returns the request that goes on from here. */
  request(): WatchExecutionRequest {
    const from = this.#wantsSnapshot ? { snapshot: true } : { afterSeq: this.#seq };
    return create(WatchExecutionRequestSchema, { executionId: this.#executionId, ...from });
  }

  /** Returns what is new in a response, if anything. Throws Gap when something is missing before it. */
  admit(response: WatchExecutionResponse): WatchExecutionResponse | undefined {
    switch (response.kind.case) {
      case "snapshot":
        return this.#admitSnapshot(response, response.kind.value);
      case "events":
        return this.#admitEvents(response, response.kind.value);
      case "bookmark":
        if (response.kind.value.seq > this.#seq && !this.#wantsSnapshot) {
          throw new Gap(`the server passed over the events ${this.#seq + 1n} to ${response.kind.value.seq}`);
        }
        return response;
      default:
        return response;
    }
  }

  #admitSnapshot(response: WatchExecutionResponse, snapshot: Snapshot): WatchExecutionResponse | undefined {
    if (!this.#wantsSnapshot) {
      return undefined;
    }
    this.#wantsSnapshot = false;
    this.#seq = snapshot.seq;
    this.atEnd = snapshot.execution !== undefined && ENDED.has(snapshot.execution.state);
    return response;
  }

  #admitEvents(response: WatchExecutionResponse, batch: EventBatch): WatchExecutionResponse | undefined {
    const fresh = batch.events.filter((event) => event.seq > this.#seq);
    fresh.forEach((event, index) => {
      const expected = this.#seq + BigInt(index + 1);
      if (event.seq !== expected) {
        throw new Gap(`the server sent event ${event.seq} where ${expected} was due`);
      }
    });
    const last = fresh.at(-1);
    if (last === undefined) {
      return undefined;
    }
    this.#seq = last.seq;
    this.atEnd = last.kind.case === "finished";
    batch.events = fresh;
    return response;
  }
}
