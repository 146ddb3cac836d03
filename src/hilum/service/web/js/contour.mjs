/** Lines at which a map crosses a level, by marching squares. */

/** A map of values, by rows. @typedef {{width: number, height: number, values: ArrayLike<number>}} Grid */

// For each of the 16 cases of corners above the level: pairs of sides (top, right, bottom, left) that a line joins.
const CROSSINGS = [
  [],
  [[3, 0]],
  [[0, 1]],
  [[3, 1]],
  [[1, 2]],
  [
    [3, 0],
    [1, 2],
  ],
  [[0, 2]],
  [[3, 2]],
  [[2, 3]],
  [[2, 0]],
  [
    [0, 1],
    [2, 3],
  ],
  [[2, 1]],
  [[1, 3]],
  [[1, 0]],
  [[0, 3]],
  [],
];

/**
 * Return the segments at which a map crosses a level, as x, y, x, y, … in fractions of its width and height. Values are
 * at the middles of the cells; the map is 0 outside, so that lines are closed.
 *
 * @param {Grid} grid
 * @param {number} level Above 0.
 * @returns {Float32Array}
 */
export function contour({ width, height, values }, level) {
  /** @type {number[]} */
  const lines = [];
  /** @type {(x: number, y: number) => number} */
  const value = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : values[y * width + x]);
  /** @type {(one: number, other: number) => number} */
  const between = (one, other) => (level - one) / (other - one);
  for (let y = -1; y < height; y += 1) {
    let [a, d] = [0, 0]; // the corners left of the first cell are outside
    for (let x = -1; x < width; x += 1) {
      const b = value(x + 1, y);
      const c = value(x + 1, y + 1);
      const kind =
        Number(a >= level) | (Number(b >= level) << 1) | (Number(c >= level) << 2) | (Number(d >= level) << 3);
      if (kind !== 0 && kind !== 15) {
        for (const sides of CROSSINGS[kind]) {
          for (const side of sides) {
            if (side === 0) lines.push(x + between(a, b), y);
            else if (side === 1) lines.push(x + 1, y + between(b, c));
            else if (side === 2) lines.push(x + between(d, c), y + 1);
            else lines.push(x, y + between(a, d));
          }
        }
      }
      [a, d] = [b, c];
    }
  }
  const placed = new Float32Array(lines.length);
  for (let place = 0; place < lines.length; place += 2) {
    placed[place] = Math.min(1, Math.max(0, (lines[place] + 0.5) / width));
    placed[place + 1] = Math.min(1, Math.max(0, (lines[place + 1] + 0.5) / height));
  }
  return placed;
}
