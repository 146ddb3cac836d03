/** Tables and masks of the predictions, as `hilum predict` writes them. */

import { table } from "./csv.mjs";
import { decodeRuns } from "./mask.mjs";
import { maskPng } from "./png.mjs";
import { distinct } from "./review.mjs";

/** @import { Api } from "./api.mjs" */
/** @import { ImageRecord } from "./records.mjs" */
/** @import { Entry } from "./zip.mjs" */

const PARALLEL = 4; // requests at a time

/**
 * Return predictions.csv.
 *
 * @param {readonly ImageRecord[]} records
 * @param {readonly string[]} classNames
 */
export function predictionsCsv(records, classNames) {
  const header = ["file", "status", "predicted_label", "prediction_set", "abstained"];
  const rows = [[...header, ...classNames.map((name) => `prob_${name}`), "lung_fraction", "reason"]];
  for (const { path, status, prediction, problem } of records) {
    if (!["ok", "refused", "unreadable"].includes(status)) continue;
    const reason = (prediction?.findings ?? problem?.findings ?? []).map((finding) => finding.message).join("; ");
    if (prediction) {
      const probabilities = classNames.map((name) => prediction.probabilities[name].toFixed(6));
      const answer = [
        prediction.predicted_label,
        prediction.prediction_set.join(";"),
        String(Number(prediction.abstained)),
      ];
      rows.push([path, status, ...answer, ...probabilities, prediction.lung_fraction.toFixed(4), reason]);
    } else rows.push([path, status, "", "", "", ...classNames.map(() => ""), "", reason || (problem?.detail ?? "")]);
  }
  return table(rows);
}

/**
 * Return the PNG of the predicted lung mask.
 *
 * @param {ImageRecord} record
 */
export async function predictedMaskPng({ prediction }) {
  if (!prediction?.mask_rle) throw new Error("no mask");
  return maskPng(decodeRuns(prediction.mask_rle), prediction.width, prediction.height);
}

/**
 * Yield the files of all predictions: overlays from the service, masks, and the table.
 *
 * @param {readonly ImageRecord[]} records
 * @param {readonly string[]} classNames
 * @param {Api} api
 * @param {(record: ImageRecord) => string} typeOf Media type of a record's file.
 * @param {(done: number, all: number) => void} progress
 * @returns {AsyncGenerator<Entry>}
 */
export async function* predictionFiles(records, classNames, api, typeOf, progress) {
  yield {
    name: "predictions.csv",
    content: new TextEncoder().encode(predictionsCsv(records, classNames)),
  };
  const predicted = records.filter((record) => record.prediction);
  const names = distinct(predicted.map((record) => record.path)).map((name) => `${name.replace(/\.[^./]*$/, "")}.png`);
  /** @type {Promise<Blob>[]} */
  const overlays = [];
  const ask = (/** @type {number} */ place) => {
    const record = predicted[place];
    if (!record) return;
    overlays[place] = api.png(record.file, typeOf(record), "overlay", record.corrects);
    overlays[place].catch(() => undefined); // it is awaited below
  };
  for (let place = 0; place < PARALLEL; place += 1) ask(place);
  for (const [place, record] of predicted.entries()) {
    progress(place, predicted.length);
    yield { name: `masks/${names[place]}`, content: await predictedMaskPng(record) };
    yield { name: `overlays/${names[place]}`, content: await overlays[place] };
    ask(place + PARALLEL);
  }
}
