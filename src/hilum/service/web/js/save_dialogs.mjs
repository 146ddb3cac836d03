/** The dialogs that save files: predictions and reviews. */

import { button, download, element } from "./dom.mjs";
import { mediaType } from "./intake.mjs";
import { selectedRecord } from "./records.mjs";
import { predictedMaskPng, predictionFiles, predictionsCsv } from "./results.mjs";
import { TABLE, reviewCounts, reviewFiles } from "./review.mjs";
import { zip } from "./zip.mjs";

/** @import { App } from "./app.mjs" */
/** @import { ImageRecord } from "./records.mjs" */

/**
 * Return the dialog of downloads.
 *
 * @param {App} app
 */
export function downloads(app) {
  const state = app.store.get();
  const record = selectedRecord(state);
  const records = [...state.records.values()];
  const names = state.bundle?.class_names ?? [];
  const words = element("p", { role: "status", class: "muted" });
  const everything = async () => {
    const files = predictionFiles(
      records,
      names,
      app.api,
      typeOf,
      (done, all) => (words.textContent = `${done} of ${all} overlays`),
    );
    download(await zip(files), "hilum-predictions.zip");
    words.textContent = "Done.";
  };
  return [
    ...(record ? imageDownloads(app, record, words) : []),
    element("h3", {}, records.length === 1 ? "The one image" : `All ${records.length} images`),
    element(
      "div",
      { class: "row" },
      saving("Table, CSV", words, async () =>
        download(new Blob([predictionsCsv(records, names)], { type: "text/csv" }), "predictions.csv"),
      ),
      saving("Overlays, masks and table, ZIP", words, everything),
      button("Review…", () => app.openDialog("export")),
    ),
    words,
  ];
}

/** @type {["seg" | "sr" | "sc" | "pr", string][]} */
const OBJECTS = [
  ["seg", "Segmentation"],
  ["sr", "Structured report"],
  ["sc", "Secondary Capture"],
  ["pr", "Presentation State"],
];

/**
 * The downloads of one image.
 *
 * @param {App} app
 * @param {ImageRecord} record
 * @param {HTMLElement} words
 */
function imageDownloads(app, record, words) {
  if (!record.prediction) return [];
  const { file, corrects } = record;
  const overlay = async () =>
    download(await app.api.png(file, typeOf(record), "overlay", corrects), fileName(record, "-overlay.png"));
  const mask = async () =>
    download(new Blob([await predictedMaskPng(record)], { type: "image/png" }), fileName(record, "-mask.png"));
  const view = async () => download(await canvasPng(), fileName(record, "-view.png"));
  const images = element(
    "div",
    { class: "row" },
    saving("Overlay, PNG", words, overlay),
    saving("Lung mask, PNG", words, mask),
    saving("View as shown, PNG", words, view),
  );
  const objects = OBJECTS.map(([kind, label]) =>
    saving(`${label}, DICOM`, words, async () =>
      download(await app.api.dicom(file, kind, corrects), fileName(record, `.${kind}.dcm`)),
    ),
  );
  return [element("h3", {}, record.name), images, record.dicom && element("div", { class: "row" }, ...objects)].filter(
    (part) => part instanceof HTMLElement,
  );
}

/**
 * Return the dialog that exports the reviews.
 *
 * @param {App} app
 */
export function reviews(app) {
  const records = [...app.store.get().records.values()];
  const found = reviewCounts(records);
  const withImages = element("input", {
    type: "checkbox",
    id: "with-images",
  });
  const words = element("p", { role: "status", class: "muted" });
  const save = async () => {
    download(await zip(reviewFiles(records, withImages.checked)), "hilum-review.zip");
    app.saved = true;
  };
  return [
    element(
      "p",
      {},
      `${found.all} of ${records.length} images reviewed: ${found.agree} agreed, ${found.other} of another class, ` +
        `${found.not_assessable} not assessable; lung outlines: ${found.outlines}.`,
    ),
    element(
      "p",
      {},
      "The ZIP holds ",
      element("code", {}, TABLE),
      " and the lung masks that were accepted or corrected. Unzip it into the folder of the " +
        "images; the table is then a dataset:",
    ),
    element(
      "pre",
      {},
      element("code", {}, `hilum evaluate default ${TABLE}\nhilum train ${TABLE} --from-bundle default`),
    ),
    element(
      "label",
      { for: "with-images", class: "row" },
      withImages,
      "With the images (DICOM files hold patient data)",
    ),
    element(
      "div",
      { class: "row" },
      saving("Export", words, save, {
        class: "primary",
        disabled: !found.all,
      }),
    ),
    words,
  ];
}

/**
 * Return a button that saves a file, and says why if it cannot.
 *
 * @param {string} label
 * @param {HTMLElement} words
 * @param {() => Promise<void>} save
 * @param {Record<string, unknown>} [attributes]
 */
function saving(label, words, save, attributes = {}) {
  const made = button(
    label,
    () => {
      made.disabled = true;
      save()
        .catch((error) => (words.textContent = error instanceof Error ? error.message : String(error)))
        .finally(() => (made.disabled = false));
    },
    attributes,
  );
  return made;
}

/** @param {ImageRecord} record */
function typeOf(record) {
  return record.dicom ? "application/dicom" : mediaType(record.path, new Uint8Array());
}

/**
 * @param {ImageRecord} record
 * @param {string} ending
 */
function fileName(record, ending) {
  return record.name.replace(/\.[^.]*$/, "") + ending;
}

/** @returns {Promise<Blob>} */
function canvasPng() {
  const canvas = /** @type {HTMLCanvasElement} */ (document.querySelector("canvas.main"));
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The view cannot be saved.")))),
  );
}
