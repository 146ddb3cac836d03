/** The one store of the app: an immutable state, replaced as a whole, and its subscribers. */

/**
 * @template State
 * @typedef {object} Store
 * @property {() => State} get
 * @property {(change: Partial<State> | ((state: State) => Partial<State>)) => void} set Replace some properties.
 * @property {(listener: (state: State) => void) => () => void} subscribe Returns the function that ends it.
 */

/**
 * Create a store. Listeners are called once per `schedule`, with the newest state, however often it was replaced.
 *
 * @template State
 * @param {State} initial
 * @param {(run: () => void) => void} [schedule] When listeners run; in the next animation frame by default.
 * @returns {Store<State>}
 */
export function createStore(initial, schedule = (run) => void requestAnimationFrame(run)) {
  let state = Object.freeze(initial);
  let waiting = false;
  /** @type {Set<(state: State) => void>} */
  const listeners = new Set();
  const notify = () => {
    waiting = false;
    for (const listener of listeners) listener(state);
  };
  return {
    get: () => state,
    set(change) {
      const changes = typeof change === "function" ? change(state) : change;
      state = Object.freeze({ ...state, ...changes });
      if (!waiting) {
        waiting = true;
        schedule(notify);
      }
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
