import assert from "node:assert/strict";
import { test } from "node:test";

import * as state from "../../src/hilum/service/web/js/records.mjs";
import { createStore } from "../../src/hilum/service/web/js/store.mjs";
import { atOnce, prediction, record, records } from "./building.mjs";

test("a store tells its listeners once, with the newest state", () => {
  /** @type {(() => void)[]} */
  const scheduled = [];
  const store = createStore({ a: 1, b: 1 }, (run) => scheduled.push(run));
  /** @type {object[]} */
  const seen = [];
  const end = store.subscribe((now) => seen.push(now));
  store.set({ a: 2 });
  store.set((now) => ({ b: now.a + 1 }));
  assert.equal(scheduled.length, 1);
  scheduled[0]();
  assert.deepEqual(seen, [{ a: 2, b: 3 }]);
  end();
  store.set({ a: 4 });
  scheduled[1]();
  assert.equal(seen.length, 1);
  assert.throws(() => Object.assign(store.get(), { a: 5 }), TypeError);
});

test("changing a record leaves the others and the old state as they are", () => {
  const before = { ...state.initialState(), records: records(record("a"), record("b")) };
  const after = { ...before, ...state.changed(before, "a", { status: "ok" }) };
  assert.equal(after.records.get("a")?.status, "ok");
  assert.equal(before.records.get("a")?.status, "waiting");
  assert.equal(after.records.get("b"), before.records.get("b"));
  assert.deepEqual(state.changed(before, "gone", { status: "ok" }), {});
});

const sure = record("sure", { status: "ok", prediction: prediction() });
const unsure = record("unsure", {
  status: "ok",
  prediction: prediction({ predicted_label: "COVID", probabilities: { COVID: 0.6, Normal: 0.4 }, abstained: true }),
});
const refused = record("refused", { status: "refused" });
const waiting = record("waiting");
const four = { ...state.initialState(), records: records(waiting, unsure, refused, sure) };

test("filters and orders", () => {
  assert.deepEqual(state.counts(four), { all: 4, ok: 1, uncertain: 1, refused: 1, open: 4, reviewed: 0 });
  /** @type {(changes: object) => string[]} */
  const keys = (changes) => state.listed({ ...four, ...changes }).map((one) => one.key);
  assert.deepEqual(keys({}), ["waiting", "unsure", "refused", "sure"]);
  assert.deepEqual(keys({ filter: "uncertain" }), ["unsure"]);
  assert.deepEqual(keys({ order: "surest" }).slice(0, 2), ["sure", "unsure"]);
  assert.deepEqual(keys({ order: "least" }).slice(0, 2), ["unsure", "sure"]);
  assert.deepEqual(keys({ order: "class" }).slice(0, 2), ["unsure", "sure"]);
  const ten = records(record("image-10"), record("image-9"));
  assert.deepEqual(keys({ order: "name", records: ten }), ["image-9", "image-10"]);
});

test("stepping stays in the list and resets the view, unless two are compared", () => {
  const start = { ...four, selected: "unsure", view: { zoom: 3, x: 0, y: 0 }, evidenceClass: "COVID" };
  const next = { ...start, ...state.stepped(start, 1) };
  assert.equal(next.selected, "refused");
  assert.equal(next.view, state.WHOLE);
  assert.equal(next.evidenceClass, null);
  assert.equal({ ...start, ...state.stepped(start, 99) }.selected, "sure");
  assert.equal({ ...start, ...state.stepped(start, -99) }.selected, "waiting");
  const compared = { ...start, compared: "sure" };
  assert.equal({ ...compared, ...state.stepped(compared, 1) }.view.zoom, 3);
});

test("removing selects the neighbor and forgets what was decoded", () => {
  const start = { ...four, selected: "unsure", compared: "unsure", images: new Map([["unsure", "x"]]) };
  const after = { ...start, ...state.removed(start, ["unsure"]) };
  assert.equal(after.selected, "refused");
  assert.equal(after.compared, null);
  assert.equal(after.images.size, 0);
  const last = { ...four, selected: "sure" };
  assert.equal({ ...last, ...state.removed(last, ["sure"]) }.selected, "refused");
  const all = { ...start, ...state.removed(start, ["waiting", "unsure", "refused", "sure"]) };
  assert.equal(all.selected, null);
  assert.equal(createStore(all, atOnce).get().records.size, 0);
});
