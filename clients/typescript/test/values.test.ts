import assert from "node:assert/strict";
import { test } from "node:test";

import { definition, DefinitionError, fromValue, PayloadError } from "flowkeep-client";
import { Ordering, Step_OnError } from "flowkeep-client/v1";

import { toDuration } from "../src/durations.js";
import { toStruct } from "../src/payload.js";

test("spans of time are read exactly", () => {
  const found = ["90s", "1h30m", "7d", "PT5M", "0.1s", "250ms", 0.1, 2].map((span) => {
    const { seconds, nanos } = toDuration(span);
    return [Number(seconds), nanos];
  });
  const tenth = [0, 100_000_000];
  assert.deepEqual(found, [[90, 0], [5400, 0], [604_800, 0], [300, 0], tenth, [0, 250_000_000], tenth, [2, 0]]);
});

test("what is no span is told what would be right", () => {
  assert.throws(() => toDuration("90"), /lacks a unit: write '90s'/);
  assert.throws(() => toDuration("soon"), /must be a span of time such as '90s'/);
  assert.throws(() => toDuration(-1), /must be between 0 and 10,000 years/);
});

test("payloads hold what JSON holds", () => {
  const when = new Date("2026-11-21T08:00:00Z");
  const input = { when, n: 7n, zero: -0, missing: undefined, list: [null, { a: "ä" }], ["__proto__"]: 1 };
  assert.equal(
    JSON.stringify(toStruct(input)),
    '{"when":"2026-11-21T08:00:00.000Z","n":7,"zero":0,"list":[null,{"a":"ä"}],"__proto__":1}',
  );
});

test("what payloads cannot hold is refused with its place", () => {
  for (const [value, place] of [
    [{ a: [1, NaN] }, "input.a[1]"],
    [{ "a b": 2 ** 53 + 2 }, 'input["a b"]'],
    [{ a: 2n ** 53n + 1n }, "input.a"],
    [{ a: "\ud800" }, "input.a"],
    [{ a: "\0" }, "input.a"],
    [{ a: new Map() }, "input.a"],
    [{ a: () => 1 }, "input.a"],
    [[1], "input"],
  ] as const) {
    assert.throws(
      () => toStruct(value, "input"),
      (error) => error instanceof PayloadError && error.path === place,
    );
  }
  const cyclic: Record<string, unknown> = {};
  cyclic["again"] = cyclic;
  assert.throws(() => toStruct(cyclic), /must not be nested more than 32 deep, or contain itself/);
});

test("a definition is read as people write it", () => {
  const found = definition({
    name: "review",
    ordering: "graph",
    timeout: "1h",
    input_schema: { type: "object" },
    steps: [
      { id: "page", handler: "call_api", params: { url: "${ input.url }" }, on_error: "CONTINUE" },
      { id: "each", for_each: { items: "[1, 2]", steps: [{ id: "one", handler: "wait" }] }, depends_on: ["page"] },
    ],
    output: null,
  });
  const [page, each] = found.steps;
  assert.equal(found.ordering, Ordering.GRAPH);
  assert.equal(found.timeout?.seconds, 3600n);
  assert.deepEqual(found.inputSchema, { type: "object" });
  assert.deepEqual([page?.onError, page?.params], [Step_OnError.CONTINUE, { url: "${ input.url }" }]);
  assert.equal(each?.action.case, "forEach");
  assert.equal(fromValue(found.output), null);
});

test("a definition that is none is told everything at once", () => {
  const wrong = { name: 7, ordering: "SIDEWAYS", timeout: "soon", steps: [{ id: "a", tool: "x", params: [] }, 3] };
  assert.throws(
    () => definition(wrong),
    (error) => {
      assert.ok(error instanceof DefinitionError);
      const fields = error.violations.map((each) => each.field);
      assert.deepEqual(fields, ["name", "ordering", "timeout", "steps[0].tool", "steps[0].params", "steps[1]"]);
      return true;
    },
  );
});
