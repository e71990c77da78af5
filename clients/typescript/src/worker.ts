/** A worker: a process that runs handlers for the steps of executions. */

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";

import { Attempts, said, type Said } from "./attempts.js";
import { Connection, type ConnectionOptions, pauseFor } from "./connection.js";
import { type Span, toSeconds } from "./durations.js";
import { flowkeepError, type FlowkeepError } from "./errors.js";
import type { Handler } from "./gen/flowkeep/v1/handler_pb.js";
import {
  AttemptCancelled_Reason as Reason,
  type WorkRequest,
  type WorkResponse,
} from "./gen/flowkeep/v1/worker_service_pb.js";
import { type HandlerDeclaration, type HandlerFunction, handlerMessage } from "./handlers.js";
import { Backoff } from "./retry.js";
import { fromThrown } from "./status.js";

/** How a worker connects and what it takes. */
export interface WorkerOptions extends ConnectionOptions {
  /** For people; by default host and process id. */
  readonly name?: string | undefined;
  /** How many attempts it runs at a time, 1 to 1,000. Default 10. */
  readonly capacity?: number | undefined;
  /** How long what it runs may take to end once it drains; then it is given back, for another worker. Default 30 s. */
  readonly grace?: Span | undefined;
  /** Version of its code, such as `2.1.3`: by it steps choose workers. */
  readonly version?: string | undefined;
  /** What else tells it from others, such as `{ region: "eu" }`: by them steps choose workers. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** Called with the error of each break, and of each try after it that fails. */
  readonly onBreak?: ((error: FlowkeepError) => void) | undefined;
}

/** How long a worker runs. */
export interface RunOptions {
  /** Signals of the process upon which it drains. Default SIGTERM and SIGINT; the second one of a kind ends the process. */
  readonly drainOn?: readonly NodeJS.Signals[] | undefined;
  /** Ends it at once: attempts are told to stop, and get lost. */
  readonly signal?: AbortSignal | undefined;
}

// Until the server says how often it wants to hear of the worker, and how long it waits.
const PATIENCE_MS = 30_000;

// How long attempts that are given back may take to stop, and a server to settle that.
const LAST_WORDS_MS = 5_000;

// Of a longer one Node makes 1 ms.
const LONGEST_TIMEOUT_MS = 2 ** 31 - 1;

// Progress that waits to be sent; more is left out.
const MAX_PROGRESS = 1_000;

// What does not get better when the worker comes again.
const FATAL: ReadonlySet<string> = new Set([
  "INVALID_ARGUMENT",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "FAILED_PRECONDITION",
  "UNIMPLEMENTED",
]);

/**
 * Serves handlers: `new Worker(target).handle({ name: "greet" }, ({ name }) => `Hi ${name}`).run()`.
 *
 * Attempts go on when the connection breaks; the worker connects again, names them, and keeps each result until it is
 * settled. What it ran for a server that is gone is stopped, and made again.
 */
export class Worker {
  readonly #connection: Connection;
  readonly #options: WorkerOptions;
  readonly #workerId = randomUUID();
  readonly #messages: Handler[] = [];
  readonly #functions = new Map<string, HandlerFunction<never>>();
  readonly #attempts: Attempts;
  readonly #drained = new AbortController();
  readonly #graceMs: number;
  #patience: NodeJS.Timeout | undefined;
  #stream: Outgoing | undefined;
  #connecting: AbortController | undefined;
  #isDraining = false;

  constructor(target = "localhost:50051", options: WorkerOptions = {}) {
    this.#connection = new Connection(target, options);
    this.#options = options;
    this.#graceMs = Math.min(1000 * toSeconds(options.grace ?? 30), LONGEST_TIMEOUT_MS);
    this.#attempts = new Attempts(this.#functions, options.capacity ?? 10, (request) => this.#stream?.push(request));
  }

  /** Adds a handler, before `run`. Throws Error where there is one of that name. */
  handle<Params = Record<string, unknown>>(declaration: HandlerDeclaration, run: HandlerFunction<Params>): this {
    if (this.#functions.has(declaration.name)) {
      throw new Error(`there are two handlers ${declaration.name}`);
    }
    this.#messages.push(handlerMessage(declaration));
    this.#functions.set(declaration.name, run as HandlerFunction<never>);
    return this;
  }

  /**
   * Serves until the worker has drained: after SIGTERM, or `drain`, it takes no more attempts and ends once those that it
   * has are settled, or were given back after the grace. Throws FlowkeepError for what another try cannot mend, such as a
   * token that is not valid, what a function that gives tokens throws before there ever was a stream, and the reason of
   * an aborted signal.
   */
  async run(options: RunOptions = {}): Promise<void> {
    const drain = (): void => this.drain();
    const names = options.drainOn ?? ["SIGTERM", "SIGINT"];
    names.forEach((name) => process.once(name, drain));
    try {
      await this.#serve(this.#connection.signalWith(options.signal));
    } finally {
      names.forEach((name) => process.off(name, drain));
      clearTimeout(this.#patience);
      this.#attempts.abandon();
      this.#connection.close();
    }
  }

  /** Takes no more attempts; `run` returns once those that it has are settled, or were given back after the grace. */
  drain(): void {
    if (this.#isDraining) {
      return;
    }
    this.#isDraining = true;
    this.#say({ case: "draining", value: {} });
    void this.#attempts.empty().then(() => this.#leave());
    this.#patience = setTimeout(() => {
      this.#attempts.giveBack();
      this.#patience = setTimeout(() => this.#leave(), LAST_WORDS_MS);
    }, this.#graceMs);
  }

  #leave(): void {
    clearTimeout(this.#patience);
    this.#drained.abort();
    if (this.#stream) {
      this.#stream.end();
    } else {
      this.#connecting?.abort(); // nobody waits for a server that is not there
    }
  }

  async #serve(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff();
    const either = AbortSignal.any([signal, this.#drained.signal]);
    let wasRegistered = false;
    while (!this.#drained.signal.aborted) {
      signal.throwIfAborted();
      let error: FlowkeepError;
      let headers: Headers | undefined;
      let isRegistered = false;
      try {
        headers = await this.#connection.headers();
        await this.#stand(headers, signal, () => {
          wasRegistered = isRegistered = true;
          backoff.reset();
        });
        error = flowkeepError("UNAVAILABLE", "the server has ended the stream");
      } catch (thrown) {
        signal.throwIfAborted();
        if (headers === undefined && !wasRegistered) {
          throw thrown;
        }
        error = headers ? fromThrown(thrown) : flowkeepError("UNAUTHENTICATED", `there is no token: ${String(thrown)}`);
      } finally {
        this.#stream = undefined;
      }
      if (this.#drained.signal.aborted) {
        return;
      }
      // A token that served until now has expired: the next one may do, perhaps not before it was renewed.
      const isNobody = error.code === "UNAUTHENTICATED" && !isRegistered && !this.#connection.renewsToken;
      if (FATAL.has(error.code) || isNobody) {
        throw error;
      }
      this.#options.onBreak?.(error);
      await pauseFor(1000 * backoff.after(error), either).catch(() => signal.throwIfAborted());
    }
  }

  /** Keeps one stream until it ends or breaks. */
  async #stand(headers: Headers, outer: AbortSignal, onRegistered: () => void): Promise<void> {
    const stop = (this.#connecting = new AbortController());
    const signal = AbortSignal.any([outer, stop.signal]);
    const out = new Outgoing();
    const beat = new Heartbeat(() => out.push(said({ case: "heartbeat", value: {} })), stop);
    let isLeaving = false;
    out.push(this.#registration());
    try {
      for await (const response of this.#connection.workers.work(out, { headers, signal })) {
        beat.heard();
        if (response.message.case === "registered") {
          onRegistered();
          this.#stream = out;
          beat.begin(response.message.value.heartbeatInterval, response.message.value.heartbeatTimeout);
        }
        this.#take(response);
        // A server that stops still records results: the worker leaves when it has none, or is sent away.
        isLeaving ||= response.message.case === "draining";
        if (isLeaving && this.#attempts.isEmpty) {
          return;
        }
      }
    } catch (thrown) {
      throw beat.isSilent ? flowkeepError("UNAVAILABLE", "the server gave no sign of life") : thrown;
    } finally {
      beat.end();
      out.end();
      stop.abort();
    }
  }

  #take({ message }: WorkResponse): void {
    switch (message.case) {
      case "registered":
        message.value.unwanted.forEach((attempt) => this.#attempts.cancel(attempt, Reason.STALE));
        if (this.#isDraining) {
          this.#say({ case: "draining", value: {} });
        }
        this.#attempts.resend();
        if (this.#drained.signal.aborted) {
          this.#stream?.end();
        }
        break;
      case "assignment":
        this.#attempts.begin(message.value);
        break;
      case "cancelled":
        this.#attempts.cancel(message.value.attempt, message.value.reason);
        break;
      case "settled":
        this.#attempts.settle(message.value.attempt);
        break;
      default:
    }
  }

  #registration(): WorkRequest {
    return said({
      case: "register",
      value: {
        name: this.#options.name ?? `${hostname()}:${process.pid}`,
        workerId: this.#workerId,
        handlers: this.#messages,
        capacity: this.#options.capacity ?? 10,
        version: this.#options.version ?? "",
        labels: { ...this.#options.labels },
        attempts: this.#attempts.named(),
      },
    });
  }

  #say(message: Said): void {
    this.#stream?.push(said(message));
  }
}

/** Requests on their way: what is pushed comes out in order, until the end. */
class Outgoing implements AsyncIterable<WorkRequest> {
  readonly #queue: WorkRequest[] = [];
  #wake: (() => void) | undefined;
  #isEnded = false;

  push(request: WorkRequest): void {
    const isSpare = request.message.case === "progress" && this.#queue.length >= MAX_PROGRESS;
    if (!this.#isEnded && !isSpare) {
      this.#queue.push(request);
      this.#wake?.();
    }
  }

  end(): void {
    this.#isEnded = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WorkRequest, void, undefined> {
    for (;;) {
      const next = this.#queue.shift();
      if (next !== undefined) {
        yield next;
      } else if (this.#isEnded) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}

/** Says that the worker lives, and ends a stream on which the server is silent for too long. */
class Heartbeat {
  isSilent = false;
  readonly #beat: () => void;
  readonly #stop: AbortController;
  #silenceMs = PATIENCE_MS;
  #interval: NodeJS.Timeout | undefined;
  #silence: NodeJS.Timeout | undefined;

  constructor(beat: () => void, stop: AbortController) {
    this.#beat = beat;
    this.#stop = stop;
    this.heard();
  }

  begin(interval: Spanned | undefined, timeout: Spanned | undefined): void {
    this.#silenceMs = milliseconds(timeout) || PATIENCE_MS;
    this.#interval = setInterval(this.#beat, milliseconds(interval) || PATIENCE_MS / 3);
    this.heard();
  }

  heard(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      this.isSilent = true;
      this.#stop.abort();
    }, this.#silenceMs);
  }

  end(): void {
    clearTimeout(this.#silence);
    clearInterval(this.#interval);
  }
}

interface Spanned {
  readonly seconds: bigint;
  readonly nanos: number;
}

function milliseconds(span: Spanned | undefined): number {
  return span ? Number(span.seconds) * 1000 + span.nanos / 1e6 : 0;
}
