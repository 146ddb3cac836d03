/** The queue of images that wait for the service: a few requests at a time, pause, and retry. */

import { ProblemError } from "./api.mjs";
import { changed } from "./records.mjs";

/** @import { Store } from "./store.mjs" */
/** @import { ImageRecord, State } from "./records.mjs" */

const TRIES = 3; // of a request that fails without an answer

/**
 * @typedef {object} QueueOptions
 * @property {number} [parallel] Requests at a time.
 * @property {(milliseconds: number) => Promise<void>} [sleep]
 * @property {() => void} [onUnauthorized]
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
    this.running = 0;
    this.restUntil = 0;
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
        const rest = error instanceof ProblemError ? error.retryAfter : tries < TRIES ? 2 ** (tries - 1) : 0;
        if (!rest) {
          this.store.set((state) => changed(state, key, failure(error)));
          return;
        }
        await this.sleep(1000 * rest);
      }
    }
  }
}

/**
 * @param {unknown} error
 * @returns {Partial<ImageRecord>}
 */
function failure(error) {
  const problem =
    error instanceof ProblemError
      ? error.problem
      : {
          type: "about:blank",
          title: "The service cannot be reached",
          status: 0,
          detail: String(error),
        };
  return { status: "failed", problem };
}
