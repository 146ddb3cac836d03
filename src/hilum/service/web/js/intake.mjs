/** Files that come in: from a choice, a folder or a drop; and what the service needs to know of each. */

import { isDicom } from "./dicom.mjs";

/** @typedef {{file: File, path: string}} Incoming */

const HEAD = 132; // bytes that tell the format
const SUFFIXES = /\.(png|jpe?g|webp|bmp|tiff?|dcm|dicom)$/i;
const SIGNATURES = [
  [0x89, 0x50, 0x4e, 0x47],
  [0xff, 0xd8, 0xff],
  [0x49, 0x49, 0x2a, 0],
  [0x4d, 0x4d, 0, 0x2a],
];

/**
 * Return the files of an input; paths start below a folder that was chosen.
 *
 * @param {Iterable<File>} files
 * @returns {Incoming[]}
 */
export function chosenFiles(files) {
  return [...files].map((file) => ({
    file,
    path: below(file.webkitRelativePath) || file.name,
  }));
}

/**
 * Return the files of a drop, those in folders too; paths start below a folder that was dropped alone.
 *
 * @param {DataTransfer} transfer
 * @returns {Promise<Incoming[]>}
 */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items]
    .map((item) => item.webkitGetAsEntry?.())
    .filter((entry) => entry !== null && entry !== undefined);
  if (!entries.length) return chosenFiles(transfer.files);
  /** @type {Incoming[]} */
  const found = [];
  for (const entry of entries) await collect(entry, found);
  if (entries.length !== 1 || !entries[0].isDirectory) return sorted(found);
  return sorted(found.map(({ file, path }) => ({ file, path: below(path) })));
}

/**
 * @param {FileSystemEntry} entry
 * @param {Incoming[]} found
 */
async function collect(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) =>
      /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject),
    );
    found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 at a time
    if (!some.length) return;
    for (const one of some) await collect(one, found);
  }
}

/** @param {Incoming[]} incoming */
function sorted(incoming) {
  return incoming.sort((one, other) => one.path.localeCompare(other.path, "en", { numeric: true }));
}

/** @param {string} path */
function below(path) {
  return path.split("/").slice(1).join("/");
}

/**
 * Return the files that may be images, and how many others there are: hidden files, other formats, and lung masks beside
 * their images.
 *
 * @param {readonly Incoming[]} incoming
 * @returns {Promise<{images: Incoming[], others: number}>}
 */
export async function imagesOf(incoming) {
  const folders = new Set(incoming.map(({ path }) => path.slice(0, path.lastIndexOf("/") + 1)));
  const visible = incoming.filter(({ path }) => !/(^|\/)\./.test(path) && !isMask(path, folders));
  const judged = await Promise.all(visible.map(async (one) => ((await mayBeImage(one)) ? one : null)));
  const images = judged.filter((one) => one !== null);
  return { images, others: incoming.length - images.length };
}

/**
 * Whether a file is a mask by its folder: of a review, or `masks/` beside `images/`.
 *
 * @param {string} path
 * @param {Set<string>} folders
 */
function isMask(path, folders) {
  if (/(^|\/)review-masks\//.test(path)) return true;
  const parent = path.match(/^(.*\/)?masks\/[^/]*$/);
  return parent !== null && folders.has(`${parent[1] ?? ""}images/`);
}

/** @param {Incoming} incoming */
async function mayBeImage({ file, path }) {
  if (SUFFIXES.test(path)) return true;
  if (/(^|\/)DICOMDIR$/i.test(path)) return false;
  const head = new Uint8Array(await file.slice(0, HEAD).arrayBuffer());
  return isDicom(head) || SIGNATURES.some((signature) => signature.every((byte, place) => head[place] === byte));
}

/**
 * Return the media type with which a file is sent.
 *
 * @param {string} path
 * @param {Uint8Array} head The first bytes.
 */
export function mediaType(path, head) {
  return isDicom(head) || /\.(dcm|dicom)$/i.test(path) ? "application/dicom" : "application/octet-stream";
}

/**
 * Return the SHA-256 of bytes as hexadecimal digits; empty where the browser has none: on http from another machine.
 *
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return "";
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
