/** The tools of the viewer. */

import { button, element } from "./dom.mjs";
import { WHOLE } from "./records.mjs";
import { fullWindow } from "./values.mjs";

/** @import { App } from "./app.mjs" */
/** @import { ImageRecord, State, Tool } from "./records.mjs" */
/** @import { Stage } from "./stage.mjs" */

/** @type {[Tool, string, string, string][]} */
const TOOLS = [
  ["window", "Window", "w", "Drag: window and level"],
  ["pan", "Pan", "p", "Drag: move the image (also Shift, Space or the middle button)"],
  ["ruler", "Ruler", "m", "Drag: measure a length"],
  ["ratio", "CTR", "t", "Cardiothoracic ratio: drag across the heart, then across the thorax"],
];

/**
 * Return the toolbar and the function that draws it.
 *
 * @param {App} app
 * @param {Stage} stage
 */
export function toolbar(app, stage) {
  const { store } = app;
  const tools = TOOLS.map(([tool, label, key, title]) =>
    button(label, () => store.set({ tool }), { title: `${title} (${key})`, "data-tool": tool }),
  );
  const preset = element("select", { "aria-label": "Window preset" });
  preset.addEventListener("change", () => choosePreset(app, preset.value));
  const invert = button("Invert", () => app.display({ invert: !displayOf(app).invert }), { title: "i" });
  const compare = button("Compare", () => app.compare(), { title: "Two images side by side (c)" });
  const clear = button("Clear rulers", () => stage.clearRulers());
  const overlays = overlayGroup(app);
  const groups = [tools, [preset, invert], viewButtons(app, stage), overlays.parts, [compare, clear]];
  const root = element("div", { class: "tools", role: "toolbar", "aria-label": "Tools" });
  root.append(...groups.map((group) => element("div", { class: "group" }, ...group)));
  return {
    root,
    /** @param {State} state @param {ImageRecord | null} record */
    draw(state, record) {
      for (const tool of tools) tool.setAttribute("aria-pressed", String(tool.dataset.tool === state.tool));
      invert.setAttribute("aria-pressed", String(Boolean(record?.display.invert)));
      compare.setAttribute("aria-pressed", String(Boolean(state.compared)));
      clear.hidden = !record?.rulers.length;
      overlays.draw(state, record);
      drawPresets(preset, state, record);
    },
  };
}

/**
 * @param {App} app
 * @param {Stage} stage
 */
function viewButtons(app, stage) {
  return [
    button("Fit", () => app.store.set({ view: WHOLE }), { title: "Whole image (f)" }),
    button("1:1", () => stage.oneToOne(), { title: "One pixel of the image on one of the screen (z)" }),
    button("⟳", () => app.turn(1), { title: "Rotate clockwise (r)", "aria-label": "Rotate clockwise" }),
    button("⇋", () => app.display({ flip: !displayOf(app).flip }), { title: "Flip (h)", "aria-label": "Flip" }),
  ];
}

/** @param {App} app */
function overlayGroup(app) {
  const { store } = app;
  const outline = button("Outline", () => app.overlay({ outline: !store.get().overlays.outline }), { title: "l" });
  const evidence = button("Evidence", () => app.overlay({ evidence: !store.get().overlays.evidence }), { title: "e" });
  const opacity = element("input", {
    type: "range",
    min: 0,
    max: 100,
    step: 5,
    "aria-label": "Opacity of the evidence",
  });
  opacity.addEventListener("input", () => app.overlay({ opacity: Number(opacity.value) / 100 }));
  return {
    parts: [outline, evidence, opacity],
    /** @param {State} state @param {ImageRecord | null} record */
    draw(state, record) {
      outline.setAttribute("aria-pressed", String(state.overlays.outline));
      evidence.setAttribute("aria-pressed", String(state.overlays.evidence));
      outline.disabled = !record?.prediction;
      evidence.disabled = opacity.disabled = !record?.prediction?.evidence;
      opacity.value = String(Math.round(100 * state.overlays.opacity));
    },
  };
}

/** @param {App} app */
function displayOf(app) {
  const { records, selected } = app.store.get();
  return /** @type {ImageRecord} */ (records.get(selected ?? "")).display;
}

/**
 * @param {HTMLSelectElement} select
 * @param {State} state
 * @param {ImageRecord | null} record
 */
function drawPresets(select, state, record) {
  const image = record && state.images.get(record.key);
  const presets = typeof image === "object" ? (image?.presets ?? []) : [];
  const names = ["As analyzed", ...presets.map((window) => window.name), "Full range"];
  const window = record?.display.window;
  if (window?.name === "Manual") names.push("Manual");
  const key = names.join("\n");
  if (select.dataset.names !== key) {
    select.dataset.names = key;
    select.replaceChildren(...names.map((name, place) => element("option", { value: String(place) }, name)));
  }
  select.selectedIndex = window ? Math.max(0, names.indexOf(window.name, 1)) : 0;
  select.disabled = typeof image !== "object";
}

/**
 * @param {App} app
 * @param {string} value
 */
function choosePreset(app, value) {
  const { records, selected, images } = app.store.get();
  const image = images.get(records.get(selected ?? "")?.key ?? "");
  if (typeof image !== "object") return;
  const place = Number(value);
  if (place === 0) app.display({ window: null });
  else app.display({ window: image.presets[place - 1] ?? fullWindow(image) });
}
