/** The calls about operations in bulk. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import { given } from "./answer.js";
import type { Connection } from "./connection.js";
import type { FlowkeepError } from "./errors.js";
import {
  type Bulk,
  type BulkActionSchema,
  type BulkResult,
  type BulkResult_Outcome,
  BulkResult_OutcomeSchema,
  Bulk_State,
  Bulk_StateSchema,
} from "./gen/flowkeep/v1/bulk_pb.js";
import {
  ListBulkResultsRequestSchema,
  ListBulksRequestSchema,
  type StartBulkRequest,
  StartBulkRequestSchema,
  type StartBulkResponse,
} from "./gen/flowkeep/v1/bulk_service_pb.js";
import { lasting } from "./lasting.js";
import { TaskCalls } from "./tasks.js";
import { type CallOptions, type ChangeOptions, type ExecutionFilters, executionFilter, requestId, stateOf } from "./requests.js";

/** What an operation does: `{ case: "cancel", value: {} }`, or `pause`, `resume`, `terminate`, `retry`. */
export type BulkKind = NonNullable<MessageInitShape<typeof BulkActionSchema>["kind"]>;

/** On which executions an operation acts, and how; all filters that are given must hold. */
export interface BulkOptions extends ExecutionFilters, ChangeOptions {
  readonly reason?: string | undefined;
  /** Executions after which it ends. */
  readonly limit?: number | undefined;
  /** Executions a second at most. */
  readonly rate?: number | undefined;
  /** Lets the filter have no condition beside the states. */
  readonly matchAll?: boolean | undefined;
}

/** What is done with many executions at once. What the caller does not see throws NotFoundError (BULK_NOT_FOUND). */
export class BulkCalls extends TaskCalls {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    super(connection);
    this.#connection = connection;
  }

  /**
   * Starts an operation on all executions that meet the filters, and returns it. It goes on by itself: `watchBulk` follows
   * it. Throws InvalidArgumentError, FailedPreconditionError (TOO_MANY_BULKS).
   */
  async startBulk(kind: BulkKind, options: BulkOptions = {}): Promise<Bulk> {
    return given((await this.#start(bulkRequest(kind, options), options)).bulk);
  }

  /** Returns how many executions an operation would come to, and the first of them; nothing is done to them. */
  async previewBulk(kind: BulkKind, options: BulkOptions = {}): Promise<StartBulkResponse> {
    const request = bulkRequest(kind, options);
    request.validateOnly = true;
    return this.#start(request, options);
  }

  /** Returns an operation. */
  async getBulk(bulkId: string, options: CallOptions = {}): Promise<Bulk> {
    const { bulks } = this.#connection;
    return given((await this.#connection.call((attempt) => bulks.getBulk({ bulkId }, attempt), options)).bulk);
  }

  /** Yields operations, newest first. Pages are fetched as needed. */
  async *listBulks(
    options: CallOptions & { readonly states?: readonly (keyof typeof Bulk_State)[] | undefined } = {},
  ): AsyncGenerator<Bulk, void, undefined> {
    const states = (options.states ?? []).map((name) => stateOf(Bulk_StateSchema, name));
    const request = create(ListBulksRequestSchema, { states });
    const { bulks } = this.#connection;
    do {
      const page = await this.#connection.call((attempt) => bulks.listBulks(request, attempt), options);
      yield* page.bulks;
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /** Yields an operation as it is, and whenever it has come on, through any broken connection, until its end. */
  async *watchBulk(
    bulkId: string,
    options: CallOptions & { readonly onBreak?: ((error: FlowkeepError) => void) | undefined } = {},
  ): AsyncGenerator<Bulk, void, undefined> {
    const connection = this.#connection;
    const responses = lasting(
      async function* (signal) {
        yield* connection.bulks.watchBulk({ bulkId }, { headers: await connection.headers(), signal });
      },
      connection.signalWith(options.signal),
      options.onBreak,
    );
    for await (const response of responses) {
      const bulk = given(response.bulk);
      yield bulk;
      if (bulk.state !== Bulk_State.RUNNING) {
        return;
      }
    }
  }

  /** Lets an operation do nothing more, and returns it; what it has done stays done. */
  async stopBulk(bulkId: string, options: CallOptions = {}): Promise<Bulk> {
    const { bulks } = this.#connection;
    return given((await this.#connection.call((attempt) => bulks.stopBulk({ bulkId }, attempt), options)).bulk);
  }

  /** Yields what came of each execution, in the order in which the operation came to them. */
  async *listBulkResults(
    bulkId: string,
    options: CallOptions & { readonly outcomes?: readonly (keyof typeof BulkResult_Outcome)[] | undefined } = {},
  ): AsyncGenerator<BulkResult, void, undefined> {
    const outcomes = (options.outcomes ?? []).map((name) => stateOf(BulkResult_OutcomeSchema, name));
    const request = create(ListBulkResultsRequestSchema, { bulkId, outcomes });
    const { bulks } = this.#connection;
    do {
      const page = await this.#connection.call((attempt) => bulks.listBulkResults(request, attempt), options);
      yield* page.results;
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  #start(request: StartBulkRequest, options: CallOptions): Promise<StartBulkResponse> {
    const { bulks } = this.#connection;
    return this.#connection.call((attempt) => bulks.startBulk(request, attempt), options);
  }
}

function bulkRequest(kind: BulkKind, options: BulkOptions): StartBulkRequest {
  return create(StartBulkRequestSchema, {
    filter: executionFilter(options),
    action: { kind },
    reason: options.reason ?? "",
    limit: options.limit ?? 0,
    rate: options.rate ?? 0,
    matchAll: options.matchAll ?? false,
    requestId: requestId(options),
  });
}
