// The phantoms, each a button.

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".part");
  const cards = data.map(({ caption, picture }, place) => element("button",
    { type: "button", onclick: () => setTriggerValue("take", [place]) },
    element("img", { src: picture, alt: "" }), caption));
  const all = element("button", { type: "button", className: "all", textContent: `Take all ${data.length}`,
    onclick: () => setTriggerValue("take", data.map((_, place) => place)) });
  root.replaceChildren(element("div", { className: "cards" }, ...cards), all);
  dropAnywhere();
}
