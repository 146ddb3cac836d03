/** The images of the app and what is shown of them: immutable records, and pure functions on the state. */

/** @import { Bundle, Prediction, Problem } from "./api.mjs" */
/** @import { DicomHeader } from "./dicom.mjs" */
/** @import { StoredImage } from "./values.mjs" */
/** @import { Ruler } from "./measure.mjs" */
/** @import { Review } from "./review.mjs" */

/** @typedef {"waiting" | "working" | "ok" | "refused" | "unreadable" | "failed"} Status */
/** @typedef {"all" | "uncertain" | "ok" | "refused" | "open" | "reviewed"} Filter */
/** @typedef {"added" | "class" | "surest" | "least" | "name"} Order */

/**
 * How an image is displayed.
 *
 * @typedef {object} Display
 * @property {number} turn Clockwise, in quarter turns.
 * @property {boolean} flip
 * @property {boolean} invert
 * @property {{center: number, width: number, function: string, name: string} | null} window In rescaled values; null:
 *   as the model's reading displays it.
 */

/**
 * One image.
 *
 * @typedef {object} ImageRecord
 * @property {string} key Unique in this page.
 * @property {string} name File name.
 * @property {string} path Path below the folder that was opened.
 * @property {Blob} file
 * @property {string} hash SHA-256 of the content; empty before it was read.
 * @property {Status} status
 * @property {Prediction | null} prediction
 * @property {Problem | null} problem
 * @property {string} thumbnail Data URL, or empty.
 * @property {DicomHeader | null} dicom
 * @property {boolean} corrects Whether the service is asked to correct the orientation.
 * @property {Display} display
 * @property {readonly Ruler[]} rulers
 * @property {Review | null} review
 */

/**
 * Part of an image in view: `zoom` relative to the whole image; the place of the middle, in fractions of the displayed
 * image from its own middle.
 *
 * @typedef {{zoom: number, x: number, y: number}} View
 */

/** @typedef {"window" | "pan" | "ruler" | "ratio" | "brush"} Tool */

/**
 * @typedef {object} State
 * @property {ReadonlyMap<string, ImageRecord>} records
 * @property {string | null} selected
 * @property {string | null} compared Shown beside the selected image.
 * @property {Filter} filter
 * @property {Order} order
 * @property {boolean} paused
 * @property {boolean} unreachable Whether the service does not answer.
 * @property {Bundle | null} bundle
 * @property {ReadonlyMap<string, StoredImage | string>} images Decoded images of a few records, or why there is none.
 * @property {string | null} evidenceClass Whose evidence is drawn; null: the predicted class's.
 * @property {{outline: boolean, evidence: boolean, opacity: number}} overlays
 * @property {View} view
 * @property {Tool} tool
 * @property {{radius: number, erase: boolean}} brush Radius in pixels of the image.
 * @property {string | null} dialog
 * @property {string} notice
 * @property {"list" | "image"} page What a narrow screen shows.
 */

/** @type {Display} */
export const PLAIN = Object.freeze({
  turn: 0,
  flip: false,
  invert: false,
  window: null,
});
/** @type {View} */
export const WHOLE = Object.freeze({ zoom: 1, x: 0, y: 0 });

/** @returns {State} */
export function initialState() {
  return {
    records: new Map(),
    selected: null,
    compared: null,
    filter: "all",
    order: "added",
    paused: false,
    unreachable: false,
    bundle: null,
    images: new Map(),
    evidenceClass: null,
    overlays: { outline: true, evidence: true, opacity: 1 },
    view: WHOLE,
    tool: "window",
    brush: { radius: 12, erase: false },
    dialog: null,
    notice: "",
    page: "list",
  };
}

/**
 * Return a new record of a file.
 *
 * @param {string} key
 * @param {Blob} file
 * @param {string} path
 * @returns {ImageRecord}
 */
export function newRecord(key, file, path) {
  return Object.freeze({
    key,
    name: path.split("/").at(-1) || "image",
    path,
    file,
    hash: "",
    status: "waiting",
    prediction: null,
    problem: null,
    thumbnail: "",
    dicom: null,
    corrects: false,
    display: PLAIN,
    rulers: [],
    review: null,
  });
}

/**
 * Return the change of state that replaces properties of one record; none if it is gone.
 *
 * @param {State} state
 * @param {string} key
 * @param {Partial<ImageRecord>} changes
 * @returns {Partial<State>}
 */
export function changed(state, key, changes) {
  const record = state.records.get(key);
  if (!record) return {};
  const records = new Map(state.records);
  records.set(key, Object.freeze({ ...record, ...changes }));
  return { records };
}

/**
 * Return the selected record, or null.
 *
 * @param {State} state
 */
export function selectedRecord(state) {
  return (state.selected && state.records.get(state.selected)) || null;
}

/**
 * Return whether an image has a prediction that a person should decide on.
 *
 * @param {ImageRecord} record
 */
export function isUncertain(record) {
  return record.status === "ok" && Boolean(record.prediction?.abstained);
}

/** @type {Record<Filter, (record: ImageRecord) => boolean>} */
const FILTERS = {
  all: () => true,
  ok: (record) => record.status === "ok" && !isUncertain(record),
  uncertain: isUncertain,
  refused: (record) => ["refused", "unreadable", "failed"].includes(record.status),
  open: (record) => record.review === null,
  reviewed: (record) => record.review !== null,
};

/**
 * Return the number of images that each filter passes.
 *
 * @param {State} state
 * @returns {Record<Filter, number>}
 */
export function counts(state) {
  const found = {
    all: 0,
    ok: 0,
    uncertain: 0,
    refused: 0,
    open: 0,
    reviewed: 0,
  };
  for (const record of state.records.values()) {
    for (const name of /** @type {Filter[]} */ (Object.keys(found))) if (FILTERS[name](record)) found[name] += 1;
  }
  return found;
}

/** @param {ImageRecord} record */
function probability(record) {
  return record.prediction ? record.prediction.probabilities[record.prediction.predicted_label] : -1;
}

/** @type {Record<Order, ((one: ImageRecord, other: ImageRecord) => number) | null>} */
const ORDERS = {
  added: null,
  name: (one, other) => one.path.localeCompare(other.path, "en", { numeric: true }),
  surest: (one, other) => probability(other) - probability(one),
  least: (one, other) =>
    (probability(one) < 0 ? 2 : probability(one)) - (probability(other) < 0 ? 2 : probability(other)),
  class: (one, other) =>
    (one.prediction?.predicted_label ?? "\uffff").localeCompare(other.prediction?.predicted_label ?? "\uffff", "en") ||
    probability(other) - probability(one),
};

/** @type {{state: Pick<State, "records" | "filter" | "order">, list: ImageRecord[]} | null} */
let last = null;

/**
 * Return the images that the list shows, in order.
 *
 * @param {Pick<State, "records" | "filter" | "order">} state
 * @returns {ImageRecord[]}
 */
export function listed(state) {
  const { records, filter, order } = state;
  if (last && last.state.records === records && last.state.filter === filter && last.state.order === order)
    return last.list;
  const list = [...records.values()].filter(FILTERS[filter]);
  const compare = ORDERS[order];
  if (compare) list.sort(compare);
  last = { state: { records, filter, order }, list };
  return list;
}

/**
 * Return the change of state that selects the image `step` places further in the list.
 *
 * @param {State} state
 * @param {number} step
 * @returns {Partial<State>}
 */
export function stepped(state, step) {
  const list = listed(state);
  if (!list.length) return {};
  const place = list.findIndex((record) => record.key === state.selected);
  const next = place < 0 ? 0 : Math.min(list.length - 1, Math.max(0, place + step));
  return selecting(state, list[next].key);
}

/**
 * Return the change of state that selects an image; zoom and evidence class go back, unless two are compared.
 *
 * @param {State} state
 * @param {string | null} key
 * @returns {Partial<State>}
 */
export function selecting(state, key) {
  if (key === state.selected) return {};
  const tool = state.tool === "brush" ? "window" : state.tool;
  return {
    selected: key,
    evidenceClass: null,
    tool,
    ...(state.compared ? { notice: "" } : {}), // the wish to choose another image is fulfilled
    view: state.compared ? state.view : WHOLE,
  };
}

/**
 * Return the change of state that removes images; the next one in the list is selected.
 *
 * @param {State} state
 * @param {readonly string[]} keys
 * @returns {Partial<State>}
 */
export function removed(state, keys) {
  const gone = new Set(keys);
  const list = listed(state);
  const place = list.findIndex((record) => record.key === state.selected);
  const rest = [...list.slice(Math.max(0, place)), ...list.slice(0, Math.max(0, place)).reverse()];
  const records = new Map([...state.records].filter(([key]) => !gone.has(key)));
  const images = new Map([...state.images].filter(([key]) => !gone.has(key)));
  const compared = state.compared && gone.has(state.compared) ? null : state.compared;
  if (!state.selected || !gone.has(state.selected)) return { records, images, compared };
  const next = rest.find((record) => !gone.has(record.key))?.key ?? records.keys().next().value ?? null;
  return { records, images, compared, ...selecting(state, next) };
}
