/** What is one click away: downloads, the export of reviews, the model card, the audit, the keys. */

import { button, element } from "./dom.mjs";
import { KEYS } from "./keys.mjs";
import { firstSentences, rendered, sections } from "./markdown.mjs";
import { downloads, reviews } from "./save_dialogs.mjs";

/** @import { App } from "./app.mjs" */
/** @import { State } from "./records.mjs" */

export class Dialogs {
  /**
   * @param {App} app
   * @param {HTMLElement} root
   */
  constructor(app, root) {
    this.app = app;
    this.title = element("h2", { id: "dialog-title" });
    this.body = element("div", { class: "body" });
    const close = button("×", () => app.closeDialog(), {
      class: "close",
      "aria-label": "Close",
    });
    this.dialog = element(
      "dialog",
      { "aria-labelledby": "dialog-title" },
      element("header", {}, this.title, close),
      this.body,
    );
    // Escape closes through the state, at once: the browser's own event comes later, when the next dialog may be open.
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      app.closeDialog();
    });
    this.dialog.addEventListener("close", () => this.shown && !this.dialog.open && app.closeDialog());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && app.closeDialog());
    root.append(this.dialog);
    /** @type {string | null} */
    this.shown = null;
    /** @type {Record<string, [string, () => Promise<(Node | string | false)[]>]>} */
    this.contents = {
      help: ["Help", () => this.help()],
      card: ["Model card", () => this.card()],
      audit: ["Audit", () => this.audit()],
      download: ["Download", async () => downloads(app)],
      export: ["Export review", async () => reviews(app)],
      clear: ["Remove all images?", () => this.clear()],
      token: ["Access token", () => this.token()],
    };
  }

  /** @param {State} state */
  draw(state) {
    if (state.dialog === this.shown) return;
    this.shown = state.dialog;
    if (!state.dialog) {
      this.dialog.close();
      return;
    }
    const [title, make] = this.contents[state.dialog];
    this.title.textContent = title;
    this.dialog.dataset.name = state.dialog;
    this.body.replaceChildren(element("p", { class: "muted" }, "Loading…"));
    if (!this.dialog.open) this.dialog.showModal();
    make()
      .then(
        (parts) => this.shown === state.dialog && this.body.replaceChildren(...parts.filter((part) => part !== false)),
      )
      .catch(
        (error) =>
          this.shown === state.dialog &&
          this.body.replaceChildren(element("p", {}, error instanceof Error ? error.message : String(error))),
      );
  }

  async help() {
    const tables = KEYS.flatMap(([title, keys]) => [
      element("h3", {}, title),
      element(
        "table",
        { class: "keys" },
        element(
          "tbody",
          {},
          ...keys.map(([name, does]) =>
            element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, does)),
          ),
        ),
      ),
    ]);
    return [
      element(
        "p",
        {},
        "The probability is calibrated on validation images: of those answered with 80%, about 80% were right. " +
          "Evidence is what each place of the image adds to the answer for a class.",
      ),
      ...tables,
      element(
        "p",
        { class: "muted" },
        "Images and answers stay in this browser until the page is closed; the service keeps none. " +
          "Reviews are kept in this browser by the content of the image, without pixels or names.",
      ),
      element(
        "div",
        { class: "row" },
        button("Forget all reviews", () => this.app.forgetReviews()),
        element("a", { href: "docs", target: "_blank", rel: "noreferrer" }, "REST API"),
      ),
    ];
  }

  async card() {
    const text = await this.app.api.card();
    const parts = new Map(sections(text).map((part) => [part.title, part.text]));
    const items = [
      ["What it is", firstSentences((parts.get("") ?? text).replace(/^#.*\n/, ""), 1)],
      ["For", firstItem(parts.get("Intended use"))],
      ["Not for", firstItem(parts.get("Out-of-scope use"))],
      ["Trained on", firstItem(parts.get("Training and evaluation data"), 1)],
      ["Beware", firstItem(parts.get("Confounding")) || firstItem(parts.get("Limitations"))],
    ].filter(([, words]) => words);
    const list = items.flatMap(([name, words]) => [element("dt", {}, name), element("dd", {}, words)]);
    const full = element("details", { class: "full" }, element("summary", {}, "Full model card"), ...rendered(text));
    return [element("dl", { class: "summary" }, ...list), full];
  }

  async audit() {
    const audit = await this.app.api.audit();
    if (!audit) {
      const parts = new Map(sections(await this.app.api.card()).map((part) => [part.title, part.text]));
      return [
        element("p", {}, "The service was started without an audit. The model card says of the data:"),
        ...rendered(parts.get("Confounding") ?? "Nothing."),
        element("p", { class: "muted" }, "hilum audit DATA --output audit, then hilum app --audit audit, shows yours."),
      ];
    }
    const worst = audit.findings.filter((/** @type {any} */ found) => found.severity !== "info");
    /** @type {(found: any) => HTMLElement} */
    const item = (found) =>
      element("li", { class: found.severity }, element("b", {}, `${found.word}: `), found.message);
    return [
      element("p", { class: "large" }, audit.conclusion || "No conclusion is in this report."),
      element(
        "p",
        { class: "muted" },
        `${audit.name}: ${audit.images.toLocaleString("en")} images, ${audit.groups.toLocaleString("en")} groups, ${audit.sources} sources`,
      ),
      worst.length > 0 && element("ul", {}, ...worst.slice(0, 3).map(item)),
      element(
        "details",
        { class: "full" },
        element("summary", {}, `All ${audit.findings.length} findings`),
        element("ul", {}, ...audit.findings.map(item)),
        ...Object.entries(audit.not_run).map(([part, why]) =>
          element("p", { class: "muted" }, `Not run: ${part}: ${why}`),
        ),
      ),
    ];
  }

  async clear() {
    const count = [...this.app.store.get().records.values()].filter((record) => record.review).length;
    return [
      element(
        "p",
        {},
        count ? `Reviews of ${count} images stay in this browser until they are forgotten.` : "Nothing else is kept.",
      ),
      element(
        "div",
        { class: "row" },
        button("Remove all", () => this.app.clear(), { class: "primary" }),
        button("Cancel", () => this.app.closeDialog()),
      ),
    ];
  }

  async token() {
    const input = element("input", { type: "password", autocomplete: "off", "aria-label": "Access token" });
    const words = element("p", { role: "status", class: "muted" });
    const send = async (/** @type {Event} */ event) => {
      event.preventDefault();
      words.textContent = "";
      if (!(await this.app.useToken(input.value.trim()))) words.textContent = "The service does not accept this token.";
    };
    const go = element("button", { type: "submit", class: "primary" }, "Continue");
    const form = element("form", { class: "row", onsubmit: send }, input, go);
    return [element("p", {}, "This service requires a token. It is kept until the page is closed."), form, words];
  }
}

/**
 * The first sentences of a text or of its first list.
 *
 * @param {string | undefined} text
 * @param {number} [count]
 */
function firstItem(text, count = 2) {
  if (!text) return "";
  const item = text.match(/^[-*] ([\s\S]*?)(?=\n[-*] |\n\n|$)/)?.[1];
  return firstSentences(item ?? text, count);
}
