// The film on a canvas: window, level and inversion of its own gray levels, outline, evidence, region, zoom.

async function inflated(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let place = 0; place < raw.length; place += 1) bytes[place] = raw.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function cssColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--h-${name}`).trim();
}

const RASTER = 768; // longer side of the picture of the evidence
const AS_SAVED = 0.4; // the opacity at which the screen looks like a saved overlay

class FilmCanvas {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.shown = { outline: true, evidence: true, original: false, opacity: AS_SAVED, percent: 20 };
    this.reset();
    this.base = document.createElement("canvas");
    this.heat = document.createElement("canvas");
    this.pointers = new Map();
    this.listen();
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(canvas);
  }

  reset() {
    this.shown = { ...this.shown, width: 1, level: 0.5, invert: false, original: false };
    this.fit();
  }

  fit() {
    this.view = { zoom: 1, x: 0, y: 0 };
  }

  /** Take a film; resolves once it is drawn. A later film that was asked for meanwhile wins. */
  async take(view) {
    const asked = (this.asked = (this.asked ?? 0) + 1);
    const pixels = view.film ? await inflated(view.film.data) : null;
    const maps = view.evidence ? new Uint16Array(await inflated(view.evidence.data)) : null;
    if (asked !== this.asked) return false;
    this.data = view;
    this.maps = maps;
    this.film = view.film;
    this.pixels = pixels && (view.film.bits > 8 ? new Uint16Array(pixels) : new Uint8Array(pixels));
    this.lines = new Path2D();
    for (const line of view.outline ?? []) {
      for (let place = 0; place < line.length; place += 2) {
        this.lines[place ? "lineTo" : "moveTo"](line[place] + 0.5, line[place + 1] + 0.5);
      }
      this.lines.closePath();
    }
    this.reset();
    this.develop();
    return true;
  }

  /** The class whose evidence is drawn, by its place; null draws none. */
  choose(place) {
    this.place = place;
    this.trace();
    this.draw();
  }

  set(changes) {
    Object.assign(this.shown, changes);
    if ("width" in changes || "level" in changes || "invert" in changes || "original" in changes) this.develop();
    if ("percent" in changes) this.trace();
    this.draw();
    this.changed();
  }

  /** Gray levels to the picture: the window is a share of the declared range, as what the network sees. */
  develop() {
    if (!this.pixels) return;
    const { width, level, invert, original } = this.shown;
    const most = 2 ** this.film.bits - 1, table = new Uint32Array(most + 1);
    const span = original ? 1 : width, low = original ? 0 : level - width / 2;
    for (let value = 0; value <= most; value += 1) {
      let gray = Math.round(255 * Math.min(1, Math.max(0, (value / most - low) / span)));
      if (invert && !original) gray = 255 - gray;
      table[value] = 0xff000000 | (gray << 16) | (gray << 8) | gray;
    }
    this.base.width = this.film.width;
    this.base.height = this.film.height;
    const image = new ImageData(this.film.width, this.film.height), out = new Uint32Array(image.data.buffer);
    for (let place = 0; place < out.length; place += 1) out[place] = table[this.pixels[place]];
    this.base.getContext("2d").putImageData(image, 0, 0);
  }

  /** How a band of the evidence covers the film at the opacity that is set. */
  alpha(band) {
    return (this.data.legend.opacity[band] / AS_SAVED) * this.shown.opacity;
  }

  get told() {
    return this.place === null || this.place === undefined ? null : this.data?.classes?.[this.place];
  }

  get threshold() {
    return this.told?.thresholds?.[this.shown.percent] ?? 2;
  }

  /** The evidence of the class at the region's threshold: bands as a picture, the region's edge as a path. */
  trace() {
    this.edge = null;
    if (!this.maps || !this.told?.thresholds) return;
    const { width, height } = this.data.evidence;
    const map = this.maps.subarray(this.place * width * height, (this.place + 1) * width * height);
    this.edge = contour(map, width, height, this.threshold * 65535, this.film.width / width, this.film.height / height);
    this.raster(map, width, height);
  }

  raster(map, width, height) {
    const factor = RASTER / Math.max(width, height), columns = Math.round(width * factor), rows = Math.round(height * factor);
    const { levels, bands, opacity } = this.data.legend;
    const colors = [0, ...bands.map(([red, green, blue], band) =>
      ((Math.round((255 * opacity[band]) / AS_SAVED) << 24) | (blue << 16) | (green << 8) | red) >>> 0)];
    const image = new ImageData(columns, rows), out = new Uint32Array(image.data.buffer);
    const least = Math.max(this.threshold, levels[0]);
    for (let row = 0; row < rows; row += 1) {
      const y = Math.min(height - 1.001, Math.max(0, (row + 0.5) / factor - 0.5)), top = Math.floor(y), down = y - top;
      for (let column = 0; column < columns; column += 1) {
        const x = Math.min(width - 1.001, Math.max(0, (column + 0.5) / factor - 0.5)), left = Math.floor(x), right = x - left;
        const at = top * width + left;
        const upper = map[at] + (map[at + 1] - map[at]) * right;
        const lower = map[at + width] + (map[at + width + 1] - map[at + width]) * right;
        const value = (upper + (lower - upper) * down) / 65535;
        if (value >= least) out[row * columns + column] = colors[levels.filter((level) => value >= level).length];
      }
    }
    this.heat.width = columns;
    this.heat.height = rows;
    this.heat.getContext("2d").putImageData(image, 0, 0);
  }

  draw() {
    const ratio = window.devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    const wide = Math.round(box.width * ratio), high = Math.round(box.height * ratio);
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, wide, high);
    if (!this.pixels || !wide || !high) return;
    this.scale = Math.min(wide / this.film.width, high / this.film.height);
    const scale = this.scale * this.view.zoom;
    this.keepInside(wide, high, scale);
    pen.setTransform(scale, 0, 0, scale, wide / 2 + this.view.x * ratio - (this.film.width * scale) / 2,
      high / 2 + this.view.y * ratio - (this.film.height * scale) / 2);
    pen.imageSmoothingEnabled = scale < 6;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.base, 0, 0);
    if (!this.shown.original) this.drawFindings(pen, ratio / scale);
    this.canvas.classList.toggle("zoomed", this.view.zoom > 1.01);
  }

  drawFindings(pen, unit) {
    pen.imageSmoothingEnabled = true;
    pen.lineJoin = "round";
    if (this.shown.evidence && this.edge) {
      pen.save();
      pen.clip(this.lines, "evenodd");
      pen.globalAlpha = this.shown.opacity;
      pen.drawImage(this.heat, 0, 0, this.film.width, this.film.height);
      pen.globalAlpha = 1;
      this.stroke(pen, this.edge, "#ffffff", unit, 1.6);
      pen.restore();
    }
    if (this.shown.outline) this.stroke(pen, this.lines, cssColor("outline"), unit, 1.8);
  }

  stroke(pen, path, color, unit, width) {
    pen.strokeStyle = "rgba(0, 0, 0, 0.65)";
    pen.lineWidth = (width + 2.2) * unit;
    pen.stroke(path);
    pen.strokeStyle = color;
    pen.lineWidth = width * unit;
    pen.stroke(path);
  }

  keepInside(wide, high, scale) {
    const ratio = window.devicePixelRatio || 1;
    const across = Math.max(0, (this.film.width * scale - wide) / 2 + 40) / ratio;
    const down = Math.max(0, (this.film.height * scale - high) / 2 + 40) / ratio;
    if (this.view.zoom <= 1) Object.assign(this.view, { x: 0, y: 0 });
    this.view.x = Math.min(across, Math.max(-across, this.view.x));
    this.view.y = Math.min(down, Math.max(-down, this.view.y));
  }

  /** Zoom by a factor about a place of the canvas, in CSS pixels from its middle. */
  zoom(factor, x = 0, y = 0) {
    const zoom = Math.min(20, Math.max(1, this.view.zoom * factor)), by = zoom / this.view.zoom;
    this.view = { zoom, x: x - (x - this.view.x) * by, y: y - (y - this.view.y) * by };
    this.draw();
    this.changed();
  }

  listen() {
    const middle = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    };
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), ...middle(event));
    }, { passive: false });
    this.canvas.addEventListener("dblclick", () => {
      this.fit();
      this.draw();
      this.changed();
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    this.canvas.addEventListener("pointermove", (event) => this.move(event, middle));
  }

  move(event, middle) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const across = event.clientX - before.clientX, down = event.clientY - before.clientY;
    if (this.pointers.size === 2) {
      const other = [...this.pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
      const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      this.zoom(distance(event) / Math.max(1, distance(before)), ...middle(other));
    } else if (event.shiftKey) {
      const clip = (value, least) => Math.min(1, Math.max(least, value));
      this.set({ width: clip(this.shown.width + across / 400, 0.02), level: clip(this.shown.level - down / 400, 0) });
    } else if (this.view.zoom > 1) {
      this.view.x += across;
      this.view.y += down;
      this.draw();
    }
    this.pointers.set(event.pointerId, event);
  }
}

/** The line at which a map (rows of values) crosses a level, by marching squares, in pixels of the film. */
function contour(map, width, height, level, across, down) {
  const path = new Path2D();
  const value = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : map[y * width + x]);
  const between = (one, other) => (level - one) / (other - one);
  for (let y = -1; y < height; y += 1) {
    for (let x = -1; x < width; x += 1) {
      const [a, b, c, d] = [value(x, y), value(x + 1, y), value(x + 1, y + 1), value(x, y + 1)];
      const kind = (a >= level) | ((b >= level) << 1) | ((c >= level) << 2) | ((d >= level) << 3);
      if (kind === 0 || kind === 15) continue;
      const sides = [() => [x + between(a, b), y], () => [x + 1, y + between(b, c)],
        () => [x + between(d, c), y + 1], () => [x, y + between(a, d)]];
      for (const [from, to] of CROSSINGS[kind]) {
        const [one, two] = [sides[from](), sides[to]()];
        path.moveTo((one[0] + 0.5) * across, (one[1] + 0.5) * down);
        path.lineTo((two[0] + 0.5) * across, (two[1] + 0.5) * down);
      }
    }
  }
  return path;
}

const CROSSINGS = [[], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [[3, 0], [1, 2]], [[0, 2]], [[3, 2]],
  [[2, 3]], [[0, 2]], [[0, 1], [2, 3]], [[1, 2]], [[1, 3]], [[0, 1]], [[3, 0]], []];

