/** What is done with executions, against the server that FLOWKEEP_TARGET names. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, test } from "node:test";

import { Bulk_State, BulkResult_Outcome, Client, Execution_State as State, FailedPreconditionError, fromValue, StepExecution_State } from "flowkeep-client";

const GREET = { id: "greet", handler: "transform", params: { value: "Hello ${ input.name }!" } };
const SHOUT = { id: "shout", handler: "transform", params: { value: "${ steps.greet.output.upperAscii() }" } };
const SLEEP = { id: "sleep", handler: "wait", params: { duration: "1h" } };
const HALVE = { id: "halve", handler: "transform", params: { expression: "10 / input.by" } };

const client = new Client(process.env["FLOWKEEP_TARGET"] ?? "localhost:50051");
after(() => client.close());

async function made(...steps: object[]): Promise<string> {
  const name = `ts-${randomUUID()}`;
  await client.apply({ name, steps });
  return name;
}

/** Starts an execution of these steps, and returns its id. */
async function started(steps: object[], input: object = {}): Promise<string> {
  return (await client.execute(await made(...steps), { ...input })).executionId;
}

async function collected<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) {
    found.push(item);
  }
  return found;
}

/** Returns before which step an execution is held after an event, and the event that tells it. */
async function held(executionId: string, afterSeq = 0n): Promise<{ path: string; seq: bigint }> {
  for await (const { kind, seq } of client.watch(executionId, { afterSeq })) {
    if (kind.case === "paused") {
      return { path: kind.value.stepPath, seq };
    }
  }
  throw new Error("it has ended");
}

test("variables are set while an execution is held, and seen by what comes later", async () => {
  const count = { id: "count", handler: "transform", params: { value: 1 }, assign: { n: "result" } };
  const show = { id: "show", handler: "transform", params: { value: "${ vars.n }" } };
  const { executionId } = await client.execute(await made(count, show), {}, { breakpoints: { show: "" } });
  assert.equal((await held(executionId)).path, "show");
  await client.editVariables(executionId, { n: 7 });
  await client.resume(executionId);
  assert.equal(await client.result(executionId), 7);
});

test("an execution is held before steps, and goes on from one to the next", async () => {
  const name = await made(GREET, SHOUT);
  const { executionId } = await client.execute(name, { name: "you" }, { breakpoints: { greet: "" } });
  const first = await held(executionId);
  assert.equal(first.path, "greet");
  await assert.rejects(client.editStepInput(executionId, "greet", {}), (error) => {
    assert.ok(error instanceof FailedPreconditionError);
    assert.equal(error.reason, "STEP_NOT_HELD"); // it has no handler that is called with any
    return true;
  });
  await client.resume(executionId, { stepOver: true });
  assert.equal((await held(executionId, first.seq)).path, "shout");
  const { breakpoints } = await client.setBreakpoints(executionId, {});
  assert.deepEqual(breakpoints, []);
  await client.resume(executionId);
  assert.equal(await client.result(executionId), "HELLO YOU!");
  const before = await client.getExecution(executionId, { atSeq: first.seq });
  assert.deepEqual([before.state, before.stepCounts?.completed], [State.PAUSED, 0]);
});

test("an execution goes on to a step", async () => {
  const name = await made(GREET, SHOUT);
  const { executionId } = await client.execute(name, { name: "you" }, { breakpoints: { greet: "true" } });
  const { seq } = await held(executionId);
  await client.resume(executionId, { runTo: "shout" });
  assert.equal((await held(executionId, seq)).path, "shout");
  await client.terminate(executionId);
});

test("an execution is paused, resumed and terminated", async () => {
  const executionId = await started([SLEEP]);
  const paused = await client.pause(executionId, { reason: "lunch", hard: true, stopDeadline: true });
  assert.deepEqual([paused.state, paused.pause?.reason, paused.pause?.hard], [State.PAUSED, "lunch", true]);
  assert.equal((await client.resume(executionId, { reason: "fed" })).state, State.RUNNING);
  assert.equal((await client.terminate(executionId, { reason: "enough" })).state, State.CANCELLED);
});

test("a signal is for an execution, by its id or by what both know", async () => {
  const wait = { id: "paid", handler: "wait_signal", params: { name: "paid" } };
  const workflow = await made(wait);
  const ids = [1, 2].map((number) => `A-${number}`);
  const [one, two] = await Promise.all(ids.map((correlationId) => client.execute(workflow, {}, { correlationId })));
  assert.ok(one !== undefined && two !== undefined);
  await client.signal(one.executionId, "paid", { by: "id" });
  await client.signal({ workflow, correlationId: "A-2" }, "paid", { by: "correlation" });
  const payloads = await Promise.all([one, two].map(async ({ executionId }) => client.result(executionId)));
  assert.deepEqual(payloads.map((each) => (each as { payload: unknown }).payload), [{ by: "id" }, { by: "correlation" }]);
});

test("what failed is retried in place, and forked", async () => {
  const executionId = await started([GREET, HALVE], { name: "you", by: 0 });
  await assert.rejects(client.result(executionId));
  const again = await client.retry(executionId, { skip: { path: "halve", output: 5 }, reason: "by hand" });
  assert.equal(again.run, 2);
  assert.equal(await client.result(executionId), 5);
  const checked = await client.fork(executionId, { step: "halve", validateOnly: true });
  assert.deepEqual([checked.checks, checked.execution], [[], undefined]);
  const { execution } = await client.fork(executionId, { step: "halve", input: { name: "you", by: 2 } });
  assert.equal(await client.result(execution?.executionId ?? ""), 5);
  const { step } = await client.getStep(execution?.executionId ?? "", "greet");
  assert.deepEqual([step?.inherited, step?.state], [true, StepExecution_State.COMPLETED]);
});

test("a step runs by itself", async () => {
  const name = await made(GREET, SHOUT);
  const { step, nextSteps } = await client.testStep({
    source: { case: "workflow", value: name },
    path: "shout",
    outputs: { greet: "hi" },
  });
  assert.equal(step?.outcome.case === "output" && fromValue(step.outcome.value), "HI");
  assert.deepEqual(nextSteps, []);
});

test("all executions of a workflow are cancelled in bulk", async () => {
  const name = await made(SLEEP);
  const ids = await Promise.all([1, 2, 3].map(async () => (await client.execute(name)).executionId));
  const cancel = { case: "cancel", value: {} } as const;
  assert.equal((await client.previewBulk(cancel, { workflow: name })).matchedCount, 3);
  const { bulkId } = await client.startBulk(cancel, { workflow: name, reason: "no longer wanted" });
  const last = (await collected(client.watchBulk(bulkId))).at(-1);
  assert.deepEqual([last?.state, (await client.getBulk(bulkId)).state], [Bulk_State.COMPLETED, Bulk_State.COMPLETED]);
  const results = await collected(client.listBulkResults(bulkId));
  assert.deepEqual(results.map((each) => each.executionId).sort(), ids.sort());
  assert.ok(results.every((each) => each.outcome === BulkResult_Outcome.DONE));
  const listed = await collected(client.listBulks({ states: ["COMPLETED"] }));
  assert.ok(listed.some((each) => each.bulkId === bulkId));
});

test("an operation in bulk that is stopped does nothing more", async () => {
  const name = await made(SLEEP);
  await Promise.all([1, 2, 3].map(async () => client.execute(name)));
  const { bulkId } = await client.startBulk({ case: "pause", value: {} }, { workflow: name, rate: 1 });
  assert.notEqual((await client.stopBulk(bulkId)).state, Bulk_State.COMPLETED);
  assert.equal((await collected(client.watchBulk(bulkId))).at(-1)?.state, Bulk_State.STOPPED);
});
