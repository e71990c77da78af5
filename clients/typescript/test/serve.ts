/** A worker of the server FLOWKEEP_TARGET, for tests: it says what it does, a line each. */

import { setTimeout as sleep } from "node:timers/promises";
import { appendFileSync, existsSync, readFileSync } from "node:fs";

import { type AttemptContext, HandlerError, Worker } from "flowkeep-client";

const TOKENS = process.env["FLOWKEEP_TOKENS"];

const worker = new Worker(process.env["FLOWKEEP_TARGET"], {
  name: "typescript",
  capacity: Number(process.env["FLOWKEEP_CAPACITY"] ?? 2),
  grace: process.env["FLOWKEEP_GRACE"],
  token: TOKENS ? () => readFileSync(TOKENS, "utf8") : undefined,
  version: "1.4.2",
  labels: { language: "typescript" },
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

// What is thrown, and what handlers say of themselves, is anybody's: none of it may end the worker.
const BAD: Record<string, (context: AttemptContext) => unknown> = {
  nothing: () => {
    throw Object.create(null);
  },
  pause: () => {
    throw new HandlerError("TOO_LATE", "the shop is closed", { retryAfter: "soon" });
  },
  progress: (context) => context.report(NaN),
  usage: (context) => context.use({ costMicros: 1e300 }),
  text: () => {
    throw Object.defineProperty(new Error("text"), "stack", {
      get: () => {
        throw new Error("there is none");
      },
    });
  },
};
worker.handle<{ way: string }>({ name: "bad" }, ({ way }, context) => BAD[way]?.(context));

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

// As tests/faults/harness/stints.py has it.
worker.handle<{ seconds: number }>({ name: "stint_typescript" }, async ({ seconds }, context) => {
  const began = (performance.timeOrigin + performance.now()) / 1000;
  const { executionId, stepPath, attempt } = context;
  const line = { execution_id: executionId, path: stepPath, attempt, time: began };
  appendFileSync(process.env["FLOWKEEP_JOURNAL"] ?? "/dev/null", `${JSON.stringify(line)}\n`);
  await sleep(1000 * seconds, undefined, { signal: context.signal });
  return { attempt, began };
});

await worker.run();
console.log("drained");
