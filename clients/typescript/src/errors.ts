/**
 * What can go wrong when working with Flowkeep.
 *
 *     Error
 *     ├── FlowkeepError               an RPC was refused, or could not be done
 *     │   ├── InvalidArgumentError    a field breaks a rule; `violations` says which
 *     │   ├── UnauthenticatedError    there is no token, or it is not valid
 *     │   ├── PermissionDeniedError   the identity lacks a permission
 *     │   ├── NotFoundError           no such workflow, revision or execution
 *     │   ├── AlreadyExistsError      the name is taken, or the request id was used with other content
 *     │   ├── FailedPreconditionError the thing is not in the state that the call needs
 *     │   ├── OutOfRangeError         a resume position or page token that no longer, or not yet, stands for anything
 *     │   ├── ResourceExhaustedError  there is too much work; `retryAfter` says when to come back
 *     │   └── UnavailableError        server or database cannot be reached; what the call did is unknown
 *     ├── ExecutionFailedError        an execution did not complete: data about the work, not the error of an RPC
 *     ├── PayloadError                a value that payloads cannot carry
 *     └── DefinitionError             a document that is no workflow definition
 */

import { type Failure, Execution_State } from "./gen/flowkeep/v1/execution_pb.js";

/** The canonical codes of gRPC, by their names. */
export const STATUS_CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** A canonical code of gRPC. */
export type StatusCode = (typeof STATUS_CODES)[number];

/** One thing that is wrong: the path of the field, and what would be right. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** What the service says of an error beside its code and message. */
export interface ErrorDetails {
  readonly reason?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly Violation[];
  readonly retryAfter?: number | undefined;
  readonly cause?: unknown;
}

/** An RPC was refused, or could not be done. */
export class FlowkeepError extends Error {
  /** The canonical code, such as `NOT_FOUND`. */
  readonly code: StatusCode;
  /** A name of `ErrorReason`, such as `WORKFLOW_NOT_FOUND`; empty when the error is not from the service itself. */
  readonly reason: string;
  /** Every variable part of the message. */
  readonly metadata: Readonly<Record<string, string>>;
  /** All that is wrong with the fields of the request. */
  readonly violations: readonly Violation[];
  /** The pause in seconds that the server asks for. */
  readonly retryAfter: number | undefined;
  /** The message without code, reason and violations. */
  readonly rawMessage: string;

  constructor(code: StatusCode, message: string, details: ErrorDetails = {}) {
    const label = details.reason ? `${code} (${details.reason})` : code;
    const violations = details.violations ?? [];
    const lines = [`${label}: ${message}`, ...violations.map((each) => `  ${violationText(each)}`)];
    super(lines.join("\n"), details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.violations = violations;
    this.retryAfter = details.retryAfter;
    this.rawMessage = message;
  }
}

/** Fields of the request break a rule; `violations` says which and what would be right. */
export class InvalidArgumentError extends FlowkeepError {}

/** There is no token, or it is not valid. */
export class UnauthenticatedError extends FlowkeepError {}

/** The identity lacks the permission named in `metadata.permission`. */
export class PermissionDeniedError extends FlowkeepError {}

/** There is no such workflow, revision or execution, or it belongs to somebody else. */
export class NotFoundError extends FlowkeepError {}

/** The name is taken, or the request id was used with other content. */
export class AlreadyExistsError extends FlowkeepError {}

/** The thing is not in the state that the call needs: it has ended, changed or is in use. */
export class FailedPreconditionError extends FlowkeepError {}

/** The resume position lies beyond the newest event or is no longer kept, or the page token is too old. */
export class OutOfRangeError extends FlowkeepError {}

/** The server has more work than it may hold. Nothing was done; `retryAfter` says when to come back. */
export class ResourceExhaustedError extends FlowkeepError {}

/** Server or database cannot be reached. What the call did is unknown, unless it only reads. */
export class UnavailableError extends FlowkeepError {}

/** An execution ended without completing. `failure` says why; the text names the cause. */
export class ExecutionFailedError extends Error {
  readonly executionId: string;
  /** FAILED, CANCELLED or TIMED_OUT. */
  readonly state: Execution_State;
  readonly failure: Failure | undefined;

  constructor(executionId: string, state: Execution_State, failure: Failure | undefined) {
    super(`execution ${executionId} ${Execution_State[state]}${causeText(failure)}`);
    this.name = "ExecutionFailedError";
    this.executionId = executionId;
    this.state = state;
    this.failure = failure;
  }
}

/** A value that payloads cannot carry: `path` says where it stands, `description` what would be right. */
export class PayloadError extends Error {
  readonly path: string;
  readonly description: string;

  constructor(path: string, description: string) {
    super(violationText({ field: path, description }));
    this.name = "PayloadError";
    this.path = path;
    this.description = description;
  }
}

/** A document that is no workflow definition; `violations` holds all that is wrong. */
export class DefinitionError extends Error {
  readonly violations: readonly Violation[];

  constructor(violations: readonly Violation[]) {
    super(violations.map(violationText).join("\n"));
    this.name = "DefinitionError";
    this.violations = violations;
  }
}

const CLASSES: Partial<Record<StatusCode, typeof FlowkeepError>> = {
  INVALID_ARGUMENT: InvalidArgumentError,
  UNAUTHENTICATED: UnauthenticatedError,
  PERMISSION_DENIED: PermissionDeniedError,
  NOT_FOUND: NotFoundError,
  ALREADY_EXISTS: AlreadyExistsError,
  FAILED_PRECONDITION: FailedPreconditionError,
  OUT_OF_RANGE: OutOfRangeError,
  RESOURCE_EXHAUSTED: ResourceExhaustedError,
  UNAVAILABLE: UnavailableError,
};

/** Returns an error of the class that belongs to its code. */
export function flowkeepError(code: StatusCode, message: string, details: ErrorDetails = {}): FlowkeepError {
  return new (CLASSES[code] ?? FlowkeepError)(code, message, details);
}

function violationText(violation: Violation): string {
  return violation.field ? `${violation.field}: ${violation.description}` : violation.description;
}

function causeText(failure: Failure | undefined): string {
  if (!failure?.code) {
    return "";
  }
  const inner = failure.code === "STEP_FAILED" ? failure.details?.["code"] : undefined;
  const code = typeof inner === "string" && inner ? inner : failure.code;
  return `: ${code}${failure.stepPath ? ` in step ${failure.stepPath}` : ""}: ${failure.message}`;
}
