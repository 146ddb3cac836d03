// Made-up records, predictions and DICOM files for the tests.

import { newRecord } from "../../src/hilum/service/web/js/records.mjs";

/** @import { Prediction } from "../../src/hilum/service/web/js/api.mjs" */
/** @import { ImageRecord, State } from "../../src/hilum/service/web/js/records.mjs" */

/**
 * @param {Partial<Prediction>} [more]
 * @returns {Prediction}
 */
export function prediction(more = {}) {
  return {
    predicted_label: "Normal",
    probabilities: { COVID: 0.1, Normal: 0.9 },
    prediction_set: ["Normal"],
    abstained: false,
    lung_fraction: 0.25,
    height: 4,
    width: 6,
    pixel_aspect: 1,
    findings: [],
    mask_rle: { size: [4, 6], counts: [5, 2, 17] },
    ...more,
  };
}

/**
 * @param {string} key
 * @param {Partial<ImageRecord>} [more]
 * @returns {ImageRecord}
 */
export function record(key, more = {}) {
  return { ...newRecord(key, new Blob(["x"]), `${key}.png`), ...more };
}

/**
 * @param {ImageRecord[]} records
 * @returns {State["records"]}
 */
export function records(...records) {
  return new Map(records.map((one) => [one.key, one]));
}

/** A state of a store without animation frames: listeners run at once. @param {() => void} run */
export const atOnce = (run) => run();

/**
 * Bytes of a DICOM element.
 *
 * @param {number} tag
 * @param {string} vr
 * @param {Uint8Array | string} value
 * @param {{explicit?: boolean, little?: boolean, undefinedLength?: boolean}} [how]
 */
export function dicomElement(tag, vr, value, { explicit = true, little = true, undefinedLength = false } = {}) {
  const bytes = typeof value === "string" ? new TextEncoder().encode(value.length % 2 ? `${value} ` : value) : value;
  const long = ["OB", "OW", "SQ", "UN"].includes(vr);
  const head = new DataView(new ArrayBuffer(!explicit || !long ? 8 : 12));
  head.setUint16(0, tag >>> 16, little);
  head.setUint16(2, tag & 0xffff, little);
  const length = undefinedLength ? 0xffffffff : bytes.length;
  if (!explicit) head.setUint32(4, length, little);
  else {
    head.setUint8(4, vr.charCodeAt(0));
    head.setUint8(5, vr.charCodeAt(1));
    if (long) head.setUint32(8, length, little);
    else head.setUint16(6, length, little);
  }
  return joined(new Uint8Array(head.buffer), bytes);
}

/**
 * @param {string} syntax Transfer syntax.
 * @param {Uint8Array[]} elements
 */
export function dicomFile(syntax, ...elements) {
  const preamble = new Uint8Array(132);
  preamble.set(new TextEncoder().encode("DICM"), 128);
  return joined(preamble, dicomElement(0x00020010, "UI", `${syntax}${syntax.length % 2 ? "\0" : ""}`), ...elements);
}

/** @param {Uint8Array[]} parts */
export function joined(...parts) {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}
