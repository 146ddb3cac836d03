/** The start of the app: where images come in, and phantoms to try it with. */

import { button, element } from "./dom.mjs";

/** @import { App } from "./app.mjs" */

export class Welcome {
  /**
   * @param {App} app
   * @param {HTMLElement} root
   */
  constructor(app, root) {
    this.app = app;
    this.examples = element("div", { class: "examples" });
    this.all = button("All examples", () => void this.take(this.found));
    /** @type {{name: string, caption: string}[]} */
    this.found = [];
    root.append(
      element("h2", {}, "Class, lung outline and evidence of chest radiographs"),
      element("p", {}, "Images stay in this browser and on the machine that runs hilum. Nothing is stored there."),
      element(
        "div",
        { class: "dropzone" },
        element("p", { class: "large" }, "Drop images or a folder here"),
        element(
          "div",
          { class: "row" },
          button("Open files", () => app.chooseFiles(), { class: "primary" }),
          button("Open folder", () => app.chooseFolder()),
        ),
        element("p", { class: "muted" }, "PNG, JPEG, WebP, BMP, TIFF and DICOM; frontal views"),
      ),
      element("div", { class: "row between" }, element("h3", {}, "Or try it with synthetic images"), this.all),
      this.examples,
    );
    this.all.hidden = true;
  }

  /** Ask the service for its example images. */
  async start() {
    this.found = await this.app.api.examples();
    this.all.hidden = false;
    this.examples.replaceChildren(
      ...this.found.map((example) =>
        element(
          "button",
          { type: "button", onclick: () => void this.take([example]) },
          element("img", {
            src: `web/examples/${example.name}`,
            alt: "",
            loading: "lazy",
          }),
          element("span", {}, example.caption),
        ),
      ),
    );
  }

  /** @param {{name: string}[]} examples */
  async take(examples) {
    const files = await Promise.all(
      examples.map(async ({ name }) => {
        const blob = await (await this.app.api.request(`web/examples/${name}`)).blob();
        return { file: new File([blob], name), path: name };
      }),
    );
    await this.app.add(files);
  }
}
