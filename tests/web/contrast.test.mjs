import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const STYLE = readFileSync(new URL("../../src/hilum/service/web/css/base.css", import.meta.url), "utf8");
const [, LIGHT, DARK] = STYLE.split(":root {").map((part) =>
  Object.fromEntries(
    [...part.split("}")[0].matchAll(/--([\w-]+): (#[\da-f]{6});/g)].map(([, name, color]) => [name, color]),
  ),
);
const SURFACES = ["page", "panel", "raised", "selected"];

/** Pairs of text and background that the app draws; 4.5:1, WCAG 2.2, 1.4.3. @type {[string, string][]} */
const TEXT = [
  ...["text", "muted", "refused"].flatMap((color) =>
    SURFACES.map((on) => /** @type {[string, string]} */ ([color, on])),
  ),
  ["accent", "page"],
  ["accent", "panel"],
  ["on-accent", "accent"],
  ["page", "text"], // a notice
  ["uncertain", "uncertain-back"],
  ["refused", "refused-back"],
];
/** Parts without text that tell something; 3:1, WCAG 2.2, 1.4.11. @type {[string, string][]} */
const GRAPHICS = [
  ["chosen", "panel"],
  ["muted", "track"], // the bars of the other classes
  ["outline", "panel"],
  ["accent", "selected"],
  ["accent", "page"],
  ["accent", "raised"],
];

/** @param {string} color */
function luminance(color) {
  const [red, green, blue] = [1, 3, 5].map((place) => {
    const share = parseInt(color.slice(place, place + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** @param {string} one @param {string} other */
function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((first, second) => first - second);
  return (light + 0.05) / (dark + 0.05);
}

for (const [theme, colors] of Object.entries({ light: LIGHT, dark: DARK })) {
  test(`text and graphics have the contrast of WCAG AA, ${theme}`, () => {
    assert.deepEqual(Object.keys(colors).sort(), Object.keys(LIGHT).sort());
    const weak = [
      ...TEXT.filter(([color, on]) => contrast(colors[color], colors[on]) < 4.5),
      ...GRAPHICS.filter(([color, on]) => contrast(colors[color], colors[on]) < 3),
    ];
    assert.deepEqual(weak, []);
  });
}

test("the contrast of known pairs", () => {
  assert.equal(contrast("#000000", "#ffffff"), 21);
  assert.equal(contrast("#767676", "#ffffff").toFixed(2), "4.54");
});
