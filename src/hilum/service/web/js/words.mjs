/** What the checks found, in plain words and with what to do; the numbers stay under "Details". */

/** @import { Bundle, Prediction } from "./api.mjs" */
/** @import { ImageRecord } from "./records.mjs" */

/** @typedef {{title: string, advice: string, action?: "correct"}} Explanation */

const NOT_FRONTAL = "Only frontal chest radiographs (PA or AP) are analyzed.";
const EXPORT_AGAIN = "Export the image again, with its window applied.";

/** Why an image was refused, by check. @type {Record<string, [title: string, advice: string]>} */
const REFUSALS = {
  frontal: ["This does not look like a frontal chest radiograph.", NOT_FRONTAL],
  cropped: ["Part of the lungs is cut off.", "Use an image that shows both lungs whole."],
  too_small: ["This image is too small to analyze.", "Use the original image, not a preview."],
  too_dark: ["This image is almost black.", EXPORT_AGAIN],
  too_bright: ["This image is almost white.", EXPORT_AGAIN],
  too_flat: ["This image has hardly any contrast.", EXPORT_AGAIN],
  lungs_found: ["No lungs were found in this image.", NOT_FRONTAL],
  unlike_training: [
    "This image is unlike those that the model was trained on.",
    "Its answer would not be reliable, so none is given.",
  ],
};

/** What to know about an accepted image, by check. @type {Record<string, string>} */
const WARNINGS = {
  declared_modality: "The file is not declared as a radiograph (CR, DX).",
  declared_body_part: "The file declares another body part than the chest.",
  declared_annotation: "The file declares burned-in annotations.",
  mirrored: "The image may be mirrored: left and right may be swapped.",
  annotated: "There may be writing or arrows on the image, which the model may react to.",
  burned_in_color: "The image has colored parts.",
  declared_view: "The file declares another view than PA or AP.",
  lung_least: "The lung outline is unusually small.",
  lung_most: "The lung outline is unusually large.",
  lung_parts: "The lung outline is in several pieces.",
  lung_symmetry: "One lung is outlined much smaller than the other.",
  lung_border: "The lungs reach the edge of the image.",
  far_from_training: "The image differs from those that the model was trained on.",
};

/** What the kinds of images other than frontal radiographs look like. @type {[RegExp, string][]} */
const KINDS = [
  [/^lateral view/, "This looks like a lateral view."],
  [/^not a chest/, "This looks like a radiograph of another body part."],
  [/^CT slice/, "This looks like a CT slice or another modality."],
  [/^collage/, "This looks like a screenshot, or several images in one."],
];

/**
 * Return why a file has no prediction, and what to do.
 *
 * @param {ImageRecord} record
 * @returns {Explanation}
 */
export function explained(record) {
  const { status, problem } = record;
  if (status === "failed") {
    return {
      title: problem?.title ? `${problem.title}.` : "The image was not analyzed.",
      advice: "Retry. If it fails again, the log of the service says why.",
    };
  }
  if (status === "unreadable") {
    return {
      title: "This file cannot be read.",
      advice: (problem?.detail ?? "").replace(/\bimage(\.dcm)?(?= is | has |,|\.|:)/, record.name), // sent without it
    };
  }
  const fix = problem?.orientation_fix;
  if (fix) return { ...turnedWords(fix), action: "correct" };
  const finding = (problem?.findings ?? []).find((found) => found.severity === "error");
  if (!finding) return { title: problem?.detail ?? "The image was refused.", advice: "" };
  if (finding.check === "rotated" || finding.check === "inverted") {
    const isRotated = finding.check === "rotated";
    const { title } = turnedWords({ rotate: isRotated ? 90 : 0, invert: !isRotated });
    return { title, advice: "Other checks fail, too, so that correcting it is not enough: see Details." };
  }
  const kind = KINDS.find(([pattern]) => finding.check === "frontal" && pattern.test(finding.message));
  if (kind) return { title: kind[1], advice: NOT_FRONTAL };
  const [title, advice] = REFUSALS[finding.check] ?? [sentence(finding.message), "The input check refused this image."];
  return { title, advice };
}

/**
 * @param {{rotate: number, invert: boolean}} fix
 * @returns {Explanation}
 */
function turnedWords({ rotate, invert }) {
  const turned = rotate === 180 ? "is upside down" : rotate ? "lies on its side" : "";
  const swapped = invert ? "has black and white swapped" : "";
  return {
    title: `This image ${[turned, swapped].filter(Boolean).join(" and ")}.`,
    advice: "It can be corrected for the analysis; the file is not changed.",
  };
}

/**
 * Return the label of the button that corrects an image.
 *
 * @param {{rotate: number, invert: boolean}} fix
 */
export function correctionLabel({ rotate, invert }) {
  return rotate ? "Rotate and analyze" : invert ? "Invert and analyze" : "Correct and analyze";
}

/**
 * Return what to know about a prediction, in sentences; the uncertainty is said elsewhere.
 *
 * @param {Prediction} prediction
 * @returns {string[]}
 */
export function warnings(prediction) {
  return prediction.findings
    .filter((finding) => finding.check !== "low_confidence")
    .map(({ check, message }) =>
      check === "orientation_fixed" && prediction.orientation_fix
        ? fixedWords(prediction.orientation_fix)
        : (WARNINGS[check] ?? sentence(message)),
    );
}

/** @param {{rotate: number, invert: boolean}} fix */
function fixedWords({ rotate, invert }) {
  const turned = { 90: "rotated by 90° clockwise", 180: "rotated by 180°", 270: "rotated by 90° counterclockwise" };
  const done = [turned[/** @type {90} */ (rotate)], invert && "inverted"].filter(Boolean).join(" and ");
  return `The image was ${done} before it was analyzed.`;
}

/**
 * Return the part of a finding before its numbers, as a sentence.
 *
 * @param {string} message
 */
function sentence(message) {
  const words = message.split(":")[0].trim();
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}

/**
 * Return a probability as text; values near 0 and 1 are not rounded to them.
 *
 * @param {number} probability
 */
export function percent(probability) {
  if (probability > 0 && probability < 0.001) return "< 0.1%";
  if (probability > 0.999 && probability < 1) return "> 99.9%";
  return `${(100 * probability).toFixed(1)}%`;
}

/**
 * Return a class name as words.
 *
 * @param {string} name
 */
export function className(name) {
  return name.replaceAll("_", " ");
}

/** @typedef {Pick<Bundle, "class_names" | "class_thresholds" | "abstention_threshold">} Thresholds */

/**
 * Return the probability from which a prediction is not uncertain; null: never, or always.
 *
 * @param {Prediction} prediction
 * @param {Thresholds} bundle
 */
export function certainFrom(prediction, { class_names: names, class_thresholds: each, abstention_threshold: all }) {
  return each ? each[names.indexOf(prediction.predicted_label)] : all;
}

/**
 * Return what a prediction set says of the other classes; of an uncertain prediction without others, why it is uncertain.
 *
 * @param {Prediction} prediction
 * @param {Thresholds & Pick<Bundle, "has_prediction_sets" | "prediction_set_level"> | null} bundle
 */
export function setSentence(prediction, bundle) {
  if (!bundle?.has_prediction_sets) return "";
  const level = `${Math.round(100 * Number(bundle.prediction_set_level))}%`;
  const others = prediction.prediction_set.filter((name) => name !== prediction.predicted_label).map(className);
  if (others.length) return `Not ruled out at ${level}: ${others.join(", ")}.`;
  if (!prediction.abstained) return `All other classes are ruled out at ${level}.`;
  const threshold = certainFrom(prediction, bundle);
  const label = className(prediction.predicted_label);
  return threshold ? `${label} is certain from ${percent(threshold)}.` : `${label} is always uncertain in this model.`;
}

/**
 * Return one line on an image for the list and for assistive technology.
 *
 * @param {ImageRecord} record
 */
export function summary(record) {
  const { prediction } = record;
  if (record.status === "waiting") return "Waiting";
  if (record.status === "working") return "Analyzing…";
  if (!prediction) return explained(record).title;
  const label = `${className(prediction.predicted_label)} ${percent(prediction.probabilities[prediction.predicted_label])}`;
  return prediction.abstained ? `${label}, uncertain` : label;
}
