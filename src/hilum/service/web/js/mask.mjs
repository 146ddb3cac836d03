/** Lung masks: run lengths from the service, grids to draw and to correct, and the corrected mask at full size. */

/** @import { RunLengths } from "./api.mjs" */
/** @import { Grid } from "./contour.mjs" */

/**
 * A mask on a grid that is coarser than the image by a whole factor; 1 is lung.
 *
 * @typedef {object} MaskGrid
 * @property {number} factor
 * @property {number} width
 * @property {number} height
 * @property {Uint8Array} values By rows.
 */

const GRID_SIDE = 1024; // at most, of the grid that is corrected
const OUTLINE_SIDE = 512; // about, of the grid on which the outline is traced

/**
 * Return the pixels of a mask, 0 or 1 by rows.
 *
 * @param {RunLengths} runs
 * @returns {Uint8Array}
 */
export function decodeRuns({ size: [height, width], counts }) {
  const mask = new Uint8Array(width * height);
  eachRun(counts, height, (column, from, to) => {
    for (let row = from; row < to; row += 1) mask[row * width + column] = 1;
  });
  return mask;
}

/**
 * Return the run lengths of a mask by columns, of 0 first.
 *
 * @param {Uint8Array} mask By rows.
 * @param {number} width
 * @param {number} height
 * @returns {number[]}
 */
export function encodeRuns(mask, width, height) {
  const counts = [];
  let [value, run] = [0, 0];
  for (let column = 0; column < width; column += 1) {
    for (let row = 0; row < height; row += 1) {
      if (mask[row * width + column] === value) run += 1;
      else {
        counts.push(run);
        value = 1 - value;
        run = 1;
      }
    }
  }
  counts.push(run);
  return counts;
}

/**
 * Call a function for each part of a run of ones in a column.
 *
 * @param {readonly number[]} counts
 * @param {number} height
 * @param {(column: number, from: number, to: number) => void} part
 */
function eachRun(counts, height, part) {
  let place = 0;
  counts.forEach((count, number) => {
    if (number % 2) {
      for (let at = place; at < place + count; ) {
        const column = Math.floor(at / height);
        const end = Math.min(place + count, (column + 1) * height);
        part(column, at - column * height, end - column * height);
        at = end;
      }
    }
    place += count;
  });
}

/**
 * Return the share of lung in each cell of a grid, for the outline: a line at one half.
 *
 * @param {RunLengths} runs
 * @param {number} [side] Longer side of the grid, about.
 * @returns {Grid}
 */
export function coverage({ size: [height, width], counts }, side = OUTLINE_SIDE) {
  const factor = Math.max(1, Math.ceil(Math.max(width, height) / side));
  const [columns, rows] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const values = new Float32Array(columns * rows);
  eachRun(counts, height, (column, from, to) => {
    const left = Math.floor(column / factor);
    for (let row = Math.floor(from / factor); row * factor < to; row += 1) {
      values[row * columns + left] += Math.min(to, (row + 1) * factor) - Math.max(from, row * factor);
    }
  });
  for (let row = 0; row < rows; row += 1) {
    const tall = Math.min(factor, height - row * factor);
    for (let column = 0; column < columns; column += 1) {
      values[row * columns + column] /= tall * Math.min(factor, width - column * factor);
    }
  }
  return { width: columns, height: rows, values };
}

/**
 * Return a map smoothed by the mean over (2 reach + 1)² cells, which takes the steps of pixels off an outline.
 *
 * @param {Grid} grid
 * @param {number} [reach]
 * @returns {Grid}
 */
export function smoothed({ width, height, values }, reach = 1) {
  const across = new Float32Array(values.length);
  const out = new Float32Array(values.length);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      let [sum, n] = [0, 0];
      for (let at = Math.max(0, column - reach); at <= Math.min(width - 1, column + reach); at += 1, n += 1) {
        sum += values[row * width + at];
      }
      across[row * width + column] = sum / n;
    }
  }
  for (let row = 0; row < height; row += 1) {
    const [from, to] = [Math.max(0, row - reach), Math.min(height - 1, row + reach)];
    for (let column = 0; column < width; column += 1) {
      let sum = 0;
      for (let at = from; at <= to; at += 1) sum += across[at * width + column];
      out[row * width + column] = sum / (to - from + 1);
    }
  }
  return { width, height, values: out };
}

/**
 * Return the grid on which a mask is corrected.
 *
 * @param {RunLengths} runs
 * @returns {MaskGrid}
 */
export function maskGrid(runs) {
  const factor = Math.max(1, Math.ceil(Math.max(...runs.size) / GRID_SIDE));
  const { width, height, values } = coverage(runs, GRID_SIDE);
  return {
    factor,
    width,
    height,
    values: Uint8Array.from(values, (share) => Number(share >= 0.5)),
  };
}

/**
 * Return a grid after a stroke of the brush from one point to another.
 *
 * @param {MaskGrid} grid
 * @param {[number, number]} from In pixels of the image.
 * @param {[number, number]} to
 * @param {number} radius In pixels of the image.
 * @param {boolean} erase
 * @returns {MaskGrid}
 */
export function painted(grid, from, to, radius, erase) {
  const { factor, width, height } = grid;
  const values = grid.values.slice();
  const [ax, ay, bx, by] = [from[0], from[1], to[0], to[1]].map((value) => value / factor);
  const reach = Math.max(0.5, radius / factor);
  const long = (bx - ax) ** 2 + (by - ay) ** 2;
  const [top, bottom] = [Math.floor(Math.min(ay, by) - reach), Math.ceil(Math.max(ay, by) + reach)];
  const [left, right] = [Math.floor(Math.min(ax, bx) - reach), Math.ceil(Math.max(ax, bx) + reach)];
  for (let row = Math.max(0, top); row <= Math.min(height - 1, bottom); row += 1) {
    for (let column = Math.max(0, left); column <= Math.min(width - 1, right); column += 1) {
      const [x, y] = [column + 0.5, row + 0.5];
      const along = long ? Math.min(1, Math.max(0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / long)) : 0;
      const distance = Math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay));
      if (distance <= reach) values[row * width + column] = erase ? 0 : 1;
    }
  }
  return { ...grid, values };
}

/**
 * Return the corrected mask at the image's size, 0 or 1 by rows: the original where the grid was not changed.
 *
 * @param {RunLengths} runs The original mask.
 * @param {MaskGrid} grid
 * @returns {Uint8Array}
 */
export function correctedMask(runs, grid) {
  const [height, width] = runs.size;
  const mask = decodeRuns(runs);
  const before = maskGrid(runs).values;
  for (let row = 0; row < height; row += 1) {
    const line = Math.floor(row / grid.factor) * grid.width;
    for (let column = 0; column < width; column += 1) {
      const cell = line + Math.floor(column / grid.factor);
      if (grid.values[cell] !== before[cell]) mask[row * width + column] = grid.values[cell];
    }
  }
  return mask;
}
