import assert from "node:assert/strict";
import { test } from "node:test";

import { firstSentences, sections } from "../../src/hilum/service/web/js/markdown.mjs";
import * as words from "../../src/hilum/service/web/js/words.mjs";
import { prediction, record } from "./building.mjs";

/** @param {object} problem */
const refused = (problem) =>
  words.explained(record("a", { status: "refused", problem: { type: "", title: "", status: 422, ...problem } }));

/** @param {string} check @param {string} [message] */
const finding = (check, message = `${check}: 1, expected 2`) => ({
  check,
  severity: /** @type {const} */ ("error"),
  message,
});

test("a refusal is a sentence without numbers, with what to do", () => {
  for (const check of ["frontal", "cropped", "too_small", "lungs_found", "unlike_training", "something_new"]) {
    const { title, advice } = refused({ findings: [finding(check)] });
    assert.match(title, /^[A-Z].*\.$/, check);
    assert.doesNotMatch(title, /\d/, check);
    assert.ok(advice, check);
  }
  const lateral = refused({
    findings: [finding("frontal", "lateral view: probability 0.0004, expected at least 0.5")],
  });
  assert.notEqual(lateral.title, refused({ findings: [finding("frontal", "not a radiograph: 0.1")] }).title);
});

test("what can be corrected is offered, what cannot is not", () => {
  const sideways = refused({ findings: [finding("rotated")], orientation_fix: { rotate: 270, invert: false } });
  assert.equal(sideways.action, "correct");
  assert.equal(words.correctionLabel({ rotate: 270, invert: false }), "Rotate and analyze");
  assert.equal(words.correctionLabel({ rotate: 0, invert: true }), "Invert and analyze");
  const both = refused({ findings: [finding("rotated"), finding("cropped")] });
  assert.equal(both.action, undefined);
  assert.notEqual(both.advice, sideways.advice);
  assert.notEqual(
    refused({ orientation_fix: { rotate: 180, invert: false } }).title,
    refused({ orientation_fix: { rotate: 90, invert: false } }).title,
  );
});

test("an uncertain answer says so, in the list too", () => {
  assert.equal(words.summary(record("a", { status: "ok", prediction: prediction() })), "Normal 90.0%");
  assert.match(words.summary(record("a", { status: "ok", prediction: prediction({ abstained: true }) })), /uncertain/);
});

test("warnings are sentences; a low confidence is not repeated", () => {
  const told = words.warnings(
    prediction({ findings: [finding("low_confidence"), finding("mirrored"), finding("new_check", "new thing: 5")] }),
  );
  assert.equal(told.length, 2);
  assert.equal(told[1], "New thing.");
});

test("a correction of the orientation is named", () => {
  /** @param {import("../../src/hilum/service/web/js/api.mjs").Orientation} fix */
  const told = (fix) =>
    words.warnings(prediction({ findings: [finding("orientation_fixed")], orientation_fix: fix }))[0];
  const all = [
    told({ rotate: 90, invert: false }),
    told({ rotate: 270, invert: false }),
    told({ rotate: 180, invert: false }),
    told({ rotate: 0, invert: true }),
    told({ rotate: 270, invert: true }),
  ];
  assert.equal(new Set(all).size, 5);
  assert.match(all[4], /counterclockwise and inverted/);
});

test("a file that cannot be read is named as in the list, not as it was sent", () => {
  const problem = { type: "", title: "", status: 422, detail: "image is not a PNG." };
  assert.equal(words.explained(record("a", { status: "unreadable", problem })).advice, "a.png is not a PNG.");
});

test("probabilities near 0 and 1 are not rounded to them", () => {
  assert.deepEqual([0, 0.0001, 0.5, 0.9999, 1].map(words.percent), ["0.0%", "< 0.1%", "50.0%", "> 99.9%", "100.0%"]);
});

test("what a prediction set rules out", () => {
  const bundle = {
    has_prediction_sets: true,
    prediction_set_level: "0.9",
    class_names: ["COVID", "Normal"],
    class_thresholds: [null, 0.953],
    abstention_threshold: 0.9,
  };
  assert.match(words.setSentence(prediction(), bundle), /ruled out at 90%/);
  assert.match(words.setSentence(prediction({ prediction_set: ["Normal", "Lung_Opacity"] }), bundle), /Lung Opacity/);
  const uncertain = prediction({ abstained: true });
  assert.match(words.setSentence(uncertain, bundle), /95\.3%/); // not: all others are ruled out
  assert.match(words.setSentence(uncertain, { ...bundle, class_thresholds: null }), /90\.0%/);
  assert.match(
    words.setSentence({ ...uncertain, predicted_label: "COVID", prediction_set: ["COVID"] }, bundle),
    /always/,
  );
  assert.equal(words.setSentence(prediction(), { ...bundle, has_prediction_sets: false }), "");
});

test("the parts and first sentences of a model card", () => {
  const card =
    "# Card\n\nIt is one. It has two.\n\n## Use\n\n- For *research*.\n- More.\n\n## Data\n\n18,220 images. Others.\n";
  const parts = new Map(sections(card).map((part) => [part.title, part.text]));
  assert.deepEqual([...parts.keys()], ["", "Use", "Data"]);
  assert.equal(firstSentences(parts.get("Data") ?? "", 1), "18,220 images.");
  assert.equal(firstSentences("Of [it](x.md) **v1.2** is `a`. B.", 1), "Of it v1.2 is a.");
});
