/** Gray values of an image and their window: from stored values to gray levels of the screen. */

/**
 * A decoded image, as /v1/image returns it.
 *
 * @typedef {object} StoredImage
 * @property {number} width
 * @property {number} height
 * @property {number} lowest Stored value of index 0.
 * @property {number} slope
 * @property {number} intercept
 * @property {boolean} inverted Whether larger values are darker.
 * @property {number} aspect Height of a pixel over its width.
 * @property {Window[]} presets
 * @property {Uint16Array} table Display value in [0, 65535] of each index, as the model's reading has it.
 * @property {Level[]} levels The image and its halves, the largest first.
 * @property {[number, number]} range Smallest and largest rescaled value.
 */

/** @typedef {{name: string, center: number, width: number, function: string}} Window In rescaled values. */
/** @typedef {{width: number, height: number, pixels: Uint8Array | Uint16Array}} Level */

const HALVED_ABOVE = 1_000_000; // pixels

/**
 * Return the image of a response of /v1/image.
 *
 * @param {any} facts JSON of the header X-Hilum-Image.
 * @param {ArrayBuffer} buffer
 * @returns {StoredImage}
 */
export function storedImage(facts, buffer) {
  const { width, height, levels: count, lowest, slope, intercept, inverted, presets, pixel_aspect: aspect } = facts;
  const wide = count > 256;
  const size = width * height * (wide ? 2 : 1);
  const pixels = wide ? new Uint16Array(buffer, 0, width * height) : new Uint8Array(buffer, 0, width * height);
  const table = new Uint16Array(buffer.slice(size, size + 2 * count));
  let [least, most] = [count, 0];
  for (const value of pixels) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const ends = [least, most].map((index) => (index + lowest) * slope + intercept);
  /** @type {Level[]} */
  const levels = [{ width, height, pixels }];
  while (levels[levels.length - 1].pixels.length > HALVED_ABOVE) levels.push(halved(levels[levels.length - 1]));
  return {
    width,
    height,
    lowest,
    slope,
    intercept,
    inverted,
    aspect,
    presets,
    table,
    levels,
    range: [Math.min(...ends), Math.max(...ends)],
  };
}

/**
 * Return an image of half the size, averaged over 2 × 2 pixels.
 *
 * @param {Level} level
 * @returns {Level}
 */
export function halved({ width, height, pixels }) {
  const [columns, rows] = [width >> 1, height >> 1];
  const Values = /** @type {Uint16ArrayConstructor} */ (pixels.constructor);
  const small = new Values(columns * rows);
  for (let row = 0; row < rows; row += 1) {
    let at = 2 * row * width;
    for (let place = row * columns; place < (row + 1) * columns; place += 1, at += 2) {
      small[place] = (pixels[at] + pixels[at + 1] + pixels[at + width] + pixels[at + width + 1] + 2) >> 2;
    }
  }
  return { width: columns, height: rows, pixels: small };
}

/**
 * Return the window that covers all values of an image.
 *
 * @param {StoredImage} image
 * @returns {Window}
 */
export function fullWindow(image) {
  const [low, high] = image.range;
  return {
    name: "Full range",
    center: (low + high) / 2,
    width: Math.max(1, high - low),
    function: "LINEAR_EXACT",
  };
}

/**
 * Return the gray level of the screen, 0 to 255, for each index of an image.
 *
 * @param {StoredImage} image
 * @param {{window: Window | null, invert: boolean}} display
 * @returns {Uint8Array}
 */
export function grayTable(image, { window, invert }) {
  const { table, lowest, slope, intercept, inverted } = image;
  const grays = new Uint8Array(table.length);
  for (let index = 0; index < table.length; index += 1) {
    let share = window ? shown((index + lowest) * slope + intercept, window) : table[index] / 65535;
    if (window && inverted) share = 1 - share;
    grays[index] = Math.round(255 * (invert ? 1 - share : share));
  }
  return grays;
}

/**
 * Return the display value in [0, 1] of a rescaled value (DICOM PS3.3 C.11.2.1.2).
 *
 * @param {number} value
 * @param {Window} window
 */
function shown(value, { center, width, function: kind }) {
  if (kind === "SIGMOID") return 1 / (1 + Math.exp((-4 * (value - center)) / width));
  const linear = kind === "LINEAR";
  const span = linear ? width - 1 : width;
  const from = linear ? center - 0.5 : center;
  if (span <= 0) return value > from ? 1 : 0;
  return Math.min(1, Math.max(0, (value - from) / span + 0.5));
}

/**
 * Return the pixels of an image at a level as RGBA.
 *
 * @param {Level} level
 * @param {Uint8Array} grays From grayTable.
 */
export function rgba({ pixels }, grays) {
  const out = new Uint32Array(pixels.length);
  const colors = new Uint32Array(grays.length);
  for (let index = 0; index < grays.length; index += 1) colors[index] = 0xff000000 | (grays[index] * 0x010101);
  for (let place = 0; place < pixels.length; place += 1) out[place] = colors[pixels[place]];
  return new Uint8ClampedArray(out.buffer);
}

/**
 * Return the window after a drag: to the right wider, upwards brighter.
 *
 * @param {StoredImage} image
 * @param {Window} window
 * @param {number} across In CSS pixels.
 * @param {number} down In CSS pixels.
 * @returns {Window}
 */
export function draggedWindow(image, window, across, down) {
  const [low, high] = image.range;
  const step = Math.max(1, high - low) / 500;
  const sign = image.inverted ? -1 : 1;
  const center = window.center + sign * step * down;
  return {
    name: "Manual",
    center: Math.min(high + window.width, Math.max(low - window.width, center)),
    width: Math.max(Math.max(1, step), window.width + step * across),
    function: window.function === "SIGMOID" ? "SIGMOID" : "LINEAR_EXACT",
  };
}
