/** The calls about workflows, and about what their steps can run. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";

import { given } from "./answer.js";
import type { Connection } from "./connection.js";
import { ControlCalls } from "./control.js";
import { type Definition, definition, definitions } from "./definition.js";
import { DefinitionError, type Violation } from "./errors.js";
import type { Handler } from "./gen/flowkeep/v1/handler_pb.js";
import type { Worker as WorkerMessage } from "./gen/flowkeep/v1/worker_service_pb.js";
import type { WorkflowBreakpoints } from "./gen/flowkeep/v1/workflow_breakpoints_pb.js";
import { type Workflow, type WorkflowDefinition, WorkflowView } from "./gen/flowkeep/v1/workflow_pb.js";
import { type ApplyWorkflowsResponse_Result, ListWorkflowsRequestSchema } from "./gen/flowkeep/v1/workflow_service_pb.js";
import { breakpointsOf, type CallOptions, type ChangeOptions, requestId } from "./requests.js";

/** What is done with workflows. */
export class WorkflowCalls extends ControlCalls {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    super(connection);
    this.#connection = connection;
  }

  /**
   * Makes one or more workflows be as their definitions say, all or none; returns in order what became of each.
   *
   * What holds already is UNCHANGED. With `validateOnly` nothing is written, and the results say what would be done.
   * Throws DefinitionError for documents that are no definitions, or with `validateOnly` not sound; else
   * InvalidArgumentError; by paths such as `definitions[3].steps[0].id`.
   */
  async apply(
    documents: Definition | readonly Definition[],
    options: ChangeOptions & { readonly validateOnly?: boolean | undefined } = {},
  ): Promise<ApplyWorkflowsResponse_Result[]> {
    const request = {
      definitions: definitions(documents),
      validateOnly: options.validateOnly ?? false,
      requestId: requestId(options),
    };
    const { workflows } = this.#connection;
    const response = await this.#connection.call((attempt) => workflows.applyWorkflows(request, attempt), options);
    if (response.violations.length > 0) {
      throw new DefinitionError(response.violations.map(({ field, description }) => ({ field, description })));
    }
    return response.results;
  }

  /** Returns all that is wrong with a definition, an empty list if nothing is. Keeps nothing. */
  async validateWorkflow(document: Definition, options: CallOptions = {}): Promise<readonly Violation[]> {
    let message: WorkflowDefinition;
    try {
      message = definition(document);
    } catch (error) {
      if (error instanceof DefinitionError) {
        return error.violations;
      }
      throw error;
    }
    const request = { definition: message };
    const { workflows } = this.#connection;
    const response = await this.#connection.call((attempt) => workflows.validateWorkflow(request, attempt), options);
    return response.violations.map(({ field, description }) => ({ field, description }));
  }

  /** Returns a workflow, by id or name, at its latest or another revision. Throws NotFoundError. */
  async getWorkflow(
    workflow: string,
    options: CallOptions & { readonly revision?: number | undefined } = {},
  ): Promise<Workflow> {
    const request = { workflow, revision: options.revision ?? 0 };
    const { workflows } = this.#connection;
    const response = await this.#connection.call((attempt) => workflows.getWorkflow(request, attempt), options);
    return given(response.workflow);
  }

  /** Yields the workflows, newest first, in the view FULL each with its definition. Pages are fetched as needed. */
  async *listWorkflows(
    options: CallOptions & {
      readonly namePrefix?: string | undefined;
      readonly tags?: readonly string[] | undefined;
      readonly view?: WorkflowView | undefined;
      readonly pageSize?: number | undefined;
    } = {},
  ): AsyncGenerator<Workflow, void, undefined> {
    const request = create(ListWorkflowsRequestSchema, {
      namePrefix: options.namePrefix ?? "",
      tags: [...(options.tags ?? [])],
      view: options.view ?? WorkflowView.BASIC,
      pageSize: options.pageSize ?? 0,
    });
    const { workflows } = this.#connection;
    do {
      const page = await this.#connection.call((attempt) => workflows.listWorkflows(request, attempt), options);
      yield* page.workflows;
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /**
   * Deletes a workflow with all its executions.
   *
   * Throws NotFoundError, and FailedPreconditionError when executions have not ended, unless `force` cancels them.
   */
  async deleteWorkflow(
    workflow: string,
    options: ChangeOptions & { readonly etag?: string | undefined; readonly force?: boolean | undefined } = {},
  ): Promise<void> {
    const request = {
      workflow,
      etag: options.etag ?? "",
      force: options.force ?? false,
      requestId: requestId(options),
    };
    const { workflows } = this.#connection;
    await this.#connection.call((attempt) => workflows.deleteWorkflow(request, attempt), options);
  }

  /**
   * Lets executions of a workflow wait, PENDING, before they start, until it is resumed; with `pauseRunning` pauses those
   * that run, too. Returns the workflow, whose `pause` tells who paused it.
   *
   * Throws NotFoundError.
   */
  async pauseWorkflow(
    workflow: string,
    options: ChangeOptions & {
      readonly reason?: string | undefined;
      readonly pauseRunning?: boolean | undefined;
      readonly hard?: boolean | undefined;
      readonly stopDeadline?: boolean | undefined;
    } = {},
  ): Promise<Workflow> {
    const request = {
      workflow,
      reason: options.reason ?? "",
      pauseRunning: options.pauseRunning ?? false,
      hard: options.hard ?? false,
      stopDeadline: options.stopDeadline ?? false,
      requestId: requestId(options),
    };
    const { workflows } = this.#connection;
    const answer = await this.#connection.call((attempt) => workflows.pauseWorkflow(request, attempt), options);
    return given(answer.workflow);
  }

  /** Lets what waits of a paused workflow start, and what its pause has paused go on. Throws NotFoundError. */
  async resumeWorkflow(
    workflow: string,
    options: ChangeOptions & { readonly reason?: string | undefined } = {},
  ): Promise<Workflow> {
    const request = { workflow, reason: options.reason ?? "", requestId: requestId(options) };
    const { workflows } = this.#connection;
    const answer = await this.#connection.call((attempt) => workflows.resumeWorkflow(request, attempt), options);
    return given(answer.workflow);
  }

  /**
   * Lets the next executions of a workflow be held before steps: `breakpoints` has their paths with conditions, which may be
   * empty; without any, none is held. `executions` is how many, 1 by default, until `expireTime`, by default for a day.
   * Returns what is set.
   *
   * Throws NotFoundError, InvalidArgumentError.
   */
  async setWorkflowBreakpoints(
    workflow: string,
    breakpoints: Readonly<Record<string, string>>,
    options: ChangeOptions & {
      readonly executions?: number | undefined;
      readonly expireTime?: Date | undefined;
    } = {},
  ): Promise<WorkflowBreakpoints | undefined> {
    const request = {
      workflow,
      breakpoints: breakpointsOf(breakpoints),
      executions: options.executions ?? 1,
      expireTime: options.expireTime && timestampFromDate(options.expireTime),
      requestId: requestId(options),
    };
    const { workflows } = this.#connection;
    const answer = await this.#connection.call((attempt) => workflows.setWorkflowBreakpoints(request, attempt), options);
    return answer.breakpoints;
  }

  /** Returns what steps can run, by name. */
  async listHandlers(options: CallOptions = {}): Promise<Handler[]> {
    const { workflows } = this.#connection;
    return (await this.#connection.call((attempt) => workflows.listHandlers({}, attempt), options)).handlers;
  }

  /** Returns the workers that are connected, by name, and what they run; only those that have a handler, if one is given. */
  async listWorkers(options: CallOptions & { readonly handler?: string | undefined } = {}): Promise<WorkerMessage[]> {
    const request = { handler: options.handler ?? "" };
    const { workers } = this.#connection;
    return (await this.#connection.call((attempt) => workers.listWorkers(request, attempt), options)).workers;
  }
}
