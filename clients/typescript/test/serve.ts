/** A worker of the server FLOWKEEP_TARGET, for tests: it says what it does, a line each. */

import { setTimeout as sleep } from "node:timers/promises";
import { existsSync } from "node:fs";

import { HandlerError, Worker } from "flowkeep-client";

const worker = new Worker(process.env["FLOWKEEP_TARGET"], {
  name: "typescript",
  capacity: 2,
  grace: process.env["FLOWKEEP_GRACE"],
  onBreak: (error) => console.log(`broke ${error.code}`),
});

worker.handle<{ name: string }>(
  {
    name: "greet",
    description: "Greets somebody.",
    params: { type: "object", properties: { name: { type: "string" } }, required: ["name"] },
    effect: "none",
  },
  ({ name }, context) => {
    context.report(50, "half way");
    context.use({ inputTokens: 3, outputTokens: 2, costMicros: 7 });
    return { text: `Hello ${name}!`, attempt: context.attempt };
  },
);

worker.handle({ name: "refuse" }, () => {
  throw new HandlerError("TOO_LATE", "the shop is closed", { details: { opens: 9 }, retryable: false });
});

worker.handle({ name: "break" }, () => {
  throw new TypeError("the secret text of the error");
});

let inside = 0;
worker.handle({ name: "crowd" }, async () => {
  inside += 1;
  await sleep(5);
  return inside--;
});

worker.handle<{ until: string }>({ name: "hold" }, async ({ until }, { signal, attempt }) => {
  console.log(`holds ${attempt}`);
  try {
    while (!existsSync(until)) {
      await sleep(20, undefined, { signal });
    }
  } catch (error) {
    console.log("stopped");
    throw error;
  }
  return attempt;
});

await worker.run();
console.log("drained");
