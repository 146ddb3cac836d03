/** The queue of images that wait for the service: a few requests at a time, pause, retry, and outages of the service. */

import { ProblemError } from "./api.mjs";
import { changed } from "./records.mjs";

/** @import { Store } from "./store.mjs" */
/** @import { ImageRecord, State } from "./records.mjs" */

const TRIES = 3; // of a request that fails without an answer from a service that can be reached
const LONGEST = 8000; // milliseconds between questions whether the service is back

/**
 * @typedef {object} QueueOptions
 * @property {number} [parallel] Requests at a time.
 * @property {(milliseconds: number) => Promise<void>} [sleep]
 * @property {() => void} [onUnauthorized]
 * @property {() => Promise<boolean>} [isReachable] Whether the service answers.
 */

/** Works off the records of a store that have the status `waiting`. */
export class Queue {
  /**
   * @param {Store<State>} store
   * @param {(record: ImageRecord) => Promise<Partial<ImageRecord> | null>} work Returns the changes of a record, or null
   *   if it was removed.
   * @param {QueueOptions} [options]
   */
  constructor(store, work, options = {}) {
    this.store = store;
    this.work = work;
    this.parallel = options.parallel ?? 4;
    this.sleep = options.sleep ?? ((milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)));
    this.onUnauthorized = options.onUnauthorized ?? (() => undefined);
    this.isReachable = options.isReachable ?? (async () => true);
    this.running = 0;
    /** @type {Promise<void> | null} */
    this.outage = null;
  }

  /** Start as many requests as there is room for. */
  run() {
    const state = this.store.get();
    if (state.paused) return;
    for (const record of state.records.values()) {
      if (this.running >= this.parallel) return;
      if (record.status !== "waiting") continue;
      this.running += 1;
      this.store.set((now) => changed(now, record.key, { status: "working" }));
      void this.one(record.key).finally(() => {
        this.running -= 1;
        this.run();
      });
    }
  }

  pause() {
    this.store.set({ paused: true });
  }

  resume() {
    this.store.set({ paused: false });
    this.run();
  }

  /** Let the images that failed wait again. */
  retry() {
    this.store.set((state) => {
      const records = new Map(state.records);
      for (const [key, record] of records) {
        if (record.status === "failed")
          records.set(key, Object.freeze({ ...record, status: "waiting", problem: null }));
      }
      return { records };
    });
    this.resume();
  }

  /** Wait until the service answers again; requests that failed together wait together. */
  reachable() {
    this.outage ??= this.outlast().finally(() => (this.outage = null));
    return this.outage;
  }

  async outlast() {
    for (let rest = 1000; ; rest = Math.min(2 * rest, LONGEST)) {
      await this.sleep(rest);
      if (await this.isReachable()) break;
      this.store.set({ unreachable: true });
    }
    this.store.set({ unreachable: false });
  }

  /** @param {string} key */
  async one(key) {
    for (let tries = 1; ; tries += 1) {
      const record = this.store.get().records.get(key);
      if (!record) return;
      try {
        const changes = await this.work(record);
        if (changes) this.store.set((state) => changed(state, key, changes));
        return;
      } catch (error) {
        if (error instanceof ProblemError && error.isUnauthorized) {
          this.store.set((state) => ({
            ...changed(state, key, { status: "waiting" }),
            paused: true,
          }));
          this.onUnauthorized();
          return;
        }
        if (error instanceof ProblemError && error.retryAfter) await this.sleep(1000 * error.retryAfter);
        else if (isUnreachable(error) && tries < TRIES) await this.reachable();
        else {
          this.store.set((state) => changed(state, key, failure(error)));
          return;
        }
      }
    }
  }
}

/**
 * Whether a request ended without an answer: `fetch` rejects with a TypeError then, and nothing else does.
 *
 * @param {unknown} error
 */
export function isUnreachable(error) {
  return error instanceof TypeError;
}

/**
 * @param {unknown} error
 * @returns {Partial<ImageRecord>}
 */
function failure(error) {
  if (error instanceof ProblemError) return { status: "failed", problem: error.problem };
  const type = "about:blank";
  if (isUnreachable(error))
    return { status: "failed", problem: { type, title: "The request broke off", status: 0, detail: String(error) } };
  const detail = "It was changed, moved or deleted after it was opened. Open it again.";
  return { status: "unreadable", problem: { type, title: "The file cannot be read", status: 0, detail } };
}
