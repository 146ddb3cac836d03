/** Start the app: the store, the service, the queue, and the parts of the page that are drawn from the store. */

import { Api } from "./api.mjs";
import { App } from "./app.mjs";
import { Dialogs } from "./dialogs.mjs";
import { byId, button } from "./dom.mjs";
import { droppedFiles } from "./intake.mjs";
import { listenToKeys } from "./keys.mjs";
import { List } from "./list.mjs";
import { Panel } from "./panel.mjs";
import { initialState } from "./records.mjs";
import { Stage } from "./stage.mjs";
import { createStore } from "./store.mjs";
import { Welcome } from "./welcome.mjs";

/** @import { State } from "./records.mjs" */

const store = createStore(initialState());
const app = new App(store, new Api());
const dialogs = new Dialogs(app, byId("dialogs"));
const welcome = new Welcome(app, byId("welcome"));
const list = new List(app, byId("side"));
const stage = new Stage(app, byId("stage"));
const panel = new Panel(app, byId("panel"));

byId("actions").append(
  button("Open files", () => app.chooseFiles(), { class: "primary" }),
  button("Open folder", () => app.chooseFolder()),
  button("Download", () => app.openDialog("download"), {
    class: "with-images",
  }),
  button("Model card", () => app.openDialog("card")),
  button("Audit", () => app.openDialog("audit")),
  button("Help", () => app.openDialog("help"), { title: "?" }),
);
const tabs = ["list", "image"].map((page) =>
  button(page === "list" ? "Images" : "Viewer", () => store.set({ page: /** @type {"list" | "image"} */ (page) }), {
    "data-page": page,
  }),
);
byId("tabs").append(...tabs);

/** All parts are drawn from one state, in one go: they cannot disagree. */
store.subscribe((state) => {
  const empty = state.records.size === 0;
  document.body.dataset.empty = String(empty);
  document.body.dataset.page = state.page;
  byId("welcome").hidden = !empty;
  byId("room").hidden = empty;
  tellModel(state);
  for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.page === state.page));
  const notice = byId("notice");
  if (notice.textContent !== state.notice) notice.textContent = state.notice;
  if (!empty) {
    list.draw(state);
    stage.draw(state);
    panel.draw(state);
  }
  dialogs.draw(state);
});

listenToKeys(app, stage, panel.review);
listenToDrops();
app.onStart = () => void welcome.start();
void app.start();
store.set({});
Object.assign(window, { hilum: { store } }); // for the console and the tests

/** Say which model answers, or that the service does not. @param {State} state */
function tellModel({ bundle, unreachable }) {
  const words = unreachable ? "Service unreachable; retrying" : bundle ? `model: ${bundle.name}` : "";
  const place = byId("model");
  if (place.textContent !== words) place.textContent = words;
  place.classList.toggle("unreachable", unreachable);
}

function listenToDrops() {
  const veil = byId("drop");
  let depth = 0;
  const show = (/** @type {number} */ by) => {
    depth = Math.max(0, depth + by);
    veil.classList.toggle("shown", depth > 0);
  };
  addEventListener("dragenter", (event) => event.dataTransfer?.types.includes("Files") && show(1));
  addEventListener("dragleave", (event) => event.dataTransfer?.types.includes("Files") && show(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    show(-depth);
    if (event.dataTransfer) void droppedFiles(event.dataTransfer).then((files) => app.add(files));
  });
  addEventListener("beforeunload", (event) => {
    if (app.hasUnsaved()) event.preventDefault();
  });
}
