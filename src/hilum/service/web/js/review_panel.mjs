/** The review of the selected image. */

import { button, element } from "./dom.mjs";
import { selectedRecord } from "./records.mjs";
import { className } from "./words.mjs";

/** @import { App } from "./app.mjs" */
/** @import { ImageRecord, State } from "./records.mjs" */

export class ReviewPanel {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.agreeing = button("Agree", () => app.agree(), { title: "a" });
    this.classes = element("select", {
      "aria-label": "Class by review",
      onchange: () => this.classes.value && app.correctLabel(this.classes.value),
    });
    this.open = button("Not assessable", () => app.review({ decision: "not_assessable", label: "" }), { title: "x" });
    this.note = element("textarea", {
      rows: 2,
      placeholder: "Note",
      "aria-label": "Note",
      maxLength: 2000,
      oninput: () => app.review({ note: this.note.value }),
    });
    this.accept = button("Outline is right", () => this.toggleAccepted(), {
      title: "The lung outline becomes a mask of the export",
    });
    this.brush = button("Correct outline", () => app.toggleBrush(), {
      title: "b",
    });
    this.erase = button("Erase", () =>
      app.store.set(({ brush }) => ({
        brush: { ...brush, erase: !brush.erase },
      })),
    );
    this.undone = button("Reset", () => app.review({ outline: "", grid: null }), {
      title: "The model's outline again",
    });
    this.withdraw = button(
      "Withdraw",
      () =>
        app.review({
          decision: "",
          label: "",
          note: "",
          outline: "",
          grid: null,
        }),
      { class: "plain" },
    );
    this.exporting = button("Export review", () => app.openDialog("export"), {
      class: "primary",
    });
    this.root = element(
      "section",
      { class: "review", "aria-label": "Review" },
      element("div", { class: "row between" }, element("h3", {}, "Your review"), this.withdraw),
      element("div", { class: "row choices" }, this.agreeing, this.classes, this.open),
      element("div", { class: "row choices outline" }, this.accept, this.brush, this.erase, this.undone),
      this.note,
      this.exporting,
    );
  }

  /**
   * @param {State} state
   * @param {ImageRecord | null} record
   */
  draw(state, record) {
    const review = record?.review;
    const isJudged = record && ["ok", "refused"].includes(record.status);
    this.root.hidden = !isJudged;
    if (!isJudged) return;
    const names = state.bundle?.class_names ?? [];
    if (this.classes.options.length !== names.length + 1) {
      const options = names.map((name) => element("option", { value: name }, className(name)));
      this.classes.replaceChildren(element("option", { value: "" }, "Other class"), ...options);
    }
    this.agreeing.hidden = !record.prediction;
    this.agreeing.setAttribute("aria-pressed", String(review?.decision === "agree"));
    this.open.setAttribute("aria-pressed", String(review?.decision === "not_assessable"));
    this.classes.value = review?.decision === "other" ? review.label : "";
    this.classes.classList.toggle("set", review?.decision === "other");
    if (this.note.value !== (review?.note ?? "")) this.note.value = review?.note ?? "";
    const hasMask = Boolean(record.prediction?.mask_rle);
    const brushing = state.tool === "brush";
    this.accept.hidden = !hasMask || brushing;
    this.brush.hidden = !hasMask;
    this.brush.textContent = brushing ? "Done" : "Correct outline";
    this.accept.setAttribute("aria-pressed", String(review?.outline === "accepted"));
    this.brush.setAttribute("aria-pressed", String(brushing || review?.outline === "corrected"));
    this.erase.hidden = !brushing;
    this.erase.setAttribute("aria-pressed", String(state.brush.erase));
    this.undone.hidden = review?.outline !== "corrected";
    this.withdraw.hidden = !review;
    this.exporting.hidden = ![...state.records.values()].some((one) => one.review);
  }

  toggleAccepted() {
    const outline = selectedRecord(this.app.store.get())?.review?.outline;
    this.app.review({
      outline: outline === "accepted" ? "" : "accepted",
      grid: null,
    });
  }

  /** Agree, and go to the next image. */
  agree() {
    if (!selectedRecord(this.app.store.get())?.prediction) return;
    this.app.agree();
    this.app.step(1);
  }

  /** @param {number} place */
  chooseClass(place) {
    const name = this.app.store.get().bundle?.class_names[place];
    if (name) this.app.correctLabel(name);
  }

  writeNote() {
    this.note.focus();
  }
}
