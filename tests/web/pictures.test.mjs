import assert from "node:assert/strict";
import { test } from "node:test";

import { contour } from "../../src/hilum/service/web/js/contour.mjs";
import { bandsRgba, evidencePicture } from "../../src/hilum/service/web/js/evidence.mjs";
import * as geometry from "../../src/hilum/service/web/js/geometry.mjs";
import * as masks from "../../src/hilum/service/web/js/mask.mjs";
import * as measure from "../../src/hilum/service/web/js/measure.mjs";
import * as values from "../../src/hilum/service/web/js/values.mjs";

/** A mask of 40 x 30 with a rectangle of lung. */
const WIDTH = 40;
const HEIGHT = 30;
const MASK = Uint8Array.from({ length: WIDTH * HEIGHT }, (_, place) => {
  const [x, y] = [place % WIDTH, Math.floor(place / WIDTH)];
  return Number(x >= 10 && x < 20 && y >= 6 && y < 24);
});
/** @type {{size: [number, number], counts: number[]}} */
const RUNS = { size: [HEIGHT, WIDTH], counts: masks.encodeRuns(MASK, WIDTH, HEIGHT) };

const FACTS = { lowest: 0, slope: 1, intercept: 0, inverted: false, pixel_aspect: 1, presets: [] };

test("run lengths there and back, by columns, of 0 first", () => {
  assert.equal(RUNS.counts[0], 10 * HEIGHT + 6);
  assert.deepEqual(masks.decodeRuns(RUNS), MASK);
  const full = new Uint8Array(6).fill(1);
  assert.deepEqual(masks.encodeRuns(full, 3, 2), [0, 6]);
  assert.deepEqual(masks.decodeRuns({ size: [2, 3], counts: [0, 6] }), full);
});

test("coverage is the mean of the mask in each cell, at the edge too", () => {
  const { width, height, values: shares } = masks.coverage(RUNS, 12); // cells of 4 x 4, the last row of 2
  assert.deepEqual([width, height], [10, 8]);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      let [sum, n] = [0, 0];
      for (let y = 4 * row; y < Math.min(HEIGHT, 4 * row + 4); y += 1) {
        for (let x = 4 * column; x < 4 * column + 4; x += 1, n += 1) sum += MASK[y * WIDTH + x];
      }
      assert.ok(Math.abs(shares[row * width + column] - sum / n) < 1e-6);
    }
  }
});

test("the outline of a rectangle runs along its edges", () => {
  const lines = contour({ width: WIDTH, height: HEIGHT, values: MASK }, 0.5);
  const xs = [...lines].filter((_, place) => place % 2 === 0).map((x) => x * WIDTH);
  const ys = [...lines].filter((_, place) => place % 2 === 1).map((y) => y * HEIGHT);
  const near = (/** @type {number} */ one, /** @type {number} */ other) => assert.ok(Math.abs(one - other) < 1e-4);
  near(Math.min(...xs), 10);
  near(Math.max(...xs), 20);
  near(Math.min(...ys), 6);
  near(Math.max(...ys), 24);
  assert.equal(contour({ width: 4, height: 4, values: new Uint8Array(16) }, 0.5).length, 0);
  // The whole grid: a line along the border, closed.
  const whole = contour({ width: 3, height: 3, values: new Uint8Array(9).fill(1) }, 0.5);
  assert.equal(Math.min(...whole), 0);
  assert.equal(Math.max(...whole), 1);
});

test("every end of a contour's line is the start or end of another", () => {
  const map = Float32Array.from({ length: 400 }, (_, place) => Math.sin(place * 1.7) + Math.cos(place * 0.31));
  const lines = contour({ width: 20, height: 20, values: map }, 0.4);
  const counts = new Map();
  for (let place = 0; place < lines.length; place += 2) {
    const key = `${lines[place].toFixed(5)},${lines[place + 1].toFixed(5)}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  assert.ok(lines.length > 100);
  assert.deepEqual(
    [...counts.values()].filter((count) => count % 2),
    [],
  );
});

test("a stroke of the brush adds or takes a disk, and only there the mask changes", () => {
  const grid = masks.maskGrid(RUNS);
  assert.equal(grid.factor, 1);
  assert.deepEqual(grid.values, MASK);
  const added = masks.painted(grid, [30, 15], [30, 15], 3, false);
  const area = added.values.reduce((sum, value, place) => sum + value - MASK[place], 0);
  assert.ok(Math.abs(area - Math.PI * 9) < 5, String(area));
  assert.deepEqual(masks.correctedMask(RUNS, added), added.values);
  const erased = masks.painted(added, [15, 0], [15, 30], 100, true);
  assert.equal(
    erased.values.reduce((sum, value) => sum + value, 0),
    0,
  );
  assert.deepEqual(grid.values, MASK); // strokes make new grids
});

test("a coarse grid changes no pixel that was not painted", () => {
  const [width, height] = [3000, 2000];
  const mask = Uint8Array.from({ length: width * height }, (_, place) => Number((place % width) % 777 < 300));
  /** @type {{size: [number, number], counts: number[]}} */
  const runs = { size: [height, width], counts: masks.encodeRuns(mask, width, height) };
  const grid = masks.maskGrid(runs);
  assert.equal(grid.factor, 3);
  assert.deepEqual(masks.correctedMask(runs, grid), mask);
  const corrected = masks.correctedMask(runs, masks.painted(grid, [200, 600], [200, 600], 60, true));
  let changed = 0;
  for (let place = 0; place < mask.length; place += 1) {
    if (mask[place] === corrected[place]) continue;
    changed += 1;
    assert.ok(Math.hypot((place % width) - 200, Math.floor(place / width) - 600) < 66);
  }
  assert.ok(changed > 1000);
});

test("the window of an image, and of a drag", () => {
  const pixels = Uint16Array.of(0, 100, 4095, 2000);
  const table = Uint16Array.from({ length: 4096 }, (_, index) => 16 * index);
  const facts = { ...FACTS, width: 2, height: 2, levels: 4096, lowest: -1024, slope: 2, intercept: 10 };
  const buffer = new Uint8Array([...new Uint8Array(pixels.buffer), ...new Uint8Array(table.buffer)]).buffer;
  const image = values.storedImage(facts, buffer);
  assert.deepEqual(image.range, [-2038, 6152]);
  const analyzed = values.grayTable(image, { window: null, invert: false });
  assert.equal(analyzed[4095], Math.round((255 * 16 * 4095) / 65535));
  const window = { name: "", center: 10, width: 2048, function: "LINEAR_EXACT" };
  const grays = values.grayTable(image, { window, invert: false });
  assert.equal(grays[1024], 128); // stored 0, rescaled 10: the middle
  assert.equal(grays[0], 0);
  assert.equal(grays[4095], 255);
  const inverted = values.grayTable({ ...image, inverted: true }, { window, invert: false });
  assert.deepEqual(
    [...inverted],
    [...grays].map((gray, index) => (index === 1024 ? inverted[1024] : 255 - gray)),
  );
  assert.deepEqual(values.grayTable({ ...image, inverted: true }, { window, invert: true }), grays);
  const wider = values.draggedWindow(image, window, 50, 0);
  assert.ok(wider.width > window.width);
  assert.ok(values.draggedWindow(image, window, 0, -50).center < window.center); // upwards is brighter
  assert.ok(values.draggedWindow({ ...image, inverted: true }, window, 0, -50).center > window.center);
  assert.ok(values.draggedWindow(image, window, -1e6, 0).width >= 1);
});

test("DICOM's linear and sigmoid windows", () => {
  const table = new Uint16Array(256);
  const facts = { ...FACTS, width: 1, height: 1, levels: 256 };
  const image = values.storedImage(facts, new Uint8Array([7, ...new Uint8Array(table.buffer)]).buffer);
  const linear = values.grayTable(image, {
    window: { name: "", center: 128, width: 256, function: "LINEAR" },
    invert: false,
  });
  assert.deepEqual([linear[0], linear[128], linear[255]], [0, 128, 255]); // PS3.3 C.11.2.1.2.1
  const step = values.grayTable(image, {
    window: { name: "", center: 100, width: 1, function: "LINEAR" },
    invert: false,
  });
  assert.deepEqual([step[99], step[100]], [0, 255]);
  const sigmoid = values.grayTable(image, {
    window: { name: "", center: 100, width: 50, function: "SIGMOID" },
    invert: false,
  });
  assert.equal(sigmoid[100], 128);
});

test("halves of a large image keep its mean", () => {
  const pixels = Uint16Array.from({ length: 2000 * 1501 }, (_, place) => place % 60000);
  const facts = { ...FACTS, width: 2000, height: 1501, levels: 65536 };
  const buffer = new ArrayBuffer(pixels.byteLength + 2 * 65536);
  new Uint16Array(buffer).set(pixels);
  const { levels } = values.storedImage(facts, buffer);
  assert.deepEqual(levels.map(({ width, height }) => [width, height]), [[2000, 1501], [1000, 750]]); // prettier-ignore
  assert.equal(levels[1].pixels[0], (pixels[0] + pixels[1] + pixels[2000] + pixels[2001] + 2) >> 2);
});

test("the map to the screen and back, under rotation, flip, zoom and pan", () => {
  const size = { width: 300, height: 200, aspect: 0.5 };
  const box = { width: 640, height: 480 };
  for (const turn of [0, 1, 2, 3]) {
    for (const flip of [false, true]) {
      const view = { zoom: 2.5, x: 0.1, y: -0.2 };
      const map = geometry.imageToScreen(size, { turn, flip }, view, box);
      const back = geometry.apply(geometry.inverse(map), geometry.apply(map, [70, 50]));
      assert.ok(Math.hypot(back[0] - 70, back[1] - 50) < 1e-9);
      // Zooming keeps what is under the pointer.
      const point = geometry.apply(map, [70, 50]);
      const closer = geometry.zoomed(view, 1.5, point, size, { turn }, box);
      const after = geometry.apply(geometry.imageToScreen(size, { turn, flip }, closer, box), [70, 50]);
      assert.ok(Math.hypot(after[0] - point[0], after[1] - point[1]) < 1e-9);
      const moved = geometry.panned(view, [12, -7], size, { turn }, box);
      const there = geometry.apply(geometry.imageToScreen(size, { turn, flip }, moved, box), [70, 50]);
      assert.ok(Math.hypot(there[0] - point[0] - 12, there[1] - point[1] + 7) < 1e-9);
    }
  }
  // A quarter turn clockwise brings the top left corner to the top right.
  const turned = geometry.imageToScreen(size, { turn: 1, flip: false }, { zoom: 1, x: 0, y: 0 }, box);
  const [x, y] = geometry.apply(turned, [0, 0]);
  assert.ok(x > 320 && y < 1e-9);
});

test("lengths in mm or px, and the cardiothoracic ratio", () => {
  /** @type {any} */
  const dicom = { spacing: { spacing: [0.2, 0.1], element: "PixelSpacing" } };
  /** @type {measure.Ruler} */
  const ruler = { from: [0, 0], to: [30, 40], kind: "length" };
  assert.deepEqual(measure.lengthOf(ruler, null), { value: 50, unit: "px" });
  assert.equal(measure.lengthOf(ruler, dicom).value, Math.hypot(3, 8));
  assert.equal(measure.lengthOf(ruler, dicom).unit, "mm");
  let rulers = measure.withRuler([], { from: [10, 5], to: [60, 5], kind: "heart" });
  assert.equal(measure.heartRatio(rulers, null), null);
  assert.equal(measure.nextOfRatio(rulers), "thorax");
  rulers = measure.withRuler(rulers, { from: [0, 9], to: [100, 9], kind: "thorax" });
  assert.equal(measure.heartRatio(rulers, null), 0.5);
  assert.equal(measure.heartRatio(rulers, dicom), 0.5);
  rulers = measure.withRuler(rulers, { from: [0, 9], to: [200, 9], kind: "thorax" });
  assert.equal(rulers.length, 2);
  assert.equal(measure.heartRatio(rulers, null), 0.25);
});

test("evidence is drawn where the map says, in fractions of its peak", () => {
  const cells = Array.from({ length: 8 }, (_, row) =>
    Array.from({ length: 8 }, (_, column) => (row === 5 && column === 2 ? 4 : -0.01)),
  );
  /** @type {any} */
  const evidence = {
    class_names: ["a", "b"],
    values: [cells, cells.map((row) => row.map(() => 0.0001))],
    placement: [0, 0, 1, 1],
  };
  const drawn = evidencePicture(evidence, "a", { width: 800, height: 800 });
  assert.equal(drawn.favor, 4);
  assert.ok(Math.abs(drawn.against + 0.63) < 1e-9);
  const grid = drawn.grid;
  assert.ok(grid);
  const at = (/** @type {number} */ x, /** @type {number} */ y) =>
    grid.values[Math.floor(y * grid.height) * grid.width + Math.floor(x * grid.width)];
  assert.ok(at(2.5 / 8, 5.5 / 8) > 0.98);
  assert.ok(at(0.9, 0.1) < 0.01);
  const [xs, ys] = [0, 1].map((axis) => [...drawn.lines[1]].filter((_, place) => place % 2 === axis));
  assert.ok(Math.abs(xs.reduce((sum, x) => sum + x, 0) / xs.length - 2.5 / 8) < 0.01);
  assert.ok(Math.abs(ys.reduce((sum, y) => sum + y, 0) / ys.length - 5.5 / 8) < 0.01);
  const pixels = bandsRgba(grid);
  assert.equal(pixels.length, 4 * grid.width * grid.height);
  assert.equal(evidencePicture(evidence, "b", { width: 800, height: 800 }).grid, null); // sums to less than 0.1
});

test("evidence of a padded image is cut to it", () => {
  const cells = Array.from({ length: 4 }, () => [0, 0, 0, 5]);
  /** @type {any} */
  const evidence = { class_names: ["a"], values: [cells], placement: [0.25, 0, 0.5, 1] };
  const { grid } = evidencePicture(evidence, "a", { width: 400, height: 200 });
  assert.ok(grid);
  assert.deepEqual([grid.width, grid.height], [384, 192]);
  assert.ok(grid.values[grid.width - 1] > 0.99);
  assert.equal(grid.values[0], 0);
});

test("evidence is drawn on the lung in its cell, and in cells without lung", () => {
  const cells = Array.from({ length: 4 }, () => [3, 3, 0, 0]);
  cells[3][3] = 1;
  /** @type {any} */
  const evidence = { class_names: ["a"], values: [cells], placement: [0, 0, 1, 1] };
  const { grid } = evidencePicture(evidence, "a", { width: WIDTH, height: HEIGHT, mask_rle: RUNS });
  assert.ok(grid);
  for (let place = 0; place < grid.values.length; place += 1) {
    const x = ((place % grid.width) + 0.5) / grid.width;
    const y = (Math.floor(place / grid.width) + 0.5) / grid.height;
    if (x >= 10 / WIDTH && x < 20 / WIDTH && y >= 6 / HEIGHT && y < 24 / HEIGHT) {
      assert.ok(grid.values[place] > 0.4);
    } else if (x > 0.38 && x < 0.5) assert.equal(grid.values[place], 0); // above and below the lung, in its cells
  }
  assert.ok(grid.values[grid.values.length - 1] > 0.3);
});
