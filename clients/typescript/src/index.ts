/** What `import … from "flowkeep-client"` offers; `flowkeep-client/v1` has all messages. */

export type { Outcome } from "./batch.js";
export type { BulkKind, BulkOptions } from "./bulk.js";
export { Client, type WatchOptions } from "./client.js";
export type { ConnectionOptions, Token } from "./connection.js";
export { type Definition, definition } from "./definition.js";
export type { DryRunOptions, Mock, MockFailure } from "./dry_runs.js";
export type { Span } from "./durations.js";
export {
  AlreadyExistsError,
  DefinitionError,
  ExecutionFailedError,
  FailedPreconditionError,
  FlowkeepError,
  InvalidArgumentError,
  NotFoundError,
  OutOfRangeError,
  PayloadError,
  PermissionDeniedError,
  ResourceExhaustedError,
  type StatusCode,
  UnauthenticatedError,
  UnavailableError,
  type Violation,
} from "./errors.js";
export { type Bulk, Bulk_State, type BulkResult, BulkResult_Outcome } from "./gen/flowkeep/v1/bulk_pb.js";
export type { ExecutionEvent } from "./gen/flowkeep/v1/event_pb.js";
export {
  type Execution,
  Execution_State,
  ExecutionView,
  type Failure,
  type StepExecution,
  StepExecution_State,
  StepView,
} from "./gen/flowkeep/v1/execution_pb.js";
export type { Notification } from "./gen/flowkeep/v1/notification_pb.js";
export { type Task, Task_State } from "./gen/flowkeep/v1/task_pb.js";
export type { WorkflowBreakpoints } from "./gen/flowkeep/v1/workflow_breakpoints_pb.js";
export { type Workflow, type WorkflowDefinition, WorkflowView } from "./gen/flowkeep/v1/workflow_pb.js";
export { AttemptCancelled_Reason } from "./gen/flowkeep/v1/worker_service_pb.js";
export {
  type AttemptContext,
  type HandlerDeclaration,
  HandlerError,
  type HandlerFunction,
  StoppedError,
  type Used,
} from "./handlers.js";
export { fromValue, type Input } from "./payload.js";
export {
  type CallOptions,
  type ChangeOptions,
  type ExecuteOptions,
  executeRequest,
  type ExecutionFilters,
  type ForkOptions,
  type ListOptions,
  type RetryOptions,
  type SignalStartOptions,
} from "./requests.js";
export type { CommentedOptions, TaskFilters } from "./tasks.js";
export { type RunOptions, Worker, type WorkerOptions } from "./worker.js";
