/** What the service is asked about the images: predictions for all, gray values of those in view. */

import { ProblemError } from "./api.mjs";
import { readHeader } from "./dicom.mjs";
import { mediaType, sha256 } from "./intake.mjs";
import { isUnreachable } from "./queue.mjs";
import { PLAIN, changed, listed, removed } from "./records.mjs";
import { keptReview } from "./review.mjs";
import { storedImage } from "./values.mjs";

/** @import { Api } from "./api.mjs" */
/** @import { ImageRecord, State } from "./records.mjs" */
/** @import { Store } from "./store.mjs" */

const KEPT_IMAGES = 6; // decoded, of up to some 50 MB each

export class Analysis {
  /**
   * @param {Store<State>} store
   * @param {Api} api
   * @param {(text: string) => void} notify
   * @param {() => Promise<void>} reachable Waits until the service answers.
   */
  constructor(store, api, notify, reachable) {
    this.store = store;
    this.api = api;
    this.notify = notify;
    this.reachable = reachable;
    /** @type {Map<string, Promise<void>>} */
    this.loading = new Map();
  }

  /**
   * Have the service predict on one image; return what becomes of its record.
   *
   * @param {ImageRecord} record
   * @returns {Promise<Partial<ImageRecord> | null>}
   */
  async predict(record) {
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
        fix && record.display === PLAIN ? { ...PLAIN, turn: fix.rotate / 90, invert: fix.invert } : record.display;
      return {
        ...known,
        status: "ok",
        problem: null,
        prediction: { ...rest, orientation_fix: fix },
        thumbnail: dataUrl(thumbnail),
        display,
      };
    } catch (error) {
      if (!(error instanceof ProblemError) || !error.verdict) throw error;
      const { thumbnail = "", ...problem } = error.problem;
      return {
        ...known,
        status: error.verdict,
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
      hash && [...this.store.get().records.values()].find((other) => other.hash === hash && other.key !== record.key);
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
      if (!record || !isJudged || state.images.has(record.key) || this.loading.has(record.key)) continue;
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
      list.findIndex(({ key }) => key === record.key) - list.findIndex(({ key }) => key === now.selected),
    );
    if (near > 1 && record.key !== now.compared) return;
    let image;
    try {
      const head = new Uint8Array(await record.file.slice(0, 132).arrayBuffer());
      const { facts, buffer } = await this.api.image(record.file, mediaType(record.path, head));
      image = storedImage(facts, buffer);
    } catch (error) {
      if (isUnreachable(error)) {
        await this.reachable(); // which changes the state, so that the image is loaded again
        return;
      }
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
        if (key !== state.selected && key !== state.compared && key !== record.key) images.delete(key);
      }
      return { images };
    });
  }
}

/** @param {string} jpeg Base64. */
function dataUrl(jpeg) {
  return jpeg ? `data:image/jpeg;base64,${jpeg}` : "";
}
