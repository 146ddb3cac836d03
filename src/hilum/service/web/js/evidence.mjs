/** The evidence map of a class at the size of a picture, in bands of its peak; as the library's overlays draw it. */

import { contour } from "./contour.mjs";
import { decodeRuns } from "./mask.mjs";

/** @import { Evidence, RunLengths } from "./api.mjs" */
/** @import { Grid } from "./contour.mjs" */

// As in hilum.inference.contour, from matplotlib's colormap "inferno".
export const LEVELS = [0.25, 0.5, 0.75]; // lower limits of the bands, as fractions of the peak
export const BANDS = [
  [187, 55, 84],
  [243, 120, 25],
  [246, 215, 70],
];
export const OPACITY = [0.26, 0.3, 0.34];
export const LEAST_SUM = 0.1; // logits in favor below which nothing is drawn

const SIDE = 384; // longer side of the picture

/**
 * What is drawn of a class's evidence; all numbers are logits.
 *
 * @typedef {object} EvidencePicture
 * @property {number} favor Sum of what speaks for the class.
 * @property {number} against Sum of what speaks against it, at most 0.
 * @property {number} peak End of the color scale: the largest value of the map that is drawn, per cell.
 * @property {Grid | null} grid The map in fractions of the peak; null where there is too little to draw.
 * @property {Float32Array[]} lines The contour of each level.
 */

/**
 * Return what is drawn of a class's evidence: that of a cell on the lung in it, or in all of it if it has no lung.
 *
 * @param {Evidence} evidence
 * @param {string} className
 * @param {{width: number, height: number, mask_rle?: RunLengths}} image Its size and its lungs.
 * @returns {EvidencePicture}
 */
export function evidencePicture(evidence, className, image) {
  const cells = evidence.values[evidence.class_names.indexOf(className)];
  let [favor, against] = [0, 0];
  for (const row of cells) {
    for (const value of row) {
      if (value > 0) favor += value;
      else against += value;
    }
  }
  const map = image.mask_rle
    ? onLungs(cells, evidence.placement, image, decodeRuns(image.mask_rle))
    : enlarged(cells, evidence.placement, image);
  let peak = 0;
  for (const value of map.values) peak = Math.max(peak, value);
  if (favor < LEAST_SUM || peak <= 0) return { favor, against, peak, grid: null, lines: [] };
  for (let place = 0; place < map.values.length; place += 1) map.values[place] /= peak;
  return {
    favor,
    against,
    peak,
    grid: map,
    lines: LEVELS.map((level) => contour(map, level)),
  };
}

/**
 * Return the map over the image, that of cells with lung on the lung alone.
 *
 * @param {number[][]} cells
 * @param {[number, number, number, number]} placement
 * @param {{width: number, height: number}} size
 * @param {Uint8Array} mask The lungs at the image's size.
 */
function onLungs(cells, placement, size, mask) {
  const [top, left, tall, wide] = placement;
  const { width, height } = pictureSize(size);
  const lung = new Uint8Array(width * height);
  const hasLung = cells.map((row) => row.map(() => false));
  for (let y = 0; y < height; y += 1) {
    const from = Math.floor(((y + 0.5) / height) * size.height) * size.width;
    const row = hasLung[Math.floor((top + ((y + 0.5) / height) * tall) * cells.length)];
    for (let x = 0; x < width; x += 1) {
      if (!mask[from + Math.floor(((x + 0.5) / width) * size.width)]) continue;
      lung[y * width + x] = 1;
      row[Math.floor((left + ((x + 0.5) / width) * wide) * row.length)] = true;
    }
  }
  const part = (/** @type {boolean} */ kept) =>
    cells.map((values, row) => values.map((value, column) => (hasLung[row][column] === kept ? value : 0)));
  const map = enlarged(part(true), placement, size);
  const beside = enlarged(part(false), placement, size);
  for (let place = 0; place < lung.length; place += 1) {
    map.values[place] = map.values[place] * lung[place] + beside.values[place];
  }
  return map;
}

/** @param {{width: number, height: number}} size Of the image. */
function pictureSize(size) {
  const factor = SIDE / Math.max(size.width, size.height);
  return {
    width: Math.max(1, Math.round(size.width * factor)),
    height: Math.max(1, Math.round(size.height * factor)),
  };
}

/**
 * Return the map of the network's square over the image, linearly.
 *
 * @param {number[][]} cells
 * @param {[number, number, number, number]} placement
 * @param {{width: number, height: number}} size
 */
function enlarged(cells, [top, left, tall, wide], size) {
  const { width, height } = pictureSize(size);
  const [rows, columns] = [cells.length, cells[0].length];
  const values = new Float32Array(width * height);
  const across = Array.from({ length: width }, (_, x) => axis((left + ((x + 0.5) / width) * wide) * columns, columns));
  for (let y = 0; y < height; y += 1) {
    const [upper, lower, down] = axis((top + ((y + 0.5) / height) * tall) * rows, rows);
    for (let x = 0; x < width; x += 1) {
      const [near, far, right] = across[x];
      const above = cells[upper][near] + (cells[upper][far] - cells[upper][near]) * right;
      const below = cells[lower][near] + (cells[lower][far] - cells[lower][near]) * right;
      values[y * width + x] = above + (below - above) * down;
    }
  }
  return { width, height, values };
}

/**
 * Return the two cells around a place and its fraction of the way between their middles.
 *
 * @param {number} place In cells.
 * @param {number} count
 * @returns {[number, number, number]}
 */
function axis(place, count) {
  const middle = Math.min(count - 1, Math.max(0, place - 0.5));
  const near = Math.floor(middle);
  return [near, Math.min(count - 1, near + 1), middle - near];
}

/**
 * Return a map as RGBA: its bands, clear below the first level.
 *
 * @param {Grid} grid In fractions of the peak.
 */
export function bandsRgba({ width, height, values }) {
  const out = new Uint32Array(width * height);
  const colors = BANDS.map(
    ([red, green, blue], band) => ((Math.round(255 * OPACITY[band]) << 24) | (blue << 16) | (green << 8) | red) >>> 0,
  );
  for (let place = 0; place < out.length; place += 1) {
    const value = values[place];
    if (value >= LEVELS[0]) out[place] = colors[value >= LEVELS[2] ? 2 : value >= LEVELS[1] ? 1 : 0];
  }
  return new Uint8ClampedArray(out.buffer);
}
