/** Streams without an end, through broken connections. */

import { pauseFor } from "./connection.js";
import { flowkeepError, type FlowkeepError } from "./errors.js";
import { Backoff, mayResume } from "./retry.js";
import { fromThrown } from "./status.js";
import { SILENCE_MS, within } from "./watch.js";

/**
 * Yields what a stream gives, opening it again whenever it ends, breaks or is silent for too long.
 *
 * `onBreak` is called with the error of each stream that broke, before the next try. Throws FlowkeepError for what another
 * try cannot mend, and the reason of an aborted signal.
 */
export async function* lasting<Response>(
  open: (signal: AbortSignal) => AsyncIterable<Response>,
  signal: AbortSignal,
  onBreak?: (error: FlowkeepError) => void,
): AsyncGenerator<Response, void, undefined> {
  const backoff = new Backoff();
  for (;;) {
    signal.throwIfAborted();
    let error: FlowkeepError;
    try {
      for await (const response of heard(open, signal)) {
        backoff.reset();
        yield response;
      }
      error = flowkeepError("UNAVAILABLE", "the server has ended the stream");
    } catch (thrown) {
      signal.throwIfAborted();
      error = fromThrown(thrown);
      if (!mayResume(error)) {
        throw error;
      }
    }
    onBreak?.(error);
    await pauseFor(1000 * backoff.after(error), signal);
  }
}

async function* heard<Response>(
  open: (signal: AbortSignal) => AsyncIterable<Response>,
  outer: AbortSignal,
): AsyncGenerator<Response, void, undefined> {
  const stop = new AbortController();
  const responses = open(AbortSignal.any([outer, stop.signal]))[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await within(SILENCE_MS, responses.next());
      if (next === undefined) {
        throw flowkeepError("UNAVAILABLE", "the server gave no sign of life");
      }
      if (next.done) {
        return;
      }
      yield next.value;
    }
  } finally {
    stop.abort();
  }
}
