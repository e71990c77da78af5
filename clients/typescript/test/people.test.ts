/** Tasks and notifications, against the server that FLOWKEEP_TARGET names. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, test } from "node:test";

import { Client, FailedPreconditionError, InvalidArgumentError, NotFoundError, type Task, Task_State } from "flowkeep-client";

import { relayTo } from "./relay.js";

const TARGET = process.env["FLOWKEEP_TARGET"] ?? "localhost:50051";
const ABSENT = "01900000-0000-7000-8000-000000000000";

const client = new Client(TARGET);
after(() => client.close());

async function started(step: object): Promise<string> {
  const name = `ts-${randomUUID()}`;
  await client.apply({ name, steps: [{ id: "a", ...step }], output: "${ steps.a.output }" });
  return (await client.execute(name)).executionId;
}

const ASK = {
  handler: "create_task",
  params: {
    title: "Approve",
    outcomes: ["approved", "rejected"],
    assignees: ["developer"],
    form: { type: "object", properties: { amount: { type: "number", maximum: 100 } } },
  },
};

test("a task is seen through a broken connection, worked on and completed", async (context) => {
  const relay = await relayTo(TARGET);
  const far = new Client(relay.target);
  context.after(async () => {
    far.close();
    await relay.close();
  });
  const executionId = await started(ASK);
  let breaks = 0;
  let task: Task | undefined;
  for await (const { tasks } of far.watchTasks({ executionId, onBreak: () => (breaks += 1) })) {
    task = tasks[0] ?? task;
    if (task !== undefined && breaks === 0) {
      relay.cut();
    } else if (task?.state === Task_State.OPEN) {
      await client.claimTask(task.taskId);
    } else if (task?.state === Task_State.CLAIMED) {
      break;
    }
  }
  const taskId = task?.taskId ?? "";
  await client.releaseTask(taskId);
  await client.claimTask(taskId);
  await client.commentTask(taskId, "one moment");
  await assert.rejects(client.completeTask(taskId, "approved", { amount: 1000 }), InvalidArgumentError);
  const done = await client.completeTask(taskId, "approved", { amount: 90 }, { comment: "fine" });
  assert.deepEqual(done.comments.map((each) => each.text), ["one moment", "fine"]);
  await assert.rejects(client.claimTask(taskId), FailedPreconditionError);
  await assert.rejects(client.getTask(ABSENT), NotFoundError);
  const result = (await client.result(executionId)) as { outcome: string; values: object };
  assert.deepEqual([result.outcome, result.values], ["approved", { amount: 90 }]);
});

test("tasks are listed by what they are, and handed on", async () => {
  const executionId = await started(ASK);
  for await (const { tasks } of client.watchTasks({ executionId })) {
    if (tasks.length > 0) {
      break;
    }
  }
  const found: Task[] = [];
  for await (const task of client.listTasks({ executionId, states: ["OPEN"], mine: true, pageSize: 1 })) {
    found.push(task);
  }
  assert.equal(found.length, 1);
  const handed = await client.delegateTask(found[0]?.taskId ?? "", "somebody", { comment: "yours" });
  assert.deepEqual(handed.assignees, ["somebody"]);
  assert.throws(() => client.watchTasks({ states: ["DONE" as "OPEN"] }), RangeError);
  await client.cancel(executionId);
});

test("notifications are watched through a broken connection, counted and read", async (context) => {
  const relay = await relayTo(TARGET);
  const far = new Client(relay.target);
  context.after(async () => {
    far.close();
    await relay.close();
  });
  const tell = (title: string): Promise<string> =>
    started({ handler: "send_notification", params: { in_app: { to: "developer", title } } });
  await client.result(await tell("one"));
  const newest = (await client.listNotifications({ pageSize: 1 }).next()).value;
  assert.equal(newest?.title, "one");
  const titles: string[] = [];
  let last = newest?.seq ?? 0n;
  for await (const { title, seq } of far.watchNotifications({ afterSeq: last - 1n })) {
    titles.push(title);
    last = seq;
    if (titles.length === 3) {
      break;
    }
    relay.cut();
    await tell(titles.length === 1 ? "two" : "three"); // while nobody is connected
  }
  assert.deepEqual(titles, ["one", "two", "three"]);
  assert.ok((await client.countUnreadNotifications()) >= 3);
  assert.equal(await client.markNotificationsRead({ upToSeq: last }), 0);
  assert.equal((await client.listNotifications({ unreadOnly: true }).next()).done, true);
  assert.equal(await client.markNotificationsRead({ seqs: [last] }), 0);
});

test("workers are listed by what they have", async () => {
  assert.deepEqual(await client.listWorkers({ handler: `none-${randomUUID()}` }), []);
});
