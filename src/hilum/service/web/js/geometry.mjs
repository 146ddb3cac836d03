/** Where a pixel of the image is on the screen, and the other way round. */

/** @import { Display, View } from "./records.mjs" */

/**
 * An affine map: x' = a x + c y + e, y' = b x + d y + f, as CanvasRenderingContext2D.setTransform takes it.
 *
 * @typedef {[a: number, b: number, c: number, d: number, e: number, f: number]} Affine
 */

/** @typedef {[x: number, y: number]} Point */

/** Of an image; `aspect` is the height of a pixel over its width. @typedef {{width: number, height: number, aspect: number}} Size */

export const LEAST_ZOOM = 0.5;
export const MOST_ZOOM = 40;

/**
 * Return the affine map that applies `inner`, then `outer`.
 *
 * @param {Affine} outer
 * @param {Affine} inner
 * @returns {Affine}
 */
export function after(outer, inner) {
  const [a, b, c, d, e, f] = outer;
  const [g, h, i, j, k, l] = inner;
  return [a * g + c * h, b * g + d * h, a * i + c * j, b * i + d * j, a * k + c * l + e, b * k + d * l + f];
}

/**
 * @param {Affine} map
 * @returns {Affine}
 */
export function inverse([a, b, c, d, e, f]) {
  const area = a * d - b * c;
  return [d / area, -b / area, -c / area, a / area, (c * f - d * e) / area, (b * e - a * f) / area];
}

/**
 * @param {Affine} map
 * @param {Point} point
 * @returns {Point}
 */
export function apply([a, b, c, d, e, f], [x, y]) {
  return [a * x + c * y + e, b * x + d * y + f];
}

/**
 * Return the size of an image after its rotation, in widths of a pixel.
 *
 * @param {Size} size
 * @param {number} turn
 * @returns {[width: number, height: number]}
 */
export function turnedSize({ width, height, aspect }, turn) {
  return turn % 2 ? [height * aspect, width] : [width, height * aspect];
}

/**
 * Return the pixels of the screen for one pixel of the image, without zoom: the whole image is in view.
 *
 * @param {Size} size
 * @param {Pick<Display, "turn">} display
 * @param {{width: number, height: number}} box
 */
export function fitScale(size, display, box) {
  const [width, height] = turnedSize(size, display.turn);
  return Math.min(box.width / width, box.height / height);
}

/**
 * Return the map from the image to the screen.
 *
 * @param {Size} size
 * @param {Pick<Display, "turn" | "flip">} display
 * @param {View} view
 * @param {{width: number, height: number}} box Of the screen.
 * @returns {Affine}
 */
export function imageToScreen(size, display, view, box) {
  const [width, height] = turnedSize(size, display.turn);
  const scale = fitScale(size, display, box) * view.zoom;
  const quarter = ((display.turn % 4) + 4) % 4;
  const [cosine, sine] = /** @type {[number, number][]} */ ([
    [1, 0],
    [0, 1],
    [-1, 0],
    [0, -1],
  ])[quarter];
  /** @type {Affine} */
  const centered = [1, 0, 0, size.aspect, -size.width / 2, (-size.height * size.aspect) / 2];
  /** @type {Affine} */
  const turned = [cosine, sine, -sine, cosine, 0, 0];
  /** @type {Affine} */
  const flipped = [display.flip ? -1 : 1, 0, 0, 1, 0, 0];
  /** @type {Affine} */
  const placed = [scale, 0, 0, scale, box.width / 2 - view.x * width * scale, box.height / 2 - view.y * height * scale];
  return after(placed, after(flipped, after(turned, centered)));
}

/**
 * Return the view after zooming by a factor, so that the place under a point of the screen stays.
 *
 * @param {View} view
 * @param {number} factor
 * @param {Point} point
 * @param {Size} size
 * @param {Pick<Display, "turn">} display
 * @param {{width: number, height: number}} box
 * @returns {View}
 */
export function zoomed(view, factor, point, size, display, box) {
  const zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, view.zoom * factor));
  const [width, height] = turnedSize(size, display.turn);
  const scale = fitScale(size, display, box);
  const [across, down] = [point[0] - box.width / 2, point[1] - box.height / 2];
  const shift = 1 / (scale * view.zoom) - 1 / (scale * zoom);
  return kept({
    zoom,
    x: view.x + (across * shift) / width,
    y: view.y + (down * shift) / height,
  });
}

/**
 * Return the view after a drag by some pixels of the screen.
 *
 * @param {View} view
 * @param {Point} by
 * @param {Size} size
 * @param {Pick<Display, "turn">} display
 * @param {{width: number, height: number}} box
 * @returns {View}
 */
export function panned(view, by, size, display, box) {
  const [width, height] = turnedSize(size, display.turn);
  const scale = fitScale(size, display, box) * view.zoom;
  return kept({
    ...view,
    x: view.x - by[0] / (width * scale),
    y: view.y - by[1] / (height * scale),
  });
}

/**
 * The middle of the view stays on the image.
 *
 * @param {View} view
 * @returns {View}
 */
function kept({ zoom, x, y }) {
  return {
    zoom,
    x: Math.min(0.5, Math.max(-0.5, x)),
    y: Math.min(0.5, Math.max(-0.5, y)),
  };
}
