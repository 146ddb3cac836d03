/** Lengths on an image, and the cardiothoracic ratio of two of them. */

/** @import { DicomHeader } from "./dicom.mjs" */

/** @typedef {{from: [number, number], to: [number, number], kind: "length" | "heart" | "thorax"}} Ruler In image pixels. */

/**
 * Return the length of a ruler: in mm where the file has a pixel spacing, else in pixels.
 *
 * @param {Ruler} ruler
 * @param {DicomHeader | null} dicom
 * @returns {{value: number, unit: "mm" | "px"}}
 */
export function lengthOf({ from, to }, dicom) {
  const [row, column] = dicom?.spacing?.spacing ?? [1, 1];
  const value = Math.hypot((to[0] - from[0]) * column, (to[1] - from[1]) * row);
  return { value, unit: dicom?.spacing ? "mm" : "px" };
}

/**
 * Return the text beside a ruler.
 *
 * @param {Ruler} ruler
 * @param {DicomHeader | null} dicom
 */
export function rulerText(ruler, dicom) {
  const { value, unit } = lengthOf(ruler, dicom);
  const name = ruler.kind === "length" ? "" : ruler.kind === "heart" ? "Heart " : "Thorax ";
  return `${name}${value < 10 && unit === "mm" ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

/**
 * Return the cardiothoracic ratio, heart over thorax, of the last ruler of each kind; null without both.
 *
 * @param {readonly Ruler[]} rulers
 * @param {DicomHeader | null} dicom
 */
export function heartRatio(rulers, dicom) {
  const heart = rulers.filter((ruler) => ruler.kind === "heart").at(-1);
  const thorax = rulers.filter((ruler) => ruler.kind === "thorax").at(-1);
  if (!heart || !thorax) return null;
  const wide = lengthOf(thorax, dicom).value;
  return wide > 0 ? lengthOf(heart, dicom).value / wide : null;
}

/**
 * Return the rulers with one more; of heart and thorax only the last is kept.
 *
 * @param {readonly Ruler[]} rulers
 * @param {Ruler} ruler
 * @returns {readonly Ruler[]}
 */
export function withRuler(rulers, ruler) {
  const rest = ruler.kind === "length" ? rulers : rulers.filter((other) => other.kind !== ruler.kind);
  return [...rest, Object.freeze(ruler)];
}

/**
 * Return what the next ruler of the ratio measures: first the heart, then the thorax.
 *
 * @param {readonly Ruler[]} rulers
 * @returns {"heart" | "thorax"}
 */
export function nextOfRatio(rulers) {
  const has = new Set(rulers.map((ruler) => ruler.kind));
  return has.has("heart") && !has.has("thorax") ? "thorax" : "heart";
}

/**
 * Return where the scale of lengths comes from, in words.
 *
 * @param {DicomHeader | null} dicom
 */
export function scaleText(dicom) {
  if (!dicom?.spacing) return "No pixel spacing in the file: lengths are in pixels.";
  return dicom.spacing.element === "PixelSpacing"
    ? "Lengths by PixelSpacing."
    : "Lengths by ImagerPixelSpacing, at the detector: in the patient they are smaller.";
}
