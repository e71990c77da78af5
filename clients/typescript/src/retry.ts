/** Which errors are worth another try, and how long to pause before it. */

import type { FlowkeepError } from "./errors.js";

// What gRPC itself says of a message that is too large and will stay so.
const TOO_LARGE = /larger than|size exceeds/i;

/** Whether a call that may be sent twice should be: every call may, since those that change something have an id. */
export function mayRepeat(error: FlowkeepError): boolean {
  if (error.code === "UNAVAILABLE") {
    return true;
  }
  if (error.code === "CANCELLED") {
    return !error.reason; // servers answer so, unasked, to calls that they could not accept in time
  }
  return error.code === "RESOURCE_EXHAUSTED" && isCrowded(error);
}

/** Whether a stream that can be resumed by position should be opened again. */
export function mayResume(error: FlowkeepError): boolean {
  return error.code === "DEADLINE_EXCEEDED" || error.code === "ABORTED" || mayRepeat(error);
}

/** Whether there is too much work somewhere on the way, which passes. */
function isCrowded(error: FlowkeepError): boolean {
  return error.retryAfter !== undefined || (!error.reason && !TOO_LARGE.test(error.rawMessage));
}

/** Pauses in seconds that double from `first` up to `longest`, each shortened at random by up to a half. */
export class Backoff {
  readonly #first: number;
  readonly #longest: number;
  #pause: number;

  constructor(first = 0.1, longest = 5) {
    this.#first = first;
    this.#longest = longest;
    this.#pause = first;
  }

  /** Returns the pause after an error; never shorter than what the server asked for, but spread beyond it. */
  after(error?: FlowkeepError): number {
    // Many clients of one server fail at the same moment and must not return together.
    const drawn = this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(this.#pause * 2, this.#longest);
    return drawn + (error?.retryAfter ?? 0);
  }

  /** Begins with the shortest pause again. */
  reset(): void {
    this.#pause = this.#first;
  }
}
