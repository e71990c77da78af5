/** Prints the events of the execution FLOWKEEP_EXECUTION, of the server FLOWKEEP_TARGET, a line each. */

import { Client } from "flowkeep-client";

const client = new Client(process.env["FLOWKEEP_TARGET"]);
for await (const event of client.watch(process.env["FLOWKEEP_EXECUTION"] ?? "")) {
  console.log(`event ${event.seq} ${event.kind.case}`);
}
client.close();
