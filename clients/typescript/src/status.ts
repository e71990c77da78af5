/** Errors of the transport, and those that come as messages, as our own. */

import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";

import { type ErrorDetails, flowkeepError, type FlowkeepError, STATUS_CODES, type StatusCode } from "./errors.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { Status } from "./gen/google/rpc/status_pb.js";

/** A detail of an error, packed, with the full name of its type. */
interface Packed {
  readonly type: string;
  readonly value: Uint8Array;
}

// What connect says of a connection that broke, where Node gives no error code of its own.
const BREAKS = /missing status|stream closed|closed early|aborted|premature close/i;
const BROKEN: ReadonlySet<StatusCode> = new Set<StatusCode>(["INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED"]);

/** Returns our error for what a call threw, with the details that the server attached, as far as they can be read. */
export function fromThrown(thrown: unknown): FlowkeepError {
  const error = ConnectError.from(thrown);
  const code = STATUS_CODES[error.code] ?? "UNKNOWN";
  if (BROKEN.has(code) && !isFromServer(error) && isBreak(error)) {
    return flowkeepError("UNAVAILABLE", error.rawMessage, { cause: error });
  }
  const packed = error.details.flatMap((each) => ("type" in each ? [{ type: each.type, value: each.value }] : []));
  return flowkeepError(code, error.rawMessage, { ...detailsOf(packed), cause: error });
}

/** Returns our error for one that came as a message, as if a call had ended with it. */
export function fromStatus(status: Status): FlowkeepError {
  const packed = status.details.map((any: Any) => ({ type: any.typeUrl.replace(/.*\//, ""), value: any.value }));
  return flowkeepError(STATUS_CODES[status.code] ?? "UNKNOWN", status.message, detailsOf(packed));
}

/** Whether the server itself, or a proxy that speaks gRPC, ended the call so. */
function isFromServer(error: ConnectError): boolean {
  return error.metadata.has("grpc-status") || error.metadata.has("grpc-status-details-bin");
}

function isBreak(error: ConnectError): boolean {
  if (BREAKS.test(error.rawMessage)) {
    return true;
  }
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause) {
    if ("code" in cause && typeof cause.code === "string") {
      return true; // of Node: ECONNRESET, EPIPE, ENOENT, ERR_HTTP2_STREAM_CANCEL and so on
    }
  }
  return false;
}

function detailsOf(packed: readonly Packed[]): ErrorDetails {
  const info = unpacked(ErrorInfoSchema, packed)[0];
  const delay = unpacked(RetryInfoSchema, packed)[0]?.retryDelay;
  return {
    reason: info?.reason ?? "",
    metadata: { ...info?.metadata },
    violations: unpacked(BadRequestSchema, packed).flatMap((each) =>
      each.fieldViolations.map(({ field, description }) => ({ field, description })),
    ),
    retryAfter: delay && Number(delay.seconds) + delay.nanos / 1e9,
  };
}

function unpacked<Desc extends DescMessage>(schema: Desc, packed: readonly Packed[]): MessageShape<Desc>[] {
  return packed.flatMap((each) => {
    if (each.type !== schema.typeName) {
      return [];
    }
    try {
      return [fromBinary(schema, each.value)];
    } catch {
      return []; // a proxy may garble trailers: an error without its details is still that error
    }
  });
}
