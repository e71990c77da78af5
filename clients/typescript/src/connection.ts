/** What every call goes through: the connection, its token, and when a call is sent again. */

import { setMaxListeners } from "node:events";
import type { ClientSessionOptions, SecureClientSessionOptions } from "node:http2";
import { connect } from "node:net";
import type { SecureContextOptions } from "node:tls";
import { setTimeout as sleep } from "node:timers/promises";

import { type Client as Stub, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { type Span, toSeconds } from "./durations.js";
import { BulkService } from "./gen/flowkeep/v1/bulk_service_pb.js";
import { ExecutionService } from "./gen/flowkeep/v1/execution_service_pb.js";
import { NotificationService } from "./gen/flowkeep/v1/notification_service_pb.js";
import { TaskService } from "./gen/flowkeep/v1/task_service_pb.js";
import { WorkerService } from "./gen/flowkeep/v1/worker_service_pb.js";
import { WorkflowService } from "./gen/flowkeep/v1/workflow_service_pb.js";
import { Backoff, mayRepeat } from "./retry.js";
import { fromThrown } from "./status.js";

const MAX_REQUEST_BYTES = 4 * 1024 * 1024;
/** What the server sends at most: an execution in the view FULL with all its payloads. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
// The server permits a ping each 20 s and more; without pings a dead peer behind a firewall goes unnoticed.
const PINGS = { pingIntervalMs: 30_000, pingTimeoutMs: 10_000 };

/** A bearer token, or a function that gives a fresh one. It is called before every call. */
export type Token = string | (() => string | Promise<string>);

/** How to connect. */
export interface ConnectionOptions {
  /** Without `tls` it travels in plain text. */
  readonly token?: Token | undefined;
  /** True for the certificates that Node trusts, or own ones: `{ ca, cert, key }`. */
  readonly tls?: boolean | SecureContextOptions | undefined;
  /** How long a call may take with all its tries. Default 30 s. */
  readonly timeout?: Span | undefined;
}

/** What one try of a call is given. */
export interface Attempt {
  readonly headers: Headers;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** How one call is bounded. */
export interface Bounds {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutSeconds?: number | undefined;
}

/** A connection to the service, opened by its first call and again whenever it broke. */
export class Connection {
  readonly executions: Stub<typeof ExecutionService>;
  readonly workflows: Stub<typeof WorkflowService>;
  readonly workers: Stub<typeof WorkerService>;
  readonly tasks: Stub<typeof TaskService>;
  readonly bulks: Stub<typeof BulkService>;
  readonly notifications: Stub<typeof NotificationService>;
  readonly timeoutSeconds: number;
  readonly #token: Token | undefined;
  readonly #session: Http2SessionManager;
  readonly #closed = new AbortController();

  constructor(target: string, options: ConnectionOptions = {}) {
    const { baseUrl, nodeOptions } = address(target, options.tls ?? false);
    this.timeoutSeconds = toSeconds(options.timeout ?? 30);
    this.#token = options.token;
    setMaxListeners(0, this.#closed.signal); // every call under way listens to it
    this.#session = new Http2SessionManager(baseUrl, PINGS, nodeOptions);
    const transport = createGrpcTransport({
      baseUrl,
      sessionManager: this.#session,
      readMaxBytes: MAX_ANSWER_BYTES,
      writeMaxBytes: MAX_REQUEST_BYTES,
    });
    this.executions = createClient(ExecutionService, transport);
    this.workflows = createClient(WorkflowService, transport);
    this.workers = createClient(WorkerService, transport);
    this.tasks = createClient(TaskService, transport);
    this.bulks = createClient(BulkService, transport);
    this.notifications = createClient(NotificationService, transport);
  }

  /** Whether each call may have another token than the one before. */
  get renewsToken(): boolean {
    return typeof this.#token === "function";
  }

  /** Closes the connection. Calls and watches under way end with an error that says so. */
  close(): void {
    this.#closed.abort(new Error("the client is closed"));
    this.#session.abort(new ConnectError("the client is closed", Code.Canceled));
  }

  /**
   * Sends a call, again where it may be, with growing pauses, until the time of its bounds has passed in all.
   *
   * Throws FlowkeepError, and the reason of a signal that was aborted.
   */
  async call<Response>(send: (attempt: Attempt) => Promise<Response>, bounds: Bounds = {}): Promise<Response> {
    const signal = this.signalWith(bounds.signal);
    const deadline = performance.now() + 1000 * (bounds.timeoutSeconds ?? this.timeoutSeconds);
    const backoff = new Backoff();
    for (;;) {
      signal.throwIfAborted();
      const headers = await this.headers();
      try {
        return await send({ headers, signal, timeoutMs: Math.max(1, Math.ceil(deadline - performance.now())) });
      } catch (thrown) {
        signal.throwIfAborted();
        const error = fromThrown(thrown);
        const pause = 1000 * backoff.after(error);
        if (!mayRepeat(error) || performance.now() + pause >= deadline) {
          throw error;
        }
        await pauseFor(pause, signal);
      }
    }
  }

  /** Sends a call that must not be sent twice. Without a time of its own it may take so many seconds. */
  async once<Response>(
    send: (attempt: Attempt) => Promise<Response>,
    bounds: Bounds,
    seconds: number,
  ): Promise<Response> {
    const signal = this.signalWith(bounds.signal);
    signal.throwIfAborted();
    const headers = await this.headers();
    try {
      return await send({ headers, signal, timeoutMs: Math.ceil(1000 * (bounds.timeoutSeconds ?? seconds)) });
    } catch (thrown) {
      signal.throwIfAborted();
      throw fromThrown(thrown);
    }
  }

  /** Returns a signal that is aborted when the given one is, or when the connection is closed. */
  signalWith(signal: AbortSignal | undefined): AbortSignal {
    return signal ? AbortSignal.any([signal, this.#closed.signal]) : this.#closed.signal;
  }

  /** Returns the headers that carry the token. Throws TypeError for one that no header can carry, without showing it. */
  async headers(): Promise<Headers> {
    const given = typeof this.#token === "function" ? await this.#token() : this.#token;
    const bare = given?.trim() ?? "";
    const wrong = /[^\x21-\x7e]/u.exec(bare);
    if (wrong) {
      throw new TypeError(`the token holds a character that no token has, at ${wrong.index + 1} of ${bare.length}`);
    }
    return new Headers(bare ? { authorization: `Bearer ${bare}` } : {});
  }
}

/** Returns after a pause in milliseconds. Throws the reason of the signal when it is aborted before. */
export async function pauseFor(milliseconds: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(milliseconds, undefined, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

interface Address {
  readonly baseUrl: string;
  readonly nodeOptions: ClientSessionOptions | SecureClientSessionOptions;
}

function address(given: string, tls: boolean | SecureContextOptions): Address {
  const target = given.trim();
  const socket = /^unix:(?:\/\/)?(.+)$/.exec(target)?.[1];
  if (socket !== undefined) {
    return { baseUrl: "http://localhost", nodeOptions: { createConnection: () => connect(socket) } };
  }
  if (/^https?:/.test(target)) {
    throw new TypeError(`the target ${target} is a URL: it must be host:port or unix:/path, with TLS as an option`);
  }
  const baseUrl = `${tls ? "https" : "http"}://${target}`;
  if (/[\s/?#@]/.test(target) || !URL.canParse(baseUrl)) {
    throw new TypeError(`the target must be host:port or unix:/path, not ${JSON.stringify(given)}`);
  }
  return { baseUrl, nodeOptions: typeof tls === "object" ? { ...tls } : {} };
}
