import assert from "node:assert/strict";
import { test } from "node:test";

import { Api, ProblemError } from "../../src/hilum/service/web/js/api.mjs";
import { Queue } from "../../src/hilum/service/web/js/queue.mjs";
import { initialState, removed } from "../../src/hilum/service/web/js/records.mjs";
import { createStore } from "../../src/hilum/service/web/js/store.mjs";
import { atOnce, record, records } from "./building.mjs";

const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

/** @param {number} count */
function storeOf(count) {
  const all = Array.from({ length: count }, (_, number) => record(`r${number}`));
  return createStore({ ...initialState(), records: records(...all) }, atOnce);
}

/** @param {ReturnType<typeof storeOf>} store */
const statuses = (store) => [...store.get().records.values()].map((one) => one.status);

test("a few requests run at a time, until all are done", async () => {
  const store = storeOf(9);
  let [running, most] = [0, 0];
  const queue = new Queue(
    store,
    async () => {
      running += 1;
      most = Math.max(most, running);
      await tick();
      running -= 1;
      return { status: "ok" };
    },
    { parallel: 3 },
  );
  queue.run();
  while (statuses(store).some((status) => status !== "ok")) await tick();
  assert.equal(most, 3);
});

test("a pause starts no further request; those under way are answered", async () => {
  const store = storeOf(4);
  const queue = new Queue(store, async () => (await tick(), { status: "ok" }), { parallel: 2 });
  queue.run();
  queue.pause();
  for (let turn = 0; turn < 5; turn += 1) await tick();
  assert.deepEqual(statuses(store), ["ok", "ok", "waiting", "waiting"]);
  queue.resume();
  for (let turn = 0; turn < 5; turn += 1) await tick();
  assert.deepEqual(statuses(store), ["ok", "ok", "ok", "ok"]);
});

test("a service that is busy is asked again after the time that it says", async () => {
  const store = storeOf(1);
  /** @type {number[]} */
  const slept = [];
  let asked = 0;
  const queue = new Queue(
    store,
    async () => {
      asked += 1;
      if (asked < 5) throw new ProblemError({ type: "busy", title: "busy", status: 429 }, 7);
      return { status: "ok" };
    },
    { sleep: async (milliseconds) => void slept.push(milliseconds) },
  );
  queue.run();
  for (let turn = 0; turn < 10; turn += 1) await tick();
  assert.deepEqual(slept, [7000, 7000, 7000, 7000]);
  assert.deepEqual(statuses(store), ["ok"]);
});

test("a request that breaks off is tried three times; a person can retry", async () => {
  const store = storeOf(2);
  let [works, asked] = [false, 0];
  const queue = new Queue(
    store,
    async () => {
      asked += 1;
      if (!works) throw new TypeError("Failed to fetch");
      return { status: "ok" };
    },
    { sleep: async () => undefined },
  );
  queue.run();
  for (let turn = 0; turn < 10; turn += 1) await tick();
  assert.deepEqual(statuses(store), ["failed", "failed"]);
  assert.equal(asked, 6);
  works = true;
  queue.retry();
  for (let turn = 0; turn < 10; turn += 1) await tick();
  assert.deepEqual(statuses(store), ["ok", "ok"]);
});

test("while the service is away nothing fails, and all goes on when it is back", async () => {
  const store = storeOf(3);
  let [asked, questions] = [0, 0];
  /** @type {boolean[]} */
  const told = [];
  /** @type {number[]} */
  const slept = [];
  store.subscribe((state) => void told.push(state.unreachable));
  const queue = new Queue(
    store,
    async () => {
      asked += 1;
      if (questions < 6) throw new TypeError("Failed to fetch");
      return { status: "ok" };
    },
    {
      parallel: 2,
      sleep: async (milliseconds) => void slept.push(milliseconds),
      isReachable: async () => (questions += 1) >= 6,
    },
  );
  queue.run();
  for (let turn = 0; turn < 10; turn += 1) await tick();
  assert.deepEqual(statuses(store), ["ok", "ok", "ok"]);
  assert.equal(asked, 5); // two broke off and were sent again, together
  assert.deepEqual(slept, [1000, 2000, 4000, 8000, 8000, 8000]);
  assert.ok(told.includes(true));
  assert.equal(store.get().unreachable, false);
});

test("a file that the browser can no longer read is not taken for an outage", async () => {
  const store = storeOf(1);
  const queue = new Queue(store, () => Promise.reject(new DOMException("gone", "NotReadableError")));
  queue.run();
  await tick();
  assert.deepEqual(statuses(store), ["unreadable"]);
});

test("without a token the queue pauses and asks for it once", async () => {
  const store = storeOf(3);
  let asked = 0;
  const unauthorized = new ProblemError({ type: "urn:hilum:problem:unauthorized", title: "", status: 401 }, 0);
  const work = () => Promise.reject(unauthorized);
  const queue = new Queue(store, work, { parallel: 1, onUnauthorized: () => (asked += 1) });
  queue.run();
  for (let turn = 0; turn < 5; turn += 1) await tick();
  assert.deepEqual(statuses(store), ["waiting", "waiting", "waiting"]);
  assert.equal(asked, 1);
  assert.equal(store.get().paused, true);
});

test("an image that was removed meanwhile stays away", async () => {
  const store = storeOf(1);
  const queue = new Queue(store, async () => (await tick(), { status: "ok" }));
  queue.run();
  store.set((state) => removed(state, ["r0"]));
  for (let turn = 0; turn < 3; turn += 1) await tick();
  assert.equal(store.get().records.size, 0);
});

test("the service is called as any client does, with its problems as errors", async () => {
  /** @type {[RequestInfo | URL, RequestInit | undefined][]} */
  const calls = [];
  /** @type {Response[]} */
  const answers = [
    Response.json({ results: [{ prediction: { predicted_label: "Normal" } }] }),
    Response.json(
      { type: "urn:hilum:problem:refused", title: "t", status: 422, detail: "d" },
      { status: 422, headers: { "Content-Type": "application/problem+json" } },
    ),
    new Response("", { status: 503, headers: { "Retry-After": "4" } }),
  ];
  const api = new Api(async (input, init) => {
    calls.push([input, init]);
    return /** @type {Response} */ (answers.shift());
  });
  api.token = "secret";
  const found = await api.predict("x", "application/dicom", true);
  assert.equal(found.predicted_label, "Normal");
  assert.equal(calls[0][0], "v1/predict?include=rle&include=cells&include=thumbnail&fix_orientation=true");
  const headers = /** @type {Headers} */ (calls[0][1]?.headers);
  assert.equal(headers.get("Content-Type"), "application/dicom");
  assert.equal(headers.get("Authorization"), "Bearer secret");
  await assert.rejects(
    api.predict("x", "image/png", false),
    (/** @type {ProblemError} */ error) => error.verdict === "refused",
  );
  await assert.rejects(api.predict("x", "image/png", false), (/** @type {ProblemError} */ error) => {
    return error.retryAfter === 4 && error.verdict === null;
  });
});
