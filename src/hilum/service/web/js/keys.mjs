/** The keys, which `?` lists. */

import { WHOLE, listed } from "./records.mjs";

/** @import { App } from "./app.mjs" */
/** @import { ReviewPanel } from "./review_panel.mjs" */
/** @import { Stage } from "./stage.mjs" */

/** The keys by subject, as the help shows them. @type {[string, [string, string][]][]} */
export const KEYS = [
  [
    "Images",
    [
      ["↓ or j, ↑ or k", "next image, previous image"],
      ["Home, End", "first image, last image"],
      ["c", "compare two images side by side, with linked zoom"],
      ["Delete", "remove the image"],
    ],
  ],
  [
    "View",
    [
      ["drag", "window and level"],
      ["wheel", "zoom at the pointer"],
      ["Shift, Space or middle button + drag", "move the image"],
      ["f, z, + and −", "whole image, one to one, zoom"],
      ["i, r, h", "invert, rotate, flip"],
      ["0", "window as analyzed"],
      ["o, held", "the image alone"],
      ["l, e", "lung outline, evidence"],
      ["1 to 9", "evidence for another class"],
      ["w, p, m, t", "window, pan, ruler, cardiothoracic ratio"],
    ],
  ],
  [
    "Review",
    [
      ["a", "agree, and go on"],
      ["Shift + 1 to 9", "another class"],
      ["x", "not assessable"],
      ["n", "write a note"],
      ["b", "correct the lung outline; [ and ] change the brush, Ctrl + z takes a stroke back"],
    ],
  ],
];

/**
 * Act on keys, unless something is being typed or a dialog is open.
 *
 * @param {App} app
 * @param {Stage} stage
 * @param {ReviewPanel} panel
 */
export function listenToKeys(app, stage, panel) {
  const actions = actionsOf(app, stage, panel);
  addEventListener("keydown", (event) => {
    const { dialog, records } = app.store.get();
    const target = event.target instanceof HTMLElement ? event.target : document.body;
    const isTyping = target.closest("input:not([type=range]), textarea, select");
    if (isTyping || dialog || event.metaKey) {
      if (event.key === "Escape" && isTyping) target.blur();
      return;
    }
    if (event.key === "?") app.openDialog("help");
    else if (!records.size) return;
    else if (event.ctrlKey) {
      if (event.key !== "z") return;
      stage.undo();
    } else if (event.key === " " || event.key === "o") {
      if (event.key === " " && target.closest("button, a, summary")) return;
      if (event.key === " ") stage.space = true;
      stage.show(event.key === "o" ? { bare: true } : {});
    } else if (/^Digit[1-9]$/.test(event.code)) {
      const place = Number(event.code.slice(5)) - 1;
      if (event.shiftKey) panel.chooseClass(place);
      else app.chooseEvidence(place);
    } else {
      const action = actions[event.key];
      if (!action) return;
      action();
    }
    event.preventDefault();
  });
  const release = () => {
    stage.space = false;
    stage.show({ bare: false });
  };
  addEventListener("keyup", (event) => (event.key === " " || event.key === "o") && release());
  addEventListener("blur", release);
}

/**
 * @param {App} app
 * @param {Stage} stage
 * @param {ReviewPanel} panel
 * @returns {Record<string, () => void>}
 */
function actionsOf(app, stage, panel) {
  const { store } = app;
  const display = () => {
    const { records, selected } = store.get();
    return records.get(selected ?? "")?.display ?? { invert: false, flip: false };
  };
  const next = () => app.step(1);
  const previous = () => app.step(-1);
  const size = (/** @type {number} */ by) =>
    store.set(({ brush }) => ({
      brush: {
        ...brush,
        radius: Math.max(1, Math.round(brush.radius * by + (by > 1 ? 1 : 0))),
      },
    }));
  return {
    j: next,
    ArrowDown: next,
    k: previous,
    ArrowUp: previous,
    Home: () => app.step(-listed(store.get()).length),
    End: () => app.step(listed(store.get()).length),
    c: () => app.compare(),
    Escape: () => store.set({ compared: null, tool: "window" }),
    Delete: () => app.remove([store.get().selected ?? ""]),
    f: () => store.set({ view: WHOLE }),
    z: () => stage.oneToOne(),
    "+": () => stage.zoom(1.25),
    "=": () => stage.zoom(1.25),
    "-": () => stage.zoom(0.8),
    i: () => app.display({ invert: !display().invert }),
    r: () => app.turn(1),
    h: () => app.display({ flip: !display().flip }),
    0: () => app.display({ window: null }),
    l: () => app.overlay({ outline: !store.get().overlays.outline }),
    e: () => app.overlay({ evidence: !store.get().overlays.evidence }),
    w: () => store.set({ tool: "window" }),
    p: () => app.use("pan"),
    m: () => app.use("ruler"),
    t: () => app.use("ratio"),
    a: () => panel.agree(),
    x: () => app.review({ decision: "not_assessable", label: "" }),
    n: () => panel.writeNote(),
    b: () => app.toggleBrush(),
    "[": () => size(0.8),
    "]": () => size(1.25),
  };
}
