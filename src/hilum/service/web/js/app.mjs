/** What a person can do: every change of the state goes through here. */

import { Analysis } from "./analysis.mjs";
import { ProblemError } from "./api.mjs";
import { element } from "./dom.mjs";
import { chosenFiles, imagesOf } from "./intake.mjs";
import { maskGrid } from "./mask.mjs";
import { Queue } from "./queue.mjs";
import { WHOLE, changed, newRecord, removed, selectedRecord, selecting, stepped } from "./records.mjs";
import { forgetReviews, keepReview, revised } from "./review.mjs";

/** @import { Api } from "./api.mjs" */
/** @import { Incoming } from "./intake.mjs" */
/** @import { Display, State, Tool } from "./records.mjs" */
/** @import { Review } from "./review.mjs" */
/** @import { Store } from "./store.mjs" */

export class App {
  /**
   * @param {Store<State>} store
   * @param {Api} api
   */
  constructor(store, api) {
    this.store = store;
    this.api = api;
    this.numbered = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.noticeTimer = undefined;
    this.saved = true;
    /** Runs once the service has answered. */
    this.onStart = () => {};
    this.analysis = new Analysis(
      store,
      api,
      (text) => this.notify(text),
      () => this.queue.reachable(),
    );
    this.queue = new Queue(store, (record) => this.analysis.predict(record), {
      onUnauthorized: () => this.askToken(),
      isReachable: () => this.isReachable(),
    });
    store.subscribe((state) => this.analysis.loadImages(state));
  }

  /**
   * Ask the service what it is; return whether it answered.
   *
   * @returns {Promise<boolean>}
   */
  async start() {
    try {
      this.store.set({ bundle: await this.api.bundle() });
      this.onStart();
      return true;
    } catch (error) {
      if (error instanceof ProblemError && error.isUnauthorized) this.askToken();
      else this.notify("The service cannot be reached.");
      return false;
    }
  }

  /** Whether the service answers; a service that was started again may have another model. */
  async isReachable() {
    try {
      const bundle = await this.api.bundle();
      const isOther = bundle.bundle_id !== this.store.get().bundle?.bundle_id;
      if (isOther) this.notify("The service has another model now; the answers so far are of the one before.");
      this.store.set({ bundle });
      return true;
    } catch (error) {
      return error instanceof ProblemError && error.problem.status < 500;
    }
  }

  askToken() {
    this.openDialog("token");
  }

  /**
   * Use a token from now on; return whether the service accepts it.
   *
   * @param {string} token
   */
  async useToken(token) {
    this.api.token = token;
    if (!(await this.start())) return false;
    this.closeDialog();
    this.queue.resume();
    return true;
  }

  /** @param {string} text */
  notify(text) {
    clearTimeout(this.noticeTimer);
    this.store.set({ notice: text });
    this.noticeTimer = setTimeout(() => this.store.set({ notice: "" }), 6000);
  }

  /** @param {string} name */
  openDialog(name) {
    this.store.set({ dialog: name });
  }

  closeDialog() {
    this.store.set({ dialog: null });
  }

  chooseFiles() {
    this.choose({});
  }

  chooseFolder() {
    this.choose({ webkitdirectory: true });
  }

  /** @param {Record<string, unknown>} attributes */
  choose(attributes) {
    const input = element("input", {
      type: "file",
      multiple: true,
      hidden: true,
      ...attributes,
    });
    input.addEventListener("change", () => void this.add(chosenFiles(input.files ?? [])).finally(() => input.remove()));
    input.addEventListener("cancel", () => input.remove());
    document.body.append(input);
    input.click();
  }

  /** @param {readonly Incoming[]} incoming */
  async add(incoming) {
    const { images, others } = await imagesOf(incoming);
    if (others) this.notify(`${others} ${others === 1 ? "file is" : "files are"} not images, and left out.`);
    if (!images.length) {
      if (!others) this.notify("No files found.");
      return;
    }
    this.store.set((state) => {
      const records = new Map(state.records);
      for (const { file, path } of images) {
        const key = `image-${(this.numbered += 1)}`;
        records.set(key, newRecord(key, file, path));
      }
      const first = state.selected ?? `image-${this.numbered - images.length + 1}`;
      return {
        records,
        ...selecting(state, first),
        page: images.length === 1 ? "image" : state.page,
      };
    });
    this.queue.run();
  }

  /** @param {string} key */
  select(key) {
    this.store.set((state) => ({ ...selecting(state, key), page: "image" }));
  }

  /** @param {number} by */
  step(by) {
    this.store.set((state) => stepped(state, by));
  }

  /** @param {readonly string[]} keys */
  remove(keys) {
    this.store.set((state) => removed(state, keys));
  }

  clear() {
    this.saved = true;
    this.store.set({
      records: new Map(),
      images: new Map(),
      selected: null,
      compared: null,
      filter: "all",
      dialog: null,
      paused: false,
    });
  }

  /** Show the selected image beside the one that is selected next, or end that. */
  compare() {
    this.store.set((state) => (state.compared ? { compared: null } : { compared: state.selected }));
    if (this.store.get().compared) this.notify("Choose another image to compare.");
  }

  /** Analyze the selected image again, its orientation corrected. */
  correct() {
    const record = selectedRecord(this.store.get());
    if (!record) return;
    this.store.set((state) =>
      changed(state, record.key, {
        status: "waiting",
        corrects: true,
        problem: null,
      }),
    );
    this.queue.run();
  }

  /** @param {Partial<Display>} display */
  display(display) {
    this.store.set((state) => {
      const record = selectedRecord(state);
      return record
        ? changed(state, record.key, {
            display: Object.freeze({ ...record.display, ...display }),
          })
        : {};
    });
  }

  /** @param {number} quarters */
  turn(quarters) {
    const record = selectedRecord(this.store.get());
    if (record) this.display({ turn: (record.display.turn + quarters + 4) % 4 });
    this.store.set({ view: WHOLE });
  }

  /** @param {Tool} tool */
  use(tool) {
    this.store.set((state) => ({
      tool: state.tool === tool ? "window" : tool,
    }));
  }

  /** @param {number} place */
  chooseEvidence(place) {
    this.store.set((state) => {
      const names = Object.keys(selectedRecord(state)?.prediction?.probabilities ?? {});
      return place < names.length ? { evidenceClass: names[place] } : {};
    });
  }

  /** @param {Partial<State["overlays"]>} overlays */
  overlay(overlays) {
    this.store.set((state) => ({
      overlays: Object.freeze({ ...state.overlays, ...overlays }),
    }));
  }

  /**
   * Change the review of the selected image.
   *
   * @param {Partial<Review>} changes
   */
  review(changes) {
    const record = selectedRecord(this.store.get());
    if (!record) return;
    const review = revised(record.review, changes);
    this.store.set((state) => changed(state, record.key, { review }));
    this.saved = false;
    try {
      keepReview(localStorage, record.hash, review);
    } catch {
      this.notify("The browser keeps no more reviews: export them before you close the page.");
    }
  }

  agree() {
    const label = selectedRecord(this.store.get())?.prediction?.predicted_label;
    if (label) this.review({ decision: "agree", label });
  }

  /** @param {string} label */
  correctLabel(label) {
    const predicted = selectedRecord(this.store.get())?.prediction?.predicted_label;
    this.review({ decision: label === predicted ? "agree" : "other", label });
  }

  /** Start to correct the outline with the brush, or stop. */
  toggleBrush() {
    const record = selectedRecord(this.store.get());
    const runs = record?.prediction?.mask_rle;
    if (!record || !runs) return;
    const radius = Math.max(3, Math.round(Math.max(...runs.size) / 60));
    this.store.set((state) => ({ brush: { ...state.brush, radius } }));
    this.overlay({ outline: true });
    this.use("brush");
  }

  /** The grid of the selected image's outline, as corrected so far. */
  outlineGrid() {
    const record = selectedRecord(this.store.get());
    const runs = record?.prediction?.mask_rle;
    return record?.review?.grid ?? (runs ? maskGrid(runs) : null);
  }

  /** Whether there are reviews that were not exported. */
  hasUnsaved() {
    return !this.saved && [...this.store.get().records.values()].some((record) => record.review);
  }

  forgetReviews() {
    forgetReviews(localStorage);
    this.store.set((state) => ({
      records: new Map([...state.records].map(([key, record]) => [key, Object.freeze({ ...record, review: null })])),
    }));
    this.notify("All reviews were forgotten.");
  }
}
