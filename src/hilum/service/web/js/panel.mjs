/** The answer on the selected image, and its review. */

import { button, element } from "./dom.mjs";
import { BANDS, LEVELS, OPACITY } from "./evidence.mjs";
import { pictureOf } from "./pane.mjs";
import { selectedRecord } from "./records.mjs";
import { ReviewPanel } from "./review_panel.mjs";
import {
  certainFrom,
  className,
  correctionLabel,
  explained,
  percent,
  setSentence,
  summary,
  warnings,
} from "./words.mjs";

/** @import { App } from "./app.mjs" */
/** @import { Finding, Prediction } from "./api.mjs" */
/** @import { ImageRecord, State } from "./records.mjs" */

export class Panel {
  /**
   * @param {App} app
   * @param {HTMLElement} root
   */
  constructor(app, root) {
    this.app = app;
    this.root = root;
    this.answer = element("div", { class: "answer" });
    /** @type {unknown[]} */
    this.drawn = [];
    this.review = new ReviewPanel(app);
    root.append(this.answer, this.review.root);
  }

  /** @param {State} state */
  draw(state) {
    const record = selectedRecord(state);
    this.root.dataset.key = record?.key ?? "";
    const parts = [
      record?.key,
      record?.status,
      record?.prediction,
      record?.problem,
      record?.dicom,
      record?.review?.outline,
      state.evidenceClass,
      state.bundle,
    ];
    if (parts.some((part, place) => part !== this.drawn[place])) {
      this.drawn = parts;
      const open = this.answer.querySelector("details")?.open ?? false;
      this.answer.replaceChildren(...(record ? this.answered(state, record) : []));
      const details = this.answer.querySelector("details");
      if (details) details.open = open;
    }
    this.review.draw(state, record);
  }

  /**
   * @param {State} state
   * @param {ImageRecord} record
   */
  answered(state, record) {
    const { prediction } = record;
    if (prediction && record.status === "ok") return this.predicted(state, record, prediction);
    if (record.status === "waiting" || record.status === "working")
      return [element("h2", { class: "muted" }, summary(record))];
    const { title, advice, action } = explained(record);
    const fix = record.problem?.orientation_fix;
    const heading =
      record.status === "refused" ? "Not analyzed" : record.status === "unreadable" ? "Cannot be read" : "No answer";
    return [
      element("p", { class: "tag refused" }, heading),
      element("h2", {}, title),
      element("p", {}, advice),
      action === "correct" &&
        fix &&
        button(correctionLabel(fix), () => this.app.correct(), {
          class: "primary",
        }),
      record.status === "failed" && button("Retry", () => this.app.queue.retry(), { class: "primary" }),
      details(facts(record, state)),
    ].filter((part) => part instanceof HTMLElement);
  }

  /**
   * @param {State} state
   * @param {ImageRecord} record
   * @param {Prediction} prediction
   */
  predicted(state, record, prediction) {
    const label = prediction.predicted_label;
    const told = warnings(prediction);
    const zones = prediction.evidence_summary;
    return [
      element(
        "div",
        { class: "verdict" },
        element("h2", {}, className(label)),
        element("span", { class: "probability" }, percent(prediction.probabilities[label])),
      ),
      prediction.abstained &&
        element("p", { class: "uncertain" }, element("b", {}, "Uncertain"), ": a person should decide"),
      element("p", { class: "muted" }, setSentence(prediction, state.bundle)),
      this.bars(state, prediction),
      zones && element("p", { class: "zones" }, `${className(zones)}.`),
      this.legend(state, record, prediction),
      told.length > 0 && element("ul", { class: "warnings" }, ...told.map((text) => element("li", {}, text))),
      details(facts(record, state)),
    ].filter((part) => part instanceof HTMLElement);
  }

  /**
   * @param {State} state
   * @param {Prediction} prediction
   */
  bars(state, prediction) {
    const shown = state.evidenceClass ?? prediction.predicted_label;
    const rows = Object.entries(prediction.probabilities).map(([name, probability]) => {
      const fill = element("i", {
        class: name === prediction.predicted_label ? "chosen" : "",
      });
      fill.style.width = `${100 * probability}%`;
      return element(
        "button",
        {
          type: "button",
          "aria-pressed": String(name === shown),
          disabled: !prediction.evidence,
          title: `Show the evidence for ${className(name)}`,
          onclick: () => this.app.store.set({ evidenceClass: name }),
        },
        element("span", { class: "who" }, className(name)),
        element("span", { class: "number" }, percent(probability)),
        element("span", { class: "meter" }, fill),
      );
    });
    return element("div", { class: "classes" }, ...rows);
  }

  /**
   * @param {State} state
   * @param {ImageRecord} record
   * @param {Prediction} prediction
   */
  legend(state, record, prediction) {
    const name = state.evidenceClass ?? prediction.predicted_label;
    const picture = pictureOf(prediction, name);
    const corrected = record.review?.outline === "corrected";
    const parts = [key(corrected ? "line corrected" : "line", corrected ? "lung outline, corrected" : "lung outline")];
    if (!picture) parts.push(element("span", { class: "muted" }, "This model gives no evidence."));
    else if (!picture.grid)
      parts.push(element("span", { class: "muted" }, `Too little evidence for ${className(name)} to draw.`));
    else {
      const scale = element("span", {
        class: "scale",
        role: "img",
        "aria-label": "from weaker to stronger",
      });
      BANDS.forEach((color, band) => {
        const swatch = element("i", {});
        swatch.style.background = `rgba(${color.join(",")},${OPACITY[band] + 0.45})`;
        scale.append(swatch);
      });
      parts.push(element("span", { class: "key" }, scale, `evidence for ${className(name)}, weaker to stronger`));
    }
    return element("div", { class: "legend" }, ...parts);
  }
}

/**
 * @param {string} kind
 * @param {string} text
 */
function key(kind, text) {
  return element("span", { class: "key" }, element("i", { class: kind }), text);
}

/** @param {[string, string][]} rows */
function details(rows) {
  const list = rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  return element("details", {}, element("summary", {}, "Details"), element("dl", {}, ...list));
}

/**
 * The numbers behind an answer.
 *
 * @param {ImageRecord} record
 * @param {State} state
 * @returns {[string, string][]}
 */
function facts(record, state) {
  const { prediction, problem, dicom } = record;
  /** @type {[string, string][]} */
  const rows = [["File", record.path]];
  if (prediction) {
    const { bundle } = state;
    rows.push(["Size", `${prediction.width} × ${prediction.height} px`]);
    rows.push(["Lung", `${percent(prediction.lung_fraction)} of the image`]);
    if (bundle?.has_prediction_sets)
      rows.push([
        `Prediction set, ${Math.round(100 * Number(bundle.prediction_set_level))}%`,
        prediction.prediction_set.map(className).join(", "),
      ]);
    const threshold = bundle && certainFrom(prediction, bundle);
    if (threshold) rows.push(["Certain from", percent(threshold)]);
    const picture = pictureOf(prediction, state.evidenceClass ?? prediction.predicted_label);
    if (picture) {
      rows.push([
        "Evidence, logits",
        `${picture.favor.toFixed(2)} in favor, ${Math.abs(picture.against).toFixed(2)} against`,
      ]);
      if (picture.grid)
        rows.push([
          "Colors from, logits per cell",
          [...LEVELS, 1].map((share) => (share * picture.peak).toFixed(2)).join(", "),
        ]);
    }
  }
  if (dicom?.spacing) rows.push([dicom.spacing.element, `${dicom.spacing.spacing.join(" × ")} mm`]);
  for (const finding of /** @type {Finding[]} */ (prediction?.findings ?? problem?.findings ?? []))
    rows.push([`Check: ${finding.check}`, finding.message]);
  if (problem && !problem.findings?.length && problem.detail) rows.push(["Problem", problem.detail]);
  if (problem?.request_id) rows.push(["Request", problem.request_id]);
  if (record.hash) rows.push(["SHA-256", record.hash]);
  if (state.bundle) rows.push(["Bundle", state.bundle.bundle_id.slice(0, 16)]);
  return rows;
}
