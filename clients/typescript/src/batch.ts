/** Starting many executions at once: each request is repeated as long as it would be in a call of its own. */

import { create } from "@bufbuild/protobuf";

import { type Connection, pauseFor } from "./connection.js";
import { FlowkeepError, flowkeepError } from "./errors.js";
import {
  BatchExecuteRequestSchema,
  type BatchExecuteResponse_Result,
  type ExecuteRequest,
  type ExecuteResponse,
} from "./gen/flowkeep/v1/execution_service_pb.js";
import { Backoff, mayRepeat } from "./retry.js";
import { fromStatus } from "./status.js";

/** What became of one request of a batch: what Execute answers, or the error that it ends with. */
export type Outcome = ExecuteResponse | FlowkeepError;

/** Returns what became of each request, in their order. Throws FlowkeepError for the first call as a whole. */
export async function executeAll(
  connection: Connection,
  requests: readonly ExecuteRequest[],
  given: AbortSignal | undefined,
): Promise<Outcome[]> {
  const deadline = performance.now() + 1000 * connection.timeoutSeconds;
  const signal = connection.signalWith(given);
  const backoff = new Backoff();
  const outcomes = await sent(connection, requests, [...requests.keys()], connection.timeoutSeconds, given);
  for (;;) {
    const again = [...outcomes.entries()].filter(
      (entry): entry is [number, FlowkeepError] => entry[1] instanceof FlowkeepError && mayRepeat(entry[1]),
    );
    if (again.length === 0) {
      return outcomes;
    }
    const longest = again.map(([, error]) => error).reduce((a, b) => ((b.retryAfter ?? 0) > (a.retryAfter ?? 0) ? b : a));
    const pause = 1000 * backoff.after(longest);
    if (performance.now() + pause >= deadline) {
      return outcomes;
    }
    await pauseFor(pause, signal);
    const places = again.map(([place]) => place);
    try {
      const found = await sent(connection, requests, places, (deadline - performance.now()) / 1000, given);
      found.forEach((outcome, index) => {
        outcomes[places[index] ?? 0] = outcome;
      });
    } catch (error) {
      if (!(error instanceof FlowkeepError)) {
        throw error;
      }
      return outcomes; // what is known of each stays what was told last
    }
  }
}

async function sent(
  connection: Connection,
  requests: readonly ExecuteRequest[],
  places: readonly number[],
  timeoutSeconds: number,
  signal: AbortSignal | undefined,
): Promise<Outcome[]> {
  const batch = create(BatchExecuteRequestSchema, { requests: places.flatMap((place) => requests[place] ?? []) });
  const response = await connection.call((attempt) => connection.executions.batchExecute(batch, attempt), {
    signal,
    timeoutSeconds,
  });
  return response.results.map((result, index) => outcomeOf(result, index, places[index] ?? index));
}

function outcomeOf(result: BatchExecuteResponse_Result, sentAt: number, place: number): Outcome {
  switch (result.outcome.case) {
    case "response":
      return result.outcome.value;
    case "error":
      return moved(fromStatus(result.outcome.value), `requests[${sentAt}]`, `requests[${place}]`);
    default:
      return flowkeepError("INTERNAL", "the server tells nothing of this request");
  }
}

/** Returns an error whose texts say where the request stands among all, not among those that were sent again. */
function moved(error: FlowkeepError, from: string, to: string): FlowkeepError {
  if (from === to) {
    return error;
  }
  const violations = error.violations.map((each) => ({ ...each, field: each.field.replace(from, to) }));
  return flowkeepError(error.code, error.rawMessage.replace(from, to), { ...error, violations });
}
