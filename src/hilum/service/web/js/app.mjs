/** What a person can do: every change of the state goes through here. */

import { ProblemError } from "./api.mjs";
import { readHeader } from "./dicom.mjs";
import { element } from "./dom.mjs";
import { chosenFiles, imagesOf, mediaType, sha256 } from "./intake.mjs";
import { maskGrid } from "./mask.mjs";
import { Queue } from "./queue.mjs";
import {
  PLAIN,
  WHOLE,
  changed,
  listed,
  newRecord,
  removed,
  selectedRecord,
  selecting,
  stepped,
} from "./records.mjs";
import { forgetReviews, keepReview, keptReview, revised } from "./review.mjs";
import { storedImage } from "./values.mjs";

/** @import { Api } from "./api.mjs" */
/** @import { Incoming } from "./intake.mjs" */
/** @import { Display, ImageRecord, State, Tool } from "./records.mjs" */
/** @import { Review } from "./review.mjs" */
/** @import { Store } from "./store.mjs" */

const KEPT_IMAGES = 6; // decoded, of up to some 50 MB each

export class App {
  /**
   * @param {Store<State>} store
   * @param {Api} api
   */
  constructor(store, api) {
    this.store = store;
    this.api = api;
    this.numbered = 0;
    /** @type {Map<string, Promise<void>>} */
    this.loading = new Map();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.noticeTimer = undefined;
    this.saved = true;
    this.queue = new Queue(store, (record) => this.analyze(record), {
      onUnauthorized: () => this.askToken(),
    });
    store.subscribe((state) => this.loadImages(state));
  }

  /**
   * Ask the service what it is; `then` runs once it has answered.
   *
   * @param {() => void} then
   */
  async start(then) {
    try {
      this.store.set({ bundle: await this.api.bundle() });
      then();
    } catch (error) {
      if (error instanceof ProblemError && error.isUnauthorized)
        this.askToken();
      else this.notify("The service cannot be reached.");
    }
  }

  askToken() {
    this.openDialog("token");
  }

  /** @param {string} token */
  async useToken(token) {
    this.api.token = token;
    this.closeDialog();
    await this.start(() => this.queue.resume());
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
    input.addEventListener(
      "change",
      () =>
        void this.add(chosenFiles(input.files ?? [])).finally(() =>
          input.remove(),
        ),
    );
    input.addEventListener("cancel", () => input.remove());
    document.body.append(input);
    input.click();
  }

  /** @param {readonly Incoming[]} incoming */
  async add(incoming) {
    const { images, others } = await imagesOf(incoming);
    if (others)
      this.notify(
        `${others} ${others === 1 ? "file is" : "files are"} not images, and left out.`,
      );
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
      const first =
        state.selected ?? `image-${this.numbered - images.length + 1}`;
      return {
        records,
        ...selecting(state, first),
        page: images.length === 1 ? "image" : state.page,
      };
    });
    this.queue.run();
  }

  /**
   * Have the service predict on one image; return what becomes of its record.
   *
   * @param {ImageRecord} record
   * @returns {Promise<Partial<ImageRecord> | null>}
   */
  async analyze(record) {
    const limit = this.store.get().bundle?.max_upload_bytes ?? Infinity;
    if (record.file.size > limit) {
      const detail = `It has ${record.file.size.toLocaleString("en")} bytes; the service takes ${limit.toLocaleString("en")}.`;
      return {
        status: "unreadable",
        problem: {
          type: "about:blank",
          title: "Too large",
          status: 413,
          detail,
        },
      };
    }
    const bytes = new Uint8Array(await record.file.arrayBuffer());
    const type = mediaType(record.path, bytes.subarray(0, 132));
    const known = record.hash ? {} : await this.known(record, bytes, type);
    if (known === null) return null;
    try {
      const prediction = await this.api.predict(bytes, type, record.corrects);
      const { thumbnail = "", orientation_fix: fix, ...rest } = prediction;
      const display =
        fix && record.display === PLAIN
          ? { ...PLAIN, turn: fix.rotate / 90, invert: fix.invert }
          : record.display;
      return {
        ...known,
        status: "ok",
        problem: null,
        prediction: { ...rest, orientation_fix: fix },
        thumbnail: dataUrl(thumbnail),
        display,
      };
    } catch (error) {
      if (!(error instanceof ProblemError) || !error.isAnswer) throw error;
      const { thumbnail = "", ...problem } = error.problem;
      const status = problem.type.endsWith("refused")
        ? "refused"
        : "unreadable";
      return {
        ...known,
        status,
        problem,
        prediction: null,
        thumbnail: dataUrl(thumbnail),
      };
    }
  }

  /**
   * Return what the browser itself knows of an image; null if the same content is there already.
   *
   * @param {ImageRecord} record
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @param {string} type
   * @returns {Promise<Partial<ImageRecord> | null>}
   */
  async known(record, bytes, type) {
    const hash = await sha256(bytes);
    const twin =
      hash &&
      [...this.store.get().records.values()].find(
        (other) => other.hash === hash && other.key !== record.key,
      );
    if (twin) {
      this.store.set((state) => removed(state, [record.key]));
      this.notify(`${record.name} has the same content as ${twin.name}.`);
      return null;
    }
    this.store.set((state) => changed(state, record.key, { hash }));
    const dicom = type === "application/dicom" ? await readHeader(bytes) : null;
    return { hash, dicom, review: keptReview(localStorage, hash) };
  }

  /** Decode the images in view and the next one; forget those that were looked at longest ago. @param {State} state */
  loadImages(state) {
    const list = listed(state);
    const place = list.findIndex((record) => record.key === state.selected);
    const next = place >= 0 ? list[place + 1]?.key : undefined;
    for (const key of [state.selected, state.compared, next]) {
      const record = key ? state.records.get(key) : undefined;
      const isJudged = record && ["ok", "refused"].includes(record.status);
      if (
        !record ||
        !isJudged ||
        state.images.has(record.key) ||
        this.loading.has(record.key)
      )
        continue;
      if (this.loading.size >= 2 && key === next) continue;
      this.loading.set(
        record.key,
        this.load(record).finally(() => this.loading.delete(record.key)),
      );
    }
  }

  /** @param {ImageRecord} record */
  async load(record) {
    await new Promise((resolve) => setTimeout(resolve, 60)); // a person who steps fast does not wait for each
    const now = this.store.get();
    const list = listed(now);
    const near = Math.abs(
      list.findIndex(({ key }) => key === record.key) -
        list.findIndex(({ key }) => key === now.selected),
    );
    if (near > 1 && record.key !== now.compared) return;
    let image;
    try {
      const head = new Uint8Array(
        await record.file.slice(0, 132).arrayBuffer(),
      );
      const { facts, buffer } = await this.api.image(
        record.file,
        mediaType(record.path, head),
      );
      image = storedImage(facts, buffer);
    } catch (error) {
      if (error instanceof ProblemError && error.retryAfter) {
        setTimeout(() => this.store.set({}), 1000 * error.retryAfter);
        return;
      }
      image = error instanceof Error ? error.message : String(error);
    }
    this.store.set((state) => {
      if (!state.records.has(record.key)) return {};
      const images = new Map(state.images);
      images.set(record.key, image);
      for (const key of images.keys()) {
        if (images.size <= KEPT_IMAGES) break;
        if (
          key !== state.selected &&
          key !== state.compared &&
          key !== record.key
        )
          images.delete(key);
      }
      return { images };
    });
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
    this.store.set((state) =>
      state.compared ? { compared: null } : { compared: state.selected },
    );
    if (this.store.get().compared)
      this.notify("Choose another image to compare with this one.");
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
    if (record)
      this.display({ turn: (record.display.turn + quarters + 4) % 4 });
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
      const names = Object.keys(
        selectedRecord(state)?.prediction?.probabilities ?? {},
      );
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
      this.notify(
        "The browser keeps no more reviews: export them before you close the page.",
      );
    }
  }

  agree() {
    const label = selectedRecord(this.store.get())?.prediction?.predicted_label;
    if (label) this.review({ decision: "agree", label });
  }

  /** @param {string} label */
  correctLabel(label) {
    const predicted = selectedRecord(this.store.get())?.prediction
      ?.predicted_label;
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
    return (
      !this.saved &&
      [...this.store.get().records.values()].some((record) => record.review)
    );
  }

  forgetReviews() {
    forgetReviews(localStorage);
    this.store.set((state) => ({
      records: new Map(
        [...state.records].map(([key, record]) => [
          key,
          Object.freeze({ ...record, review: null }),
        ]),
      ),
    }));
    this.notify("All reviews were forgotten.");
  }
}

/** @param {string} jpeg Base64. */
function dataUrl(jpeg) {
  return jpeg ? `data:image/jpeg;base64,${jpeg}` : "";
}
