/** The calls about tasks that workflows have for people. */

import { create } from "@bufbuild/protobuf";

import { given } from "./answer.js";
import type { Connection } from "./connection.js";
import type { FlowkeepError } from "./errors.js";
import { type Task, type Task_State, Task_StateSchema } from "./gen/flowkeep/v1/task_pb.js";
import {
  ListTasksRequestSchema,
  type TaskFilter,
  TaskFilterSchema,
  type WatchTasksResponse,
} from "./gen/flowkeep/v1/task_service_pb.js";
import { lasting } from "./lasting.js";
import { type Input, toStruct } from "./payload.js";
import { type CallOptions, type ChangeOptions, requestId, stateOf } from "./requests.js";

/** Which tasks are meant; all must hold. */
export interface TaskFilters {
  /** States by their names, such as `OPEN`. */
  readonly states?: readonly (keyof typeof Task_State)[] | undefined;
  /** Those that the caller could complete. */
  readonly mine?: boolean | undefined;
  readonly group?: string | undefined;
  readonly executionId?: string | undefined;
}

/** A change of a task with what is said of it. */
export interface CommentedOptions extends ChangeOptions {
  readonly comment?: string | undefined;
}

/**
 * What people do with tasks.
 *
 * What the caller does not see throws NotFoundError, what is for others PermissionDeniedError (TASK_NOT_ASSIGNED), and
 * what has ended, or is claimed by another, FailedPreconditionError (TASK_ENDED, TASK_CLAIMED).
 */
export class TaskCalls {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Returns a task with its description, form, values and comments. */
  async getTask(taskId: string, options: CallOptions = {}): Promise<Task> {
    const { tasks } = this.#connection;
    return given((await this.#connection.call((attempt) => tasks.getTask({ taskId }, attempt), options)).task);
  }

  /** Yields the tasks that meet all filters, newest first. Pages are fetched as needed. */
  async *listTasks(
    options: TaskFilters & CallOptions & { readonly pageSize?: number | undefined } = {},
  ): AsyncGenerator<Task, void, undefined> {
    const request = create(ListTasksRequestSchema, { filter: taskFilter(options), pageSize: options.pageSize ?? 0 });
    const { tasks } = this.#connection;
    do {
      const page = await this.#connection.call((attempt) => tasks.listTasks(request, attempt), options);
      yield* page.tasks;
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /**
   * Yields the newest 2,000 tasks that meet all filters, then what changes, through any broken connection: after a break all
   * of them come again. It never ends by itself.
   */
  watchTasks(
    options: TaskFilters & CallOptions & { readonly onBreak?: ((error: FlowkeepError) => void) | undefined } = {},
  ): AsyncGenerator<WatchTasksResponse, void, undefined> {
    const connection = this.#connection;
    const request = { filter: taskFilter(options) };
    return lasting(
      async function* (signal) {
        yield* connection.tasks.watchTasks(request, { headers: await connection.headers(), signal });
      },
      connection.signalWith(options.signal),
      options.onBreak,
    );
  }

  /** Takes a task, so that nobody else works on it, and returns it. */
  async claimTask(taskId: string, options: ChangeOptions = {}): Promise<Task> {
    const request = { taskId, requestId: requestId(options) };
    const { tasks } = this.#connection;
    return given((await this.#connection.call((attempt) => tasks.claimTask(request, attempt), options)).task);
  }

  /** Gives a claimed task back, and returns it. */
  async releaseTask(taskId: string, options: ChangeOptions = {}): Promise<Task> {
    const request = { taskId, requestId: requestId(options) };
    const { tasks } = this.#connection;
    return given((await this.#connection.call((attempt) => tasks.releaseTask(request, attempt), options)).task);
  }

  /**
   * Ends a task with one of its outcomes, by default the only one, and values that meet its form.
   *
   * Throws PayloadError for values that payloads cannot carry, InvalidArgumentError for those that the form refuses.
   */
  async completeTask(taskId: string, outcome = "", values?: Input, options: CommentedOptions = {}): Promise<Task> {
    const request = {
      taskId,
      outcome,
      ...(values === undefined ? {} : { values: toStruct(values, "values") }),
      comment: options.comment ?? "",
      requestId: requestId(options),
    };
    const { tasks } = this.#connection;
    return given((await this.#connection.call((attempt) => tasks.completeTask(request, attempt), options)).task);
  }

  /** Hands a task to another subject, and returns it. */
  async delegateTask(taskId: string, assignee: string, options: CommentedOptions = {}): Promise<Task> {
    const request = { taskId, assignee, comment: options.comment ?? "", requestId: requestId(options) };
    const { tasks } = this.#connection;
    return given((await this.#connection.call((attempt) => tasks.delegateTask(request, attempt), options)).task);
  }

  /** Adds a comment to a task, and returns it. */
  async commentTask(taskId: string, comment: string, options: ChangeOptions = {}): Promise<Task> {
    const request = { taskId, text: comment, requestId: requestId(options) };
    const { tasks } = this.#connection;
    return given((await this.#connection.call((attempt) => tasks.commentTask(request, attempt), options)).task);
  }
}

function taskFilter(filters: TaskFilters): TaskFilter {
  return create(TaskFilterSchema, {
    states: (filters.states ?? []).map((name) => stateOf(Task_StateSchema, name)),
    mine: filters.mine ?? false,
    group: filters.group ?? "",
    executionId: filters.executionId ?? "",
  });
}
