/** The viewer: one or two images with linked zoom, the tools, and what the pointer does. */

import { element } from "./dom.mjs";
import { apply, fitScale, inverse, panned, zoomed } from "./geometry.mjs";
import { painted } from "./mask.mjs";
import { heartRatio, nextOfRatio, scaleText, withRuler } from "./measure.mjs";
import { Pane, currentWindow } from "./pane.mjs";
import { WHOLE, changed, selectedRecord } from "./records.mjs";
import { toolbar } from "./toolbar.mjs";
import { draggedWindow } from "./values.mjs";
import { explained } from "./words.mjs";

/** @import { App } from "./app.mjs" */
/** @import { Point } from "./geometry.mjs" */
/** @import { MaskGrid } from "./mask.mjs" */
/** @import { Momentary } from "./pane.mjs" */
/** @import { ImageRecord, State } from "./records.mjs" */

const UNDONE = 20; // strokes that can be undone

/** @typedef {{pane: Pane, frame: HTMLElement, corners: HTMLElement[], message: HTMLElement}} Frame */

export class Stage {
  /**
   * @param {App} app
   * @param {HTMLElement} root
   */
  constructor(app, root) {
    this.app = app;
    /** @type {Momentary} */
    this.momentary = { bare: false, draft: null, brush: null };
    this.space = false;
    /** @type {Map<number, PointerEvent>} */
    this.pointers = new Map();
    /** @type {(MaskGrid | null)[]} */
    this.undone = [];
    /** @type {string | undefined} */
    this.shownKey = undefined;
    this.main = this.frame("main");
    this.other = this.frame("other");
    this.tools = toolbar(app, this);
    this.status = element("p", { class: "status muted", role: "status" });
    root.append(element("div", { class: "frames" }, this.other.frame, this.main.frame), this.tools.root, this.status);
    for (const { pane } of [this.main, this.other]) {
      pane.redraw = () => this.refresh();
      new ResizeObserver(() => this.refresh()).observe(pane.canvas);
      this.listen(pane);
    }
  }

  /** @param {string} name @returns {Frame} */
  frame(name) {
    const canvas = element("canvas", { tabIndex: 0, role: "img", class: name });
    const corners = ["tl", "tr", "bl", "br"].map((place) => element("div", { class: `corner ${place}` }));
    const message = element("p", { class: "message", hidden: true });
    return {
      pane: new Pane(canvas),
      corners,
      message,
      frame: element("div", { class: `frame ${name}` }, canvas, ...corners, message),
    };
  }

  refresh() {
    this.app.store.set({});
  }

  /** @param {Partial<Momentary>} momentary */
  show(momentary) {
    Object.assign(this.momentary, momentary);
    this.refresh();
  }

  /** @param {State} state */
  draw(state) {
    const record = selectedRecord(state);
    const compared = state.compared ? (state.records.get(state.compared) ?? null) : null;
    this.other.frame.hidden = !compared;
    if (record?.key !== this.shownKey) this.undone = [];
    this.shownKey = record?.key;
    this.main.pane.draw(state, record, this.momentary);
    if (compared)
      this.other.pane.draw(state, compared, {
        bare: this.momentary.bare,
        draft: null,
        brush: null,
      });
    this.tell(state, this.main, record);
    if (compared) this.tell(state, this.other, compared);
    this.tools.draw(state, record);
    const ratio = record && heartRatio(record.rulers, record.dicom);
    const words = [];
    if (ratio) words.push(`Cardiothoracic ratio ${ratio.toFixed(2)}.`);
    if (record && (record.rulers.length || state.tool === "ruler" || state.tool === "ratio"))
      words.push(scaleText(record.dicom));
    if (record && state.tool === "ratio" && !ratio) {
      const next = nextOfRatio(record.rulers);
      words.unshift(next === "heart" ? "Draw the greatest width of the heart." : "Draw the inner width of the thorax.");
    }
    if (state.tool === "brush") words.push("Drag to add lung; Alt or Erase removes it. [ and ] change the brush.");
    const text = words.join(" ");
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  /**
   * What the corners of a frame say.
   *
   * @param {State} state
   * @param {Frame} frame
   * @param {ImageRecord | null} record
   */
  tell(state, { corners, message, pane }, record) {
    const image = record && state.images.get(record.key);
    const decoded = typeof image === "object" ? image : null;
    const dicom = record?.dicom;
    const scale = record && decoded ? fitScale(pane.size, record.display, pane.box) * state.view.zoom : 1;
    const window = decoded && record?.display.window;
    const lines = [
      [record?.name ?? "", dicom?.patient ?? "", dicom?.date ?? ""],
      decoded ? [`${decoded.width} × ${decoded.height}`, [dicom?.modality, dicom?.view].filter(Boolean).join(" ")] : [],
      [window ? `C ${format(window.center)}  W ${format(window.width)}` : "", record?.display.invert ? "inverted" : ""],
      decoded ? [`${Math.round(100 * scale * (globalThis.devicePixelRatio || 1))}%`] : [],
    ];
    lines.forEach((parts, place) => {
      const text = parts.filter(Boolean).join("\n");
      if (corners[place].textContent !== text) corners[place].textContent = text;
    });
    let words = "";
    if (record?.status === "unreadable" || record?.status === "failed") words = explained(record).title;
    else if (typeof image === "string") words = image;
    else if (record && !record.thumbnail && !decoded)
      words = record.status === "working" ? "Analyzing…" : "Waiting for its turn";
    message.hidden = !words;
    message.textContent = words;
    pane.canvas.setAttribute("aria-label", record ? `Radiograph ${record.name}` : "No image");
    pane.canvas.dataset.tool = this.space ? "pan" : state.tool;
  }

  /** @param {Pane} pane */
  listen(pane) {
    const { canvas } = pane;
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), pane, at(event, canvas));
      },
      { passive: false },
    );
    canvas.addEventListener("dblclick", () => this.app.store.set({ view: WHOLE }));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => this.press(event, pane));
    canvas.addEventListener("pointermove", (event) => this.move(event, pane));
    canvas.addEventListener("pointerleave", () => this.momentary.brush && this.show({ brush: null }));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.release(/** @type {PointerEvent} */ (event)));
    }
  }

  /**
   * @param {number} factor
   * @param {Pane} [pane]
   * @param {Point} [point] In CSS pixels of the canvas; its middle by default.
   */
  zoom(factor, pane = this.main.pane, point = [pane.box.width / 2, pane.box.height / 2]) {
    const record = this.recordOf(pane);
    if (!record) return;
    this.app.store.set((state) => ({
      view: zoomed(state.view, factor, point, pane.size, record.display, pane.box),
    }));
  }

  /** Show one pixel of the image on one of the screen. */
  oneToOne() {
    const record = this.recordOf(this.main.pane);
    if (!record) return;
    const fit = fitScale(this.main.pane.size, record.display, this.main.pane.box) * (window.devicePixelRatio || 1);
    this.zoom(1 / fit / this.app.store.get().view.zoom);
  }

  /** @param {Pane} pane */
  recordOf(pane) {
    const state = this.app.store.get();
    return pane === this.main.pane
      ? selectedRecord(state)
      : (state.compared && state.records.get(state.compared)) || null;
  }

  /**
   * @param {PointerEvent} event
   * @param {Pane} pane
   */
  press(event, pane) {
    pane.canvas.focus({ preventScroll: true });
    pane.canvas.setPointerCapture(event.pointerId);
    if (event.button === 1) event.preventDefault();
    this.pointers.set(event.pointerId, event);
    const record = this.recordOf(pane);
    const { tool } = this.app.store.get();
    if (!record || this.pointers.size > 1 || this.pans(event) || pane !== this.main.pane) return;
    const place = this.imagePoint(event, pane, record);
    if (tool === "brush") {
      this.undone = [...this.undone, record.review?.grid ?? null].slice(-UNDONE);
      this.paint(record, place, place, event.altKey);
    } else if (tool === "ruler" || tool === "ratio") {
      this.show({
        draft: {
          from: place,
          to: place,
          kind: tool === "ruler" ? "length" : nextOfRatio(record.rulers),
        },
      });
    }
  }

  /**
   * @param {PointerEvent} event
   * @param {Pane} pane
   */
  move(event, pane) {
    const before = this.pointers.get(event.pointerId);
    const record = this.recordOf(pane);
    const state = this.app.store.get();
    if (!record) return;
    if (state.tool === "brush") this.show({ brush: this.imagePoint(event, pane, record) });
    if (!before) return;
    const [across, down] = [event.clientX - before.clientX, event.clientY - before.clientY];
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size === 2) this.pinch(event, before, pane);
    else if (this.pans(before))
      this.app.store.set({
        view: panned(state.view, [across, down], pane.size, record.display, pane.box),
      });
    else if (state.tool === "brush")
      this.paint(record, this.imagePoint(before, pane, record), this.imagePoint(event, pane, record), event.altKey);
    else if (this.momentary.draft)
      this.show({
        draft: {
          ...this.momentary.draft,
          to: this.imagePoint(event, pane, record),
        },
      });
    else if (state.tool === "window") {
      const image = state.images.get(record.key);
      if (typeof image !== "object") return;
      const window = draggedWindow(image, currentWindow(image, record), across, down);
      this.app.store.set((now) =>
        changed(now, record.key, {
          display: Object.freeze({ ...record.display, window }),
        }),
      );
    }
  }

  /** @param {PointerEvent} event */
  release(event) {
    this.pointers.delete(event.pointerId);
    const { draft } = this.momentary;
    if (!draft) return;
    const [across, down] = [draft.to[0] - draft.from[0], draft.to[1] - draft.from[1]];
    const record = selectedRecord(this.app.store.get());
    if (record && Math.hypot(across, down) > 2) {
      this.app.store.set((state) => changed(state, record.key, { rulers: withRuler(record.rulers, draft) }));
    }
    this.show({ draft: null });
  }

  /**
   * @param {PointerEvent} event
   * @param {PointerEvent} before
   * @param {Pane} pane
   */
  pinch(event, before, pane) {
    const other = [...this.pointers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    const record = this.recordOf(pane);
    if (!other || !record) return;
    const distance = (/** @type {PointerEvent} */ one) =>
      Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    this.zoom(distance(event) / Math.max(1, distance(before)), pane, at(other, pane.canvas));
    const by = /** @type {Point} */ ([(event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2]);
    this.app.store.set((state) => ({
      view: panned(state.view, by, pane.size, record.display, pane.box),
    }));
  }

  /** Whether a drag moves the image, whatever the tool. @param {PointerEvent} event */
  pans(event) {
    return (
      event.button === 1 || event.buttons === 4 || event.shiftKey || this.space || this.app.store.get().tool === "pan"
    );
  }

  /**
   * @param {ImageRecord} record
   * @param {Point} from
   * @param {Point} to
   * @param {boolean} alternate
   */
  paint(record, from, to, alternate) {
    const grid = this.app.outlineGrid();
    const { radius, erase } = this.app.store.get().brush;
    if (!grid || !record.prediction) return;
    this.app.review({
      outline: "corrected",
      grid: painted(grid, from, to, radius, erase !== alternate),
    });
  }

  /** Take the last stroke of the brush back. */
  undo() {
    if (!this.undone.length) return;
    const grid = this.undone.at(-1) ?? null;
    this.undone = this.undone.slice(0, -1);
    this.app.review(grid ? { outline: "corrected", grid } : { outline: "", grid: null });
  }

  /**
   * @param {PointerEvent} event
   * @param {Pane} pane
   * @param {ImageRecord} record
   */
  imagePoint(event, pane, record) {
    return apply(inverse(pane.map(record, this.app.store.get().view)), at(event, pane.canvas));
  }

  clearRulers() {
    const record = selectedRecord(this.app.store.get());
    if (record) this.app.store.set((state) => changed(state, record.key, { rulers: [] }));
  }
}

/**
 * @param {MouseEvent} event
 * @param {HTMLElement} canvas
 * @returns {Point}
 */
function at(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

/** @param {number} value */
function format(value) {
  return Math.abs(value) < 10 ? value.toFixed(1) : String(Math.round(value));
}
