/** The list of images: only the rows in view are in the page, so that a thousand images cost no more than twenty. */

import { button, element } from "./dom.mjs";
import { counts, listed } from "./records.mjs";
import { rowOf } from "./row.mjs";

/** @import { App } from "./app.mjs" */
/** @import { Filter, ImageRecord, Order, State } from "./records.mjs" */

const ROW = 76; // pixels, as in list.css
const BEYOND = 4; // rows above and below those in view

/** @type {[Filter, string][]} */
const FILTERS = [
  ["all", "All"],
  ["ok", "Answered"],
  ["uncertain", "Uncertain"],
  ["refused", "Refused"],
  ["open", "To review"],
  ["reviewed", "Reviewed"],
];
/** @type {[Order, string][]} */
const ORDERS = [
  ["added", "As added"],
  ["name", "By name"],
  ["class", "By class"],
  ["surest", "Surest first"],
  ["least", "Least sure first"],
];

export class List {
  /**
   * @param {App} app
   * @param {HTMLElement} root
   */
  constructor(app, root) {
    this.app = app;
    const { store } = app;
    this.filter = element("select", {
      "aria-label": "Filter",
      onchange: () => store.set({ filter: /** @type {Filter} */ (this.filter.value) }),
    });
    this.order = element("select", {
      "aria-label": "Order",
      onchange: () => store.set({ order: /** @type {Order} */ (this.order.value) }),
    });
    this.filter.append(...FILTERS.map(([value]) => element("option", { value })));
    this.order.append(...ORDERS.map(([value, label]) => element("option", { value }, label)));
    this.words = element("span", { role: "status" });
    this.pause = button("Pause", () => (store.get().paused ? app.queue.resume() : app.queue.pause()));
    this.retry = button("Retry", () => app.queue.retry());
    this.bar = element("progress", { max: 1, "aria-label": "Analyzed" });
    this.progress = element(
      "div",
      { class: "queue" },
      element("div", { class: "row between" }, this.words, this.pause, this.retry),
      this.bar,
    );
    this.rows = element("div", { class: "rows", role: "presentation" });
    this.box = element(
      "div",
      {
        class: "box",
        role: "listbox",
        tabIndex: 0,
        "aria-label": "Images",
        onscroll: () => this.fill(true),
      },
      this.rows,
    );
    this.count = element("span", { class: "muted" });
    const foot = element(
      "div",
      { class: "row between foot" },
      this.count,
      button("Remove", () => this.removeSelected(), { title: "Delete" }),
      button("Clear", () => app.openDialog("clear")),
    );
    root.append(element("div", { class: "row selects" }, this.filter, this.order), this.progress, this.box, foot);
    /** @type {Map<string, {row: HTMLElement, record: ImageRecord}>} */
    this.made = new Map();
    /** @type {ImageRecord[]} */
    this.shown = [];
    /** @type {string | null} */
    this.selected = null;
    new ResizeObserver(() => this.fill(true)).observe(this.box);
  }

  removeSelected() {
    const { selected } = this.app.store.get();
    if (selected) this.app.remove([selected]);
  }

  /** @param {State} state */
  draw(state) {
    this.tell(state);
    const shown = listed(state);
    const isNew = shown !== this.shown;
    this.shown = shown;
    if (isNew) this.rows.style.height = `${ROW * shown.length}px`;
    if (state.selected !== this.selected) this.reveal(state.selected);
    this.selected = state.selected;
    this.fill(isNew);
  }

  /** @param {State} state */
  tell(state) {
    const found = counts(state);
    FILTERS.forEach(([name, label], place) => {
      const text = `${label} (${found[name]})`;
      if (this.filter.options[place].textContent !== text) this.filter.options[place].textContent = text;
    });
    this.filter.value = state.filter;
    this.order.value = state.order;
    const open = { waiting: 0, working: 0, failed: 0 };
    for (const { status } of state.records.values()) if (status in open) open[/** @type {"failed"} */ (status)] += 1;
    const all = state.records.size;
    const done = all - open.waiting - open.working - open.failed;
    this.bar.value = all ? done / all : 1;
    this.progress.hidden = done === all;
    this.pause.hidden = !open.waiting && !open.working;
    this.pause.textContent = state.paused ? "Resume" : "Pause";
    this.retry.hidden = !open.failed;
    const failed = open.failed ? `, ${open.failed} not analyzed` : "";
    this.words.textContent = `${done} of ${all} analyzed${failed}`;
    const shown = listed(state).length;
    this.count.textContent = `${shown === all ? all : `${shown} of ${all}`} ${all === 1 ? "image" : "images"}`;
  }

  /** Scroll to an image. @param {string | null} key */
  reveal(key) {
    const place = this.shown.findIndex((record) => record.key === key);
    if (place < 0) return;
    const { scrollTop, clientHeight } = this.box;
    if (place * ROW < scrollTop) this.box.scrollTop = place * ROW;
    else if ((place + 1) * ROW > scrollTop + clientHeight) this.box.scrollTop = (place + 1) * ROW - clientHeight;
  }

  /** Make the rows in view, and drop the others. @param {boolean} moves Whether rows may have another place. */
  fill(moves) {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - BEYOND);
    const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + BEYOND);
    const wanted = new Set(this.shown.slice(first, last).map((record) => record.key));
    for (const [key, { row }] of this.made) {
      if (!wanted.has(key)) {
        row.remove();
        this.made.delete(key);
      }
    }
    for (let place = first; place < last; place += 1) {
      const record = this.shown[place];
      const made = this.made.get(record.key);
      let row = made?.row;
      if (!row || made?.record !== record) {
        const fresh = rowOf(record, () => this.app.select(record.key));
        if (row) row.replaceWith(fresh);
        else this.rows.append(fresh);
        row = fresh;
        this.made.set(record.key, { row, record });
        row.style.top = `${place * ROW}px`;
      }
      if (moves) {
        row.style.top = `${place * ROW}px`;
        row.setAttribute("aria-posinset", String(place + 1));
        row.setAttribute("aria-setsize", String(this.shown.length));
      }
      const isSelected = record.key === this.selected;
      if (row.getAttribute("aria-selected") !== String(isSelected))
        row.setAttribute("aria-selected", String(isSelected));
    }
    const active = this.selected && this.made.get(this.selected);
    if (active) this.box.setAttribute("aria-activedescendant", active.row.id);
    else this.box.removeAttribute("aria-activedescendant");
  }
}
