/** A person's review of an image, kept by content, and its export in the layout of docs/prepare_data.md. */

import { table } from "./csv.mjs";
import { correctedMask, decodeRuns, encodeRuns } from "./mask.mjs";
import { maskPng } from "./png.mjs";

/** @import { ImageRecord } from "./records.mjs" */
/** @import { MaskGrid } from "./mask.mjs" */
/** @import { Entry } from "./zip.mjs" */

/**
 * @typedef {object} Review
 * @property {"agree" | "other" | "not_assessable" | ""} decision
 * @property {string} label The class, for `agree` and `other`.
 * @property {string} note
 * @property {"accepted" | "corrected" | ""} outline Whether a person has looked at the lung outline.
 * @property {MaskGrid | null} grid The corrected outline.
 */

/** @type {Review} */
export const NO_REVIEW = Object.freeze({
  decision: "",
  label: "",
  note: "",
  outline: "",
  grid: null,
});

const PREFIX = "hilum-review:";
export const TABLE = "review.csv";
const MASKS = "review-masks";
const IMAGES = "review-images";
const COLUMNS = ["image", "mask", "label", "decision", "predicted_label", "probability", "outline", "note", "sha256"];

/**
 * Return a review with some changes, or null if nothing is left of it.
 *
 * @param {Review | null} review
 * @param {Partial<Review>} changes
 * @returns {Review | null}
 */
export function revised(review, changes) {
  const next = { ...(review ?? NO_REVIEW), ...changes };
  if (next.outline !== "corrected") next.grid = null;
  return next.decision || next.note || next.outline ? Object.freeze(next) : null;
}

/**
 * Keep a review in the browser, by the SHA-256 of the image: no pixels, no name.
 *
 * @param {Storage} storage
 * @param {string} hash
 * @param {Review | null} review
 */
export function keepReview(storage, hash, review) {
  if (!hash) return;
  if (!review) {
    storage.removeItem(PREFIX + hash);
    return;
  }
  const { grid, ...rest } = review;
  const runs = grid && {
    ...grid,
    values: encodeRuns(grid.values, grid.width, grid.height),
  };
  storage.setItem(PREFIX + hash, JSON.stringify({ ...rest, grid: runs }));
}

/**
 * Return the review that was kept of an image, or null.
 *
 * @param {Storage} storage
 * @param {string} hash
 * @returns {Review | null}
 */
export function keptReview(storage, hash) {
  const text = hash ? storage.getItem(PREFIX + hash) : null;
  if (!text) return null;
  try {
    const { grid, ...rest } = JSON.parse(text);
    const values = grid && decodeRuns({ size: [grid.height, grid.width], counts: grid.values });
    return Object.freeze({
      ...NO_REVIEW,
      ...rest,
      grid: grid && { ...grid, values },
    });
  } catch {
    return null; // written by another version
  }
}

/**
 * Forget the reviews that are kept in the browser.
 *
 * @param {Storage} storage
 */
export function forgetReviews(storage) {
  const keys = Array.from({ length: storage.length }, (_, place) => storage.key(place));
  for (const key of keys) if (key?.startsWith(PREFIX)) storage.removeItem(key);
}

/**
 * Return the mask that a person accepted or corrected, 0 or 1 by rows; null if the outline was not looked at.
 *
 * @param {ImageRecord} record
 * @returns {Uint8Array | null}
 */
export function reviewedMask({ prediction, review }) {
  const runs = prediction?.mask_rle;
  if (!runs || !review?.outline) return null;
  return review.grid ? correctedMask(runs, review.grid) : decodeRuns(runs);
}

/**
 * Yield the files of an export: masks, images if wanted, and the table last. Masks are those that a person accepted or
 * corrected; the model's own are no truth. Unzipped into the folder of the images, the table is a dataset of hilum.
 *
 * @param {readonly ImageRecord[]} records
 * @param {boolean} withImages
 * @returns {AsyncGenerator<Entry>}
 */
export async function* reviewFiles(records, withImages) {
  /** @type {unknown[][]} */
  const rows = [COLUMNS];
  const names = distinct(records.map((record) => record.path));
  for (const [place, record] of records.entries()) {
    const { review, prediction } = record;
    if (!review) continue;
    let maskName = "";
    const mask = reviewedMask(record);
    if (mask && prediction) {
      maskName = `${MASKS}/${names[place].replace(/\.[^./]*$/, "")}.png`;
      yield {
        name: maskName,
        content: await maskPng(mask, prediction.width, prediction.height),
      };
    }
    const imageName = withImages ? `${IMAGES}/${names[place]}` : record.path;
    if (withImages) yield { name: imageName, content: record.file };
    const label = review.decision === "agree" || review.decision === "other" ? review.label : "";
    const predicted = prediction?.predicted_label ?? "";
    const probability = prediction ? prediction.probabilities[predicted].toFixed(6) : "";
    rows.push([
      imageName,
      maskName,
      label,
      review.decision,
      predicted,
      probability,
      review.outline,
      review.note,
      record.hash,
    ]);
  }
  yield { name: TABLE, content: new TextEncoder().encode(table(rows)) };
}

/**
 * Return paths whose names without suffix differ, for files with one suffix.
 *
 * @param {readonly string[]} paths
 */
export function distinct(paths) {
  const taken = new Set();
  return paths.map((path) => {
    const [, stem, suffix] = /** @type {RegExpMatchArray} */ (path.match(/^(.*?)(\.[^./]*)?$/s));
    let name = stem;
    for (let number = 2; taken.has(name); number += 1) name = `${stem} (${number})`;
    taken.add(name);
    return name + (suffix ?? "");
  });
}

/**
 * Return how many reviews there are by decision.
 *
 * @param {Iterable<ImageRecord>} records
 */
export function reviewCounts(records) {
  const found = { agree: 0, other: 0, not_assessable: 0, outlines: 0, all: 0 };
  for (const { review } of records) {
    if (!review) continue;
    found.all += 1;
    if (review.decision) found[review.decision] += 1;
    if (review.outline) found.outlines += 1;
  }
  return found;
}
