/** Calls the server FLOWKEEP_TARGET over TLS, as FLOWKEEP_CA has signed it, with the token FLOWKEEP_TOKEN and without. */

import { readFileSync } from "node:fs";

import { Client, PermissionDeniedError, UnauthenticatedError } from "flowkeep-client";

const tls = { ca: readFileSync(process.env["FLOWKEEP_CA"] ?? "") };
const target = process.env["FLOWKEEP_TARGET"];
const known = new Client(target, { tls, token: async () => `${process.env["FLOWKEEP_TOKEN"]}\n` });
for await (const execution of known.listExecutions()) {
  console.log(execution.executionId);
}
console.log("listed");
await known.execute("hello").catch((error: unknown) => {
  console.log(error instanceof PermissionDeniedError && error.metadata["permission"]);
});
known.close();
const unknown = new Client(target, { tls });
await unknown.listHandlers().catch((error: unknown) => console.log(error instanceof UnauthenticatedError && error.reason));
unknown.close();
