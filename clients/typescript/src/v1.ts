/** All messages, enums and services of `flowkeep.v1`, with what protobuf-es makes messages from. */

export * from "./gen/flowkeep/v1/error_pb.js";
export * from "./gen/flowkeep/v1/event_pb.js";
export * from "./gen/flowkeep/v1/execution_pb.js";
export * from "./gen/flowkeep/v1/execution_service_pb.js";
export * from "./gen/flowkeep/v1/handler_pb.js";
export * from "./gen/flowkeep/v1/worker_service_pb.js";
export * from "./gen/flowkeep/v1/workflow_pb.js";
export * from "./gen/flowkeep/v1/workflow_service_pb.js";
