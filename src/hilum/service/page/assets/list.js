// The list of films: what each is, and which is looked at. Arrows, j and k step through it from anywhere on the page.

const FILTERS = { all: "All", answered: "Answered", unsure: "Unsure", refused: "Refused" };
const ORDERS = { added: "As added", class: "By class", surest: "Surest first", "least sure": "Least sure first" };

class List {
  constructor(root) {
    this.filter = element("select", { onchange: () => this.look() });
    this.filter.setAttribute("aria-label", "Images shown");
    this.order = element("select", { onchange: () => this.look() });
    this.order.setAttribute("aria-label", "Order of images");
    for (const [value, text] of Object.entries(ORDERS)) this.order.append(element("option", { value, textContent: text }));
    this.fill = element("i");
    this.told = element("span");
    this.progress = element("div", { className: "progress", role: "status" }, this.told,
      element("div", { className: "bar" }, this.fill));
    this.list = element("ul", { role: "listbox", tabIndex: 0, "aria-label": "Images" });
    this.count = element("span");
    this.clear = element("button", { type: "button", onclick: () => this.askClear() });
    const remove = element("button", { type: "button", textContent: "Remove", title: "Forget the image that is looked at",
      onclick: () => this.chosen && this.send("remove", this.chosen) });
    root.replaceChildren(element("div", { className: "tools" }, this.filter, this.order), this.progress, this.list,
      element("div", { className: "foot" }, this.count, remove, this.clear));
    this.onKey = (event) => this.key(event);
  }

  update(data, send) {
    this.send = send;
    document.addEventListener("keydown", this.onKey);
    const count = data.counts;
    this.filter.replaceChildren(...Object.entries(FILTERS).map(([value, text]) =>
      element("option", { value, textContent: `${text} (${count[value]})` })));
    this.filter.value = data.filter;
    this.order.value = data.order;
    const { done, all } = data.progress;
    this.progress.hidden = done === all;
    this.told.textContent = `${done} of ${all} images answered`;
    this.fill.style.width = `${(100 * done) / Math.max(1, all)}%`;
    this.count.textContent = data.rows.length === count.all ? `${count.all} image${count.all === 1 ? "" : "s"}`
      : `${data.rows.length} of ${count.all} images`;
    this.resetClear();
    this.draw(data.rows);
    this.mark(data.chosen, this.chosen !== data.chosen);
  }

  detach() {
    document.removeEventListener("keydown", this.onKey);
  }

  draw(rows) {
    const old = this.items ?? new Map();
    this.items = new Map();
    for (const row of rows) {
      const told = JSON.stringify(row);
      let item = old.get(row.key);
      if (!item || item.told !== told) item = Object.assign(this.item(row), { told });
      this.items.set(row.key, item);
    }
    const now = [...this.items.values()];
    if (now.length !== this.list.children.length || now.some((item, place) => this.list.children[place] !== item)) {
      this.list.replaceChildren(...(now.length ? now : [element("li", { className: "empty", textContent: "None." })]));
    }
  }

  item(row) {
    const picture = row.thumbnail ? element("img", { src: row.thumbnail, alt: "", decoding: "async" })
      : element("span", { className: "none", textContent: row.status === "waiting" ? "…" : "×" });
    const text = element("div");
    if (row.label !== undefined) {
      const label = element("b", { textContent: row.label, title: row.label });
      const line = element("div", { className: "line" }, label, element("span", { textContent: row.percent }));
      if (row.status === "unsure") label.append(element("span", { className: "unsure", textContent: "unsure" }));
      const fill = element("i", { className: "chosen" });
      fill.style.width = `${100 * row.probability}%`;
      text.append(line, element("div", { className: "bar" }, fill));
      if (row.others.length) text.append(element("div", { className: "set", textContent: `or ${row.others.join(", ")}` }));
    } else if (row.status === "waiting") {
      text.append(element("div", { className: "line muted", textContent: "waiting" }));
    } else {
      text.append(element("div", { className: "refused", textContent: row.status === "refused" ? "Refused" : "Cannot be read" }),
        element("div", { className: "reason", textContent: row.reason, title: row.reason }));
    }
    text.append(element("div", { className: "name", textContent: row.name, title: row.name }));
    return element("li", { role: "option", id: `film-${row.key}`, onclick: () => this.choose(row.key) }, picture, text);
  }

  mark(key, scroll = true) {
    this.items.get(this.chosen)?.setAttribute("aria-selected", "false");
    this.chosen = key;
    const item = this.items.get(key);
    item?.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", item ? item.id : "");
    if (item && scroll) {
      const box = this.list.getBoundingClientRect(), at = item.getBoundingClientRect();
      if (at.top < box.top) this.list.scrollTop += at.top - box.top;
      if (at.bottom > box.bottom) this.list.scrollTop += at.bottom - box.bottom;
      if (at.left < box.left) this.list.scrollLeft += at.left - box.left;
      if (at.right > box.right) this.list.scrollLeft += at.right - box.right;
    }
  }

  choose(key) {
    if (!key || key === this.chosen) return;
    this.mark(key);
    this.send("choose", key);
  }

  key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 };
    const step = steps[event.key];
    if (isTaken(event)) return;
    if (step === undefined || (event.key.startsWith("Arrow") && event.composedPath()[0] instanceof HTMLInputElement)) return;
    event.preventDefault();
    const keys = [...this.items.keys()], place = keys.indexOf(this.chosen);
    this.choose(keys[Math.min(keys.length - 1, Math.max(0, place + step))]);
  }

  look() {
    this.send("look", { filter: this.filter.value, order: this.order.value });
  }

  askClear() {
    if (this.clear.dataset.sure) {
      this.resetClear();
      this.send("clear", true);
      return;
    }
    this.clear.dataset.sure = "1";
    this.clear.textContent = "Forget all?";
    this.timer = setTimeout(() => this.resetClear(), 4000);
  }

  resetClear() {
    clearTimeout(this.timer);
    delete this.clear.dataset.sure;
    this.clear.textContent = "Clear";
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".part");
  root.hilum ??= new List(root);
  root.hilum.update(data, setTriggerValue);
  dropAnywhere();
  return () => root.hilum.detach();
}
