/** One row of the list of images. */

import { element } from "./dom.mjs";
import { isUncertain } from "./records.mjs";
import { className, explained, percent, summary } from "./words.mjs";

/** @import { Prediction } from "./api.mjs" */
/** @import { ImageRecord } from "./records.mjs" */

const MARKS = { agree: "✓", other: "✎", not_assessable: "–", "": "…" }; // of a review

/**
 * Return the row of an image.
 *
 * @param {ImageRecord} record
 * @param {() => void} select
 */
export function rowOf(record, select) {
  const { review } = record;
  const picture = record.thumbnail
    ? element("img", { src: record.thumbnail, alt: "", width: 56, height: 56 })
    : element("span", { class: "none" });
  const mark = review && element("span", { class: "mark", title: "Reviewed" }, MARKS[review.decision]);
  return element(
    "div",
    {
      class: `item ${record.status}`,
      role: "option",
      id: `row-${record.key}`,
      "data-key": record.key,
      "aria-label": `${summary(record)}, ${record.name}${review ? ", reviewed" : ""}`,
      onclick: select,
    },
    element("span", { class: "picture" }, picture, mark),
    element("div", { class: "text" }, ...(record.prediction ? answer(record, record.prediction) : reason(record))),
  );
}

/**
 * @param {ImageRecord} record
 * @param {Prediction} prediction
 */
function answer(record, prediction) {
  const probability = prediction.probabilities[prediction.predicted_label];
  const fill = element("i");
  fill.style.width = `${100 * probability}%`;
  return [
    element(
      "div",
      { class: "line" },
      element("b", {}, className(prediction.predicted_label)),
      element("span", { class: "number" }, percent(probability)),
    ),
    element("div", { class: "meter" }, fill),
    element(
      "div",
      { class: "line small" },
      isUncertain(record) && element("span", { class: "tag uncertain" }, "Uncertain"),
      element("span", { class: "name", title: record.path }, record.name),
    ),
  ];
}

/** @param {ImageRecord} record */
function reason(record) {
  const isOpen = record.status === "waiting" || record.status === "working";
  return [
    element(
      "div",
      { class: isOpen ? "reason muted" : "reason refused" },
      isOpen ? summary(record) : explained(record).title,
    ),
    element("div", { class: "line small" }, element("span", { class: "name", title: record.path }, record.name)),
  ];
}
