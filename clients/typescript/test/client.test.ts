/** Against the server that FLOWKEEP_TARGET names. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, test } from "node:test";

import {
  AlreadyExistsError,
  Client,
  DefinitionError,
  executeRequest,
  Execution_State,
  ExecutionFailedError,
  ExecutionView,
  FailedPreconditionError,
  FlowkeepError,
  InvalidArgumentError,
  NotFoundError,
  UnavailableError,
} from "flowkeep-client";
import { ApplyWorkflowsResponse_Outcome as Outcome } from "flowkeep-client/v1";

import { relayTo } from "./relay.js";

const TARGET = process.env["FLOWKEEP_TARGET"] ?? "localhost:50051";
const ABSENT = "01900000-0000-7000-8000-000000000000";
const GREET = { id: "greet", handler: "transform", params: { value: "Hello ${ input.name }!" } };
const PAUSE = { id: "pause", handler: "wait", params: { duration: "1h" } };

const client = new Client(TARGET);
after(() => client.close());

async function made(...steps: object[]): Promise<string> {
  const name = `ts-${randomUUID()}`;
  await client.apply({ name, steps });
  return name;
}

async function collected<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) {
    found.push(item);
  }
  return found;
}

test("workflows are applied from objects, and again change nothing", async () => {
  const document = { name: `ts-${randomUUID()}`, ordering: "GRAPH", timeout: "1h30m", steps: [GREET] };
  const outcomes = [await client.apply([document]), await client.apply(document)].map(([result]) => result?.outcome);
  assert.deepEqual(outcomes, [Outcome.CREATED, Outcome.UNCHANGED]);
  const found = await client.getWorkflow(document.name);
  assert.deepEqual([found.revision, found.definition?.timeout?.seconds], [1, 5400n]);
  const listed = await collected(client.listWorkflows({ namePrefix: document.name }));
  assert.deepEqual(listed.map((each) => each.name), [document.name]);
  await client.deleteWorkflow(document.name);
  await assert.rejects(client.getWorkflow(document.name), NotFoundError);
});

test("a definition that is not sound is refused with its paths", async () => {
  const unsound = { name: "unsound", steps: [{ id: "a", handler: "absent" }] };
  const [violation] = await client.validateWorkflow(unsound);
  assert.equal(violation?.field, "steps[0].handler");
  await assert.rejects(client.apply(unsound, { validateOnly: true }), DefinitionError);
  await assert.rejects(client.apply(unsound), (error) => {
    assert.ok(error instanceof InvalidArgumentError);
    assert.deepEqual([error.code, error.reason], ["INVALID_ARGUMENT", "INVALID_FIELDS"]);
    assert.equal(error.violations[0]?.field, "definitions[0].steps[0].handler");
    return true;
  });
});

test("a dry run gives what its mocks say", async () => {
  const call = { id: "call", handler: "call_api", params: { url: "https://example.com" } };
  const name = await made(PAUSE, call, { ...call, id: "other", on_error: "CONTINUE" });
  const failure = { code: "BUSY", details: { n: 1 } };
  const mocks = { call: { output: { status: 200 } } };
  const dryRun = { mocks, defaultMock: { failure }, skipWaits: true };
  const done = await client.execute(name, {}, { wait: true, dryRun });
  assert.deepEqual([done.state, done.dryRun], [Execution_State.COMPLETED, true]);
  const { step } = await client.getStep(done.executionId, "other");
  assert.deepEqual([step?.mocked, step?.outcome.case], [true, "failure"]);
  const listed = async (dry: boolean) => (await collected(client.listExecutions({ workflow: name, dryRun: dry }))).length;
  assert.deepEqual([await listed(true), await listed(false)], [1, 0]);
});

test("an execution gives its result, waited for in each way", async () => {
  const name = await made(GREET);
  const waited = await client.execute(name, { name: "you" }, { wait: true, tags: ["ts"], labels: { of: "test" } });
  assert.equal(waited.state, Execution_State.COMPLETED);
  assert.equal(await client.result(waited.executionId), "Hello you!");
  assert.equal(await client.run(name, { name: "all" }), "Hello all!");
  const steps = await collected(client.listSteps(waited.executionId));
  assert.deepEqual(steps.map((step) => step.path), ["greet"]);
  const { step } = await client.getStep(waited.executionId, "greet");
  assert.equal(step?.handler, "transform");
  const compared = await client.compareExecutions(waited.executionId, waited.executionId);
  assert.deepEqual([compared.differsIn, compared.totals?.differingSteps], [[], 0]);
  const { obstacles } = await client.explainExecution(waited.executionId);
  assert.deepEqual(obstacles.map((each) => each.sentence), ["It has ended: COMPLETED. Nothing is to come."]);
  assert.deepEqual((await client.explainQueue(waited.workflowName)).executions, []);
});

test("the same request id starts nothing twice", async () => {
  const name = await made(GREET);
  const request = executeRequest(name, { name: "once" });
  const [first, second] = [await client.start(request), await client.start(request)];
  assert.deepEqual([first.created, second.created], [true, false]);
  assert.equal(first.execution?.executionId, second.execution?.executionId);
  const { requestId } = request;
  await assert.rejects(client.execute(name, { name: "else" }, { requestId }), AlreadyExistsError);
});

test("a signal starts the execution that it is for, once", async () => {
  const workflow = await made({ id: "paid", handler: "wait_signal", params: { name: "paid" } });
  const target = { workflow, correlationId: "A-17" };
  const options = { requestId: randomUUID(), input: { item: "book" }, tags: ["ts"] };
  const [first, second] = [
    await client.signalWithStart(target, "paid", { amount: 12 }, options),
    await client.signalWithStart(target, "paid", { amount: 12 }, options),
  ];
  assert.deepEqual([first.started, second.started], [true, false]);
  assert.equal(first.signalId, second.signalId);
  const result = (await client.result(first.execution?.executionId ?? "")) as { payload: unknown };
  assert.deepEqual(result.payload, { amount: 12 });
});

test("the next execution of a workflow is held", async () => {
  const name = await made({ id: "greet", handler: "transform", params: { value: "hello" } });
  const expireTime = new Date(Date.now() + 3_600_000);
  const set = await client.setWorkflowBreakpoints(name, { greet: "" }, { executions: 1, expireTime });
  assert.equal(set?.executionsLeft, 1);
  const held = await client.execute(name);
  assert.deepEqual(held.breakpoints.map(({ path }) => path), ["greet"]);
  assert.equal(await client.setWorkflowBreakpoints(name, {}), undefined);
  assert.equal(await client.run(name), "hello");
});

test("a paused workflow lets executions wait", async () => {
  const name = await made({ id: "greet", handler: "transform", params: { value: "hello" } });
  const { pause } = await client.pauseWorkflow(name, { reason: "an incident", pauseRunning: true });
  assert.deepEqual([pause?.reason, pause?.runningPaused], ["an incident", true]);
  const execution = await client.execute(name);
  assert.equal(execution.state, Execution_State.PENDING);
  assert.equal((await client.resumeWorkflow(name, { reason: "over" })).pause, undefined);
  assert.equal(await client.result(execution.executionId), "hello");
});

test("an execution that fails says why", async () => {
  const name = await made({ id: "broken", handler: "transform", params: { expression: "1 / 0" } });
  await assert.rejects(client.run(name), (error) => {
    assert.ok(error instanceof ExecutionFailedError);
    assert.equal(error.state, Execution_State.FAILED);
    assert.match(error.message, /FAILED: [A-Z_]+ in step broken: /);
    return true;
  });
});

test("a batch tells of each request what became of it, and lists are read page by page", async () => {
  const name = await made(GREET);
  const requests = Array.from({ length: 5 }, (_, n) => executeRequest(name, { name: `${n}` }));
  const outcomes = await client.batchExecute([...requests, executeRequest("absent")]);
  const started = outcomes.flatMap((each) => (each instanceof FlowkeepError ? [] : [each.execution?.executionId]));
  const refused = outcomes[5];
  assert.ok(refused instanceof NotFoundError);
  assert.deepEqual([refused.reason, refused.metadata], ["WORKFLOW_NOT_FOUND", { workflow: "absent" }]);
  const listed = await collected(client.listExecutions({ workflow: name, pageSize: 2 }));
  assert.deepEqual(listed.map((each) => each.executionId).sort(), started.sort());
  assert.equal(started.length, 5);
});

test("many calls at once are nothing to warn of", async (context) => {
  const warnings: string[] = [];
  const keep = (warning: Error): void => void warnings.push(warning.message);
  process.on("warning", keep);
  context.after(() => process.off("warning", keep));
  await Promise.all(Array.from({ length: 20 }, () => client.listHandlers()));
  assert.deepEqual(warnings, []);
});

test("a cancel tells what became of each step", async () => {
  const execution = await client.execute(await made(PAUSE));
  const cancelled = await client.cancel(execution.executionId, { reason: "enough" });
  assert.deepEqual(cancelled.steps.map((step) => step.path), ["pause"]);
  await assert.rejects(client.result(execution.executionId), /CANCELLED/);
  const done = await client.execute(await made(GREET), { name: "x" }, { wait: true });
  await assert.rejects(client.cancel(done.executionId), (error) => {
    assert.ok(error instanceof FailedPreconditionError);
    assert.deepEqual([error.reason, error.metadata["state"]], ["EXECUTION_FINISHED", "COMPLETED"]);
    return true;
  });
});

test("a watch goes on behind the last event when its connection breaks", async (context) => {
  const relay = await relayTo(TARGET);
  const far = new Client(relay.target);
  context.after(async () => {
    far.close();
    await relay.close();
  });
  const { executionId } = await client.execute(await made(GREET, PAUSE), { name: "you" });
  const breaks: FlowkeepError[] = [];
  const seqs: bigint[] = [];
  const onBreak = (error: FlowkeepError): void => {
    breaks.push(error);
    if (breaks.length === 1) {
      void client.cancel(executionId); // what is watched goes on while nobody is connected
    }
  };
  for await (const event of far.watch(executionId, { onBreak })) {
    seqs.push(event.seq);
    if (event.kind.case === "stepWaiting") {
      relay.cut();
    }
  }
  assert.ok(breaks[0] instanceof UnavailableError, String(breaks));
  assert.deepEqual(seqs, seqs.map((_, index) => BigInt(index + 1)));
  const { lastSeq } = await client.getExecution(executionId, { view: ExecutionView.BASIC });
  assert.equal(seqs.at(-1), lastSeq);
});

test("a watch begins where it is told to", async () => {
  const { executionId, lastSeq } = await client.execute(await made(GREET), { name: "you" }, { wait: true });
  const tail = await collected(client.watch(executionId, { afterSeq: lastSeq - 1n }));
  assert.deepEqual(tail.map((event) => event.kind.case), ["finished"]);
  const [first] = await collected(client.watchResponses(executionId, { snapshot: true }));
  assert.equal(first?.kind.case === "snapshot" && first.kind.value.seq, lastSeq);
  await assert.rejects(collected(client.watch(executionId, { afterSeq: 1000 })), { code: "OUT_OF_RANGE" });
  await assert.rejects(collected(client.watch(ABSENT)), NotFoundError);
});

test("calls and watches end when their signal does", async () => {
  const { executionId } = await client.execute(await made(PAUSE));
  const stop = new AbortController();
  const watching = (async () => {
    for await (const event of client.watch(executionId, { signal: stop.signal })) {
      if (event.kind.case === "stepWaiting") {
        stop.abort(new Error("enough"));
      }
    }
  })();
  await assert.rejects(watching, /enough/);
  await assert.rejects(client.getExecution(executionId, { signal: stop.signal }), /enough/);
  await client.cancel(executionId);
});

test("a call is sent again until a server is there, and no longer than it may", async (context) => {
  const gone = await relayTo(TARGET);
  await gone.close();
  const hasty = new Client(gone.target, { timeout: 0.3 });
  const patient = new Client(gone.target);
  await assert.rejects(hasty.listHandlers(), UnavailableError);
  const asked = patient.listHandlers();
  const back = await relayTo(TARGET, Number(gone.target.split(":")[1]));
  context.after(async () => {
    patient.close();
    await back.close();
  });
  assert.ok((await asked).length > 0);
});

test("a client that is closed says so", async () => {
  const closed = new Client(TARGET);
  const { executionId } = await client.execute(await made(PAUSE));
  const watching = collected(closed.watch(executionId));
  await closed.listHandlers();
  closed.close();
  await assert.rejects(watching, /the client is closed/);
  await assert.rejects(closed.listHandlers(), /the client is closed/);
  await client.cancel(executionId);
});

test("targets that are none are refused", () => {
  for (const target of ["http://localhost:50051", "", "two words", "host:port"]) {
    assert.throws(() => new Client(target), TypeError, target);
  }
});
