/** The calls about notifications: those that workflows send to whoever calls. */

import { create } from "@bufbuild/protobuf";

import { BulkCalls } from "./bulk.js";
import type { Connection } from "./connection.js";
import type { FlowkeepError } from "./errors.js";
import type { Notification } from "./gen/flowkeep/v1/notification_pb.js";
import {
  ListNotificationsRequestSchema,
  WatchNotificationsRequestSchema,
} from "./gen/flowkeep/v1/notification_service_pb.js";
import { lasting } from "./lasting.js";
import { type CallOptions, type ChangeOptions, requestId } from "./requests.js";

/** What people do with what they are told. */
export class NotificationCalls extends BulkCalls {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    super(connection);
    this.#connection = connection;
  }

  /** Yields the caller's notifications, newest first. Pages are fetched as needed. */
  async *listNotifications(
    options: CallOptions & { readonly unreadOnly?: boolean | undefined; readonly pageSize?: number | undefined } = {},
  ): AsyncGenerator<Notification, void, undefined> {
    const request = create(ListNotificationsRequestSchema, {
      unreadOnly: options.unreadOnly ?? false,
      pageSize: options.pageSize ?? 0,
    });
    const { notifications } = this.#connection;
    do {
      const page = await this.#connection.call((attempt) => notifications.listNotifications(request, attempt), options);
      yield* page.notifications;
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /** Returns how many notifications the caller has not read. */
  async countUnreadNotifications(options: CallOptions = {}): Promise<number> {
    const request = { unreadOnly: true, countUnread: true, pageSize: 1 };
    const { notifications } = this.#connection;
    return (await this.#connection.call((attempt) => notifications.listNotifications(request, attempt), options))
      .unreadCount;
  }

  /**
   * Marks notifications as read, by their numbers or else all up to one; returns how many are still unread.
   *
   * Those that are read already, are of others or are no longer kept are passed over.
   */
  async markNotificationsRead(
    which: { readonly seqs?: readonly (bigint | number)[] | undefined; readonly upToSeq?: bigint | number | undefined },
    options: ChangeOptions = {},
  ): Promise<number> {
    const request = {
      seqs: (which.seqs ?? []).map(BigInt),
      upToSeq: BigInt(which.upToSeq ?? 0),
      requestId: requestId(options),
    };
    const { notifications } = this.#connection;
    return (await this.#connection.call((attempt) => notifications.markNotificationsRead(request, attempt), options))
      .unreadCount;
  }

  /**
   * Yields the caller's notifications in order, those after a number or, by default, from now on, as they come.
   *
   * Each comes exactly once, through any broken connection; there is no end. Throws OutOfRangeError for a number that the
   * org has not reached, and errors of identity.
   */
  async *watchNotifications(
    options: CallOptions & {
      readonly afterSeq?: bigint | number | undefined;
      readonly onBreak?: ((error: FlowkeepError) => void) | undefined;
    } = {},
  ): AsyncGenerator<Notification, void, undefined> {
    const connection = this.#connection;
    const request = create(WatchNotificationsRequestSchema);
    if (options.afterSeq !== undefined) {
      request.afterSeq = BigInt(options.afterSeq);
    }
    const responses = lasting(
      async function* (signal) {
        yield* connection.notifications.watchNotifications(request, { headers: await connection.headers(), signal });
      },
      connection.signalWith(options.signal),
      options.onBreak,
    );
    for await (const response of responses) {
      for (const notification of response.notifications) {
        request.afterSeq = notification.seq;
        yield notification;
      }
      request.afterSeq = response.seq;
    }
  }
}
