// The chosen film, and beside it what was answered: probabilities, the evidence of a class and its region.

const percentOf = (share) => (share > 0 && share < 0.01 ? "< 1%" : `${Math.round(100 * share)}%`);

class Viewer {
  constructor(root) {
    this.root = root;
    this.canvas = element("canvas", { tabIndex: 0, role: "img" });
    this.corners = ["tl", "tr", "bl", "br"].map((place) => element("div", { className: `corner ${place}` }));
    this.message = element("div", { className: "message", hidden: true });
    this.box = element("div", { className: "film" }, this.canvas, ...this.corners, this.message);
    this.panel = element("section", { className: "panel", "aria-label": "Answer" });
    this.sliders = {
      width: this.slider("Window", 2, 100, "width", 100),
      level: this.slider("Level", 0, 100, "level", 100),
      opacity: this.slider("Opacity", 0, 100, "opacity", 100),
      percent: this.slider("Region", 1, 100, "percent", 1),
    };
    this.buttons = {
      invert: this.toggle("Invert", "i", () => this.film.set({ invert: !this.film.shown.invert })),
      original: this.toggle("Original", "o", () => this.film.set({ original: !this.film.shown.original })),
      outline: this.toggle("Outline", "l", () => this.film.set({ outline: !this.film.shown.outline })),
      evidence: this.toggle("Evidence", "e", () => this.film.set({ evidence: !this.film.shown.evidence })),
    };
    const whole = this.toggle("Reset", "0, w", () => this.whole());
    whole.removeAttribute("aria-pressed");
    const tools = element("div", { className: "tools" }, this.sliders.width.row, this.sliders.level.row,
      element("div", { className: "buttons" }, ...Object.values(this.buttons), whole));
    root.replaceChildren(element("div", { className: "stage" }, this.box, tools), this.panel);
    this.film = new FilmCanvas(this.canvas, () => this.tell());
    this.onKey = (event) => this.key(event);
    this.onKeyUp = (event) => event.key === "o" && this.held && this.release();
    this.onBlur = () => this.held && this.release();
  }

  async update(text, send) {
    this.send = send;
    document.addEventListener("keydown", this.onKey);
    document.addEventListener("keyup", this.onKeyUp);
    window.addEventListener("blur", this.onBlur);
    if (text === this.text) return;
    this.text = text;
    const view = JSON.parse(text);
    const isNew = view.key !== this.view?.key;
    if (!(await this.film.take(view))) return;
    this.view = view;
    const best = view.classes ? view.classes.findIndex(({ name }) => name === view.label) : null;
    if (isNew || !view.classes || this.place === null || this.place === undefined) this.place = best;
    this.message.hidden = Boolean(view.film);
    this.message.textContent = view.film ? "" : view.status === "waiting" ? "Waiting for its turn" : "This file cannot be shown";
    this.canvas.setAttribute("aria-label", `Image ${view.name}`);
    this.answer();
    this.film.choose(this.place);
    this.tell();
    this.root.dataset.film = view.name;
    this.root.dataset.status = view.status;
  }

  detach() {
    document.removeEventListener("keydown", this.onKey);
    document.removeEventListener("keyup", this.onKeyUp);
    window.removeEventListener("blur", this.onBlur);
  }

  slider(label, min, max, name, unit) {
    const input = element("input", { type: "range", min, max, step: 1, id: `slide-${name}`, "data-name": name });
    const output = element("output");
    input.oninput = () => this.film.set({ [name]: Number(input.value) / unit });
    return { input, output, row: element("div", { className: "slide" },
      element("label", { for: input.id, textContent: label }), input, output) };
  }

  toggle(label, key, act) {
    return element("button", { type: "button", textContent: label, title: `Key ${key}`, "aria-pressed": "false", onclick: act });
  }

  whole() {
    this.film.reset();
    this.film.set({ width: 1 });
  }

  /** What the controls and corners say. */
  tell() {
    const { shown, view } = this.film;
    const set = (name, value, text) => {
      this.sliders[name].input.value = value;
      this.sliders[name].output.textContent = text;
    };
    set("width", Math.round(100 * shown.width), `${Math.round(100 * shown.width)}%`);
    set("level", Math.round(100 * shown.level), `${Math.round(100 * shown.level)}%`);
    set("opacity", Math.round(100 * shown.opacity), `${Math.round(100 * shown.opacity)}%`);
    set("percent", shown.percent, `${shown.percent}%`);
    for (const [name, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(shown[name]));
    for (const name of ["original", "outline"]) this.buttons[name].disabled = !this.view?.classes;
    this.buttons.evidence.disabled = !this.view?.evidence;
    this.buttons.invert.disabled = this.sliders.width.input.disabled = this.sliders.level.input.disabled = !this.view?.film;
    const corner = [this.view?.name ?? "", this.view?.facts ?? "",
      shown.original ? "original" : shown.invert ? "inverted" : "",
      this.view?.film ? `${view.zoom.toFixed(1)}×` : ""];
    this.corners.forEach((place, number) => (place.textContent = corner[number]));
    this.tellRegion();
    this.swatches?.forEach((swatch, band) => {
      const color = band ? `rgba(${swatch.color.join(",")},${this.film.alpha(band - 1)})` : "transparent";
      swatch.style.background = `linear-gradient(${color}, ${color}), linear-gradient(rgb(40,40,40), rgb(200,200,200))`;
    });
  }

  tellRegion() {
    const told = this.film.told;
    if (!this.said || !told?.thresholds) return;
    const percent = this.film.shown.percent;
    this.said.textContent = `Outlined: the strongest evidence over ${percentOf(told.lung[percent])} of the lung. `
      + `It holds ${percentOf(told.share[percent])} of all evidence for ${told.name}.`;
  }

  answer() {
    const view = this.view, parts = [];
    if (view.status === "waiting") parts.push(element("h2", { className: "muted", textContent: "Waiting" }));
    if (view.status === "refused" || view.status === "unreadable") {
      const title = view.status === "refused" ? "Refused" : "Cannot be read";
      parts.push(element("h2", { className: "refused", textContent: title }), this.findings(view.findings));
      if (view.status === "refused") parts.push(element("p", { className: "said muted",
        textContent: "No answer is given for such a file, since the model was not made for it." }));
    }
    this.said = this.swatches = null;
    if (view.classes) parts.push(this.verdict(view), this.classes(view), ...this.evidence(view));
    if (view.classes && view.findings.length) parts.push(element("div", {}, element("h3", { textContent: "What the gate says" }),
      this.findings(view.findings)));
    const lung = view.lungFraction ? `Lung ${view.lungFraction} of the image. ` : "";
    parts.push(element("div", { className: "facts", textContent: lung + (view.facts ?? "") }));
    this.panel.replaceChildren(...parts);
  }

  verdict(view) {
    const part = element("div", { className: "verdict" },
      element("h2", {}, view.label, element("span", { textContent: view.percent })));
    if (view.abstained) part.append(element("div", { className: "unsure",
      textContent: `Unsure${view.abstainBelow && `, below ${view.abstainBelow}`}: a person should decide.` }));
    const others = view.others.length ? `Not ruled out at ${view.setLevel}: ${view.others.join(", ")}.`
      : `All others ruled out at ${view.setLevel}.`;
    if (view.setLevel) part.append(element("div", { className: "muted", textContent: others }));
    return part;
  }

  classes(view) {
    const explains = view.evidence !== undefined;
    const rows = view.classes.map((one, place) => {
      const fill = element("i", { className: one.name === view.label ? "chosen" : "" });
      fill.style.width = `${100 * one.probability}%`;
      const who = element("span", { className: "who", textContent: one.name, title: one.name });
      if (one.inSet && view.setLevel) who.append(element("span", { className: "in", textContent: "in set", title: `Not ruled out at ${view.setLevel}` }));
      const favor = one.favor === undefined ? "" : `+${one.favor.toFixed(1)}`;
      return element("button", { type: "button", "aria-pressed": String(explains && place === this.place), disabled: one.favor === undefined,
        title: `Evidence for ${one.name}`, onclick: () => this.choose(place) }, who,
      element("span", { className: "muted", textContent: favor }), element("span", { className: "percent", textContent: one.percent }),
      element("div", { className: "bar" }, fill));
    });
    return element("div", { className: "section" }, element("h3", { className: "heads" }, "Class",
      element("span", { textContent: explains ? "evidence" : "" }), element("span", { className: "percent", textContent: "probability" })),
      element("div", { className: "classes" }, ...rows));
  }

  evidence(view) {
    const told = view.classes[this.place];
    if (told.favor === undefined) return [element("div", { className: "said muted", textContent: "This model gives no evidence." })];
    const title = element("h3", { textContent: `Evidence for ${told.name}, logits` });
    if (!told.thresholds) {
      return [element("div", { className: "section" }, title, element("div", { className: "said",
        textContent: `${told.favor.toFixed(2)} in favor: too little to draw.` }))];
    }
    const digits = Math.max(0, 1 - Math.floor(Math.log10(told.peak / 4)));
    const scale = element("div", { className: "scale", role: "img", "aria-label": "Colors from none to the strongest place" });
    const { levels, bands } = view.legend;
    this.swatches = [null, ...bands].map((color) => Object.assign(element("span"), { color }));
    scale.append(...this.swatches);
    const ticks = element("div", { className: "ticks" }, ...[0, ...levels, 1].map((share) =>
      element("span", { textContent: share ? `+${(share * told.peak).toFixed(digits)}` : "0" })));
    this.said = element("p", { className: "said" });
    const against = Math.abs(told.against) < 0.005 ? "" : `, ${told.against.toFixed(1)} against`;
    const sums = element("div", { className: "keys" },
      element("span", {}, this.line("var(--h-outline)"), "lung"),
      element("span", {}, this.line("#fff"), "region"),
      element("span", { textContent: `+${told.favor.toFixed(1)} in all${against}` }));
    return [element("div", { className: "section" }, title, scale, ticks, this.sliders.percent.row, this.sliders.opacity.row,
      this.said, sums)];
  }

  line(color) {
    const swatch = element("i");
    swatch.style.borderColor = color;
    return swatch;
  }

  findings(found) {
    return element("ul", {}, ...found.map(({ message }) => element("li", { textContent: message })));
  }

  choose(place) {
    if (this.view?.classes?.[place]?.favor === undefined) return;
    this.place = place;
    this.answer();
    this.film.choose(place);
    this.tell();
    this.send("evidence_class", this.view.classes[place].name);
  }

  key(event) {
    if (isTaken(event)) return;
    const act = { i: () => this.buttons.invert.click(), l: () => this.buttons.outline.click(), e: () => this.buttons.evidence.click(),
      "+": () => this.film.zoom(1.25), "=": () => this.film.zoom(1.25), "-": () => this.film.zoom(0.8),
      0: () => { this.film.fit(); this.film.set({}); }, w: () => this.film.set({ width: 1, level: 0.5, invert: false }) }[event.key];
    if (event.key === "o" && event.repeat) return;
    if (event.key === "o") {
      this.held = true;
      this.film.set({ original: true });
    } else if (/^[1-9]$/.test(event.key)) this.choose(Number(event.key) - 1);
    else if (act) act();
    else return;
    event.preventDefault();
  }

  release() {
    this.held = false;
    this.film.set({ original: false });
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".part");
  root.hilum ??= new Viewer(root);
  root.hilum.update(data, setTriggerValue);
  return () => root.hilum.detach();
}
