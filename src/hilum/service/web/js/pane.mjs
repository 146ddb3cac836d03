/** One image on a canvas: its gray values under a window, lung outline, evidence and rulers, by the state alone. */

import { contour } from "./contour.mjs";
import { BANDS, bandsRgba, evidencePicture } from "./evidence.mjs";
import { apply, fitScale, imageToScreen } from "./geometry.mjs";
import { coverage, smoothed } from "./mask.mjs";
import { rulerText } from "./measure.mjs";
import { fullWindow, grayTable, rgba } from "./values.mjs";

/** @import { Prediction } from "./api.mjs" */
/** @import { EvidencePicture } from "./evidence.mjs" */
/** @import { Affine, Point, Size } from "./geometry.mjs" */
/** @import { MaskGrid } from "./mask.mjs" */
/** @import { Ruler } from "./measure.mjs" */
/** @import { ImageRecord, State, View } from "./records.mjs" */
/** @import { StoredImage } from "./values.mjs" */

const OUTLINE = "#56b4e9"; // Okabe and Ito's sky blue, as in the library's overlays
const RULER = "#f0e442";
const HALO = "rgba(0, 0, 0, 0.65)";

/** @typedef {{bare: boolean, draft: Ruler | null, brush: Point | null}} Momentary What is shown while a key or button is held. */

export class Pane {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.base = document.createElement("canvas");
    this.heat = document.createElement("canvas");
    /** @type {unknown[]} */
    this.baseOf = [];
    /** @type {EvidencePicture | null} */
    this.heatOf = null;
    /** @type {Size} */
    this.size = { width: 1, height: 1, aspect: 1 };
    this.thumbnail = new Image();
    this.redraw = () => {};
    this.thumbnail.onload = () => this.redraw();
  }

  /** The canvas in CSS pixels. */
  get box() {
    return {
      width: this.canvas.clientWidth || 1,
      height: this.canvas.clientHeight || 1,
    };
  }

  /**
   * Return the map from the image to CSS pixels of the canvas.
   *
   * @param {ImageRecord} record
   * @param {View} view
   * @returns {Affine}
   */
  map(record, view) {
    return imageToScreen(this.size, record.display, view, this.box);
  }

  /**
   * Draw a record.
   *
   * @param {State} state
   * @param {ImageRecord | null} record
   * @param {Momentary} momentary
   */
  draw(state, record, momentary) {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.box;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high)
      Object.assign(this.canvas, { width: wide, height: high });
    this.pen.setTransform(1, 0, 0, 1, 0, 0);
    this.pen.clearRect(0, 0, wide, high);
    this.canvas.dataset.key = record?.key ?? "";
    this.canvas.dataset.status = record?.status ?? "";
    this.canvas.dataset.content = "none";
    if (!record) return;
    const image = state.images.get(record.key);
    const decoded = typeof image === "object" ? image : null;
    this.size = sizeOf(record, decoded, this.thumbnail);
    const map = this.map(record, state.view);
    this.pen.setTransform(
      ratio * map[0],
      ratio * map[1],
      ratio * map[2],
      ratio * map[3],
      ratio * map[4],
      ratio * map[5],
    );
    const scale = ratio * fitScale(this.size, record.display, this.box) * state.view.zoom;
    if (decoded) this.drawImage(decoded, record, scale, momentary.bare);
    else this.drawThumbnail(record);
    if (record.prediction && !momentary.bare) this.drawAnswer(state, record, record.prediction, ratio / scale);
    for (const ruler of momentary.draft ? [...record.rulers, momentary.draft] : record.rulers)
      this.drawRuler(ruler, record, map, ratio, scale);
    if (momentary.brush && state.tool === "brush") this.drawBrush(momentary.brush, state.brush.radius, ratio / scale);
  }

  /**
   * @param {StoredImage} image
   * @param {ImageRecord} record
   * @param {number} scale Pixels of the screen for one of the image.
   * @param {boolean} bare As the model reads it.
   */
  drawImage(image, record, scale, bare) {
    const number = Math.min(image.levels.length - 1, Math.max(0, Math.floor(-Math.log2(scale))));
    const level = image.levels[number];
    const display = bare ? { window: null, invert: record.display.invert } : record.display;
    const wanted = [image, number, display.window, display.invert];
    if (wanted.some((part, place) => part !== this.baseOf[place])) {
      this.base.width = level.width;
      this.base.height = level.height;
      const pixels = new ImageData(rgba(level, grayTable(image, display)), level.width, level.height);
      this.base.getContext("2d")?.putImageData(pixels, 0, 0);
      this.baseOf = wanted;
    }
    this.pen.imageSmoothingEnabled = scale * 2 ** number < 4;
    this.pen.imageSmoothingQuality = "high";
    this.pen.drawImage(this.base, 0, 0, level.width * 2 ** number, level.height * 2 ** number);
    this.canvas.dataset.content = "image";
  }

  /** @param {ImageRecord} record */
  drawThumbnail(record) {
    if (!record.thumbnail) return;
    if (this.thumbnail.src !== record.thumbnail) this.thumbnail.src = record.thumbnail;
    if (!this.thumbnail.complete || !this.thumbnail.naturalWidth) return;
    this.pen.imageSmoothingEnabled = true;
    this.pen.filter = record.display.invert ? "invert(1)" : "none";
    this.pen.drawImage(this.thumbnail, 0, 0, this.size.width, this.size.height);
    this.pen.filter = "none";
    this.canvas.dataset.content = "thumbnail";
  }

  /**
   * @param {State} state
   * @param {ImageRecord} record
   * @param {Prediction} prediction
   * @param {number} unit Pixels of the image for one CSS pixel.
   */
  drawAnswer(state, record, prediction, unit) {
    const { outline, evidence, opacity } = state.overlays;
    const name = state.evidenceClass ?? prediction.predicted_label;
    const picture = evidence && state.tool !== "brush" ? pictureOf(prediction, name) : null;
    if (picture?.grid) {
      if (this.heatOf !== picture) {
        Object.assign(this.heat, {
          width: picture.grid.width,
          height: picture.grid.height,
        });
        const pixels = new ImageData(bandsRgba(picture.grid), picture.grid.width, picture.grid.height);
        this.heat.getContext("2d")?.putImageData(pixels, 0, 0);
        this.heatOf = picture;
      }
      this.pen.imageSmoothingEnabled = true;
      this.pen.globalAlpha = Math.min(1, opacity);
      this.pen.drawImage(this.heat, 0, 0, this.size.width, this.size.height);
      picture.lines.forEach((line, band) => this.stroke(line, `rgb(${BANDS[band].join(",")})`, 1.4 * unit, 0));
      this.pen.globalAlpha = 1;
    }
    if (outline) {
      const lines = outlineOf(prediction, record.review?.grid ?? null);
      if (lines) this.stroke(lines, record.review?.grid ? "#7ddf9a" : OUTLINE, 1.8 * unit, 2.2 * unit);
    }
  }

  /**
   * @param {Float32Array} lines Segments in fractions of the image.
   * @param {string} color
   * @param {number} width
   * @param {number} halo
   */
  stroke(lines, color, width, halo) {
    const path = new Path2D();
    for (let place = 0; place < lines.length; place += 4) {
      path.moveTo(lines[place] * this.size.width, lines[place + 1] * this.size.height);
      path.lineTo(lines[place + 2] * this.size.width, lines[place + 3] * this.size.height);
    }
    this.pen.lineCap = "round";
    for (const [style, wide] of halo
      ? [
          [HALO, width + halo],
          [color, width],
        ]
      : [[color, width]]) {
      this.pen.strokeStyle = String(style);
      this.pen.lineWidth = Number(wide);
      this.pen.stroke(path);
    }
  }

  /**
   * @param {Ruler} ruler
   * @param {ImageRecord} record
   * @param {Affine} map
   * @param {number} ratio
   * @param {number} scale
   */
  drawRuler(ruler, record, map, ratio, scale) {
    const { width, height } = this.size;
    const line = Float32Array.of(
      ruler.from[0] / width,
      ruler.from[1] / height,
      ruler.to[0] / width,
      ruler.to[1] / height,
    );
    this.stroke(line, RULER, (1.8 * ratio) / scale, (2.2 * ratio) / scale);
    const [x, y] = apply(map, ruler.to);
    this.pen.save();
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.pen.font = "600 13px system-ui, sans-serif";
    const text = rulerText(ruler, record.dicom);
    const wide = this.pen.measureText(text).width;
    const left = Math.min(this.box.width - wide - 8, x + 10);
    this.pen.fillStyle = "rgba(0, 0, 0, 0.7)";
    this.pen.fillRect(left - 5, y - 11, wide + 10, 22);
    this.pen.fillStyle = RULER;
    this.pen.fillText(text, left, y + 5);
    this.pen.restore();
  }

  /**
   * @param {Point} place In pixels of the image.
   * @param {number} radius
   * @param {number} unit
   */
  drawBrush([x, y], radius, unit) {
    this.pen.beginPath();
    this.pen.arc(x, y, radius, 0, 2 * Math.PI);
    this.pen.lineWidth = 1.2 * unit;
    this.pen.strokeStyle = "#fff";
    this.pen.stroke();
  }
}

/**
 * Return the window that a drag starts from: the one that is set, else the file's first, else the whole range.
 *
 * @param {StoredImage} image
 * @param {ImageRecord} record
 */
export function currentWindow(image, record) {
  return record.display.window ?? image.presets[0] ?? fullWindow(image);
}

/**
 * @param {ImageRecord} record
 * @param {StoredImage | null} image
 * @param {HTMLImageElement} thumbnail
 * @returns {Size}
 */
function sizeOf(record, image, thumbnail) {
  if (image) return { width: image.width, height: image.height, aspect: image.aspect };
  const { prediction } = record;
  if (prediction) return { width: prediction.width, height: prediction.height, aspect: prediction.pixel_aspect };
  return { width: thumbnail.naturalWidth || 1, height: thumbnail.naturalHeight || 1, aspect: 1 };
}

/** @type {WeakMap<Prediction, Map<string, EvidencePicture>>} */
const pictures = new WeakMap();

/**
 * Return what is drawn of a class's evidence, computed once; null where the network has none.
 *
 * @param {Prediction} prediction
 * @param {string} name
 * @returns {EvidencePicture | null}
 */
export function pictureOf(prediction, name) {
  if (!prediction.evidence) return null;
  const found = pictures.get(prediction) ?? new Map();
  pictures.set(prediction, found);
  if (!found.has(name)) {
    found.clear(); // one at a time is in view
    found.set(name, evidencePicture(prediction.evidence, name, prediction));
  }
  return found.get(name) ?? null;
}

/** @type {WeakMap<object, Float32Array>} */
const outlines = new WeakMap();

/**
 * @param {Prediction} prediction
 * @param {MaskGrid | null} grid A correction.
 */
function outlineOf(prediction, grid) {
  const key = grid ?? prediction;
  let lines = outlines.get(key);
  if (!lines) {
    if (!grid && !prediction.mask_rle) return null;
    lines = grid
      ? contour(smoothed(grid), 0.5)
      : contour(smoothed(coverage(/** @type {any} */ (prediction.mask_rle)), 2), 0.5);
    outlines.set(key, lines);
  }
  return lines;
}
