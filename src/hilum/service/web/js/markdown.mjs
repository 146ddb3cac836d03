/** Show Markdown as elements: headings, paragraphs, lists, tables, code, emphasis and links. No HTML is parsed. */

import { element } from "./dom.mjs";

/**
 * Return the parts of a text by its second-level headings.
 *
 * @param {string} text
 * @returns {{title: string, text: string}[]} The first has the text before any heading.
 */
export function sections(text) {
  const body = text.replace(/^---\n[\s\S]*?\n---\n/, ""); // the metadata of a card
  return body.split(/^(?=## )/m).map((part) => {
    const [first, ...rest] = part.split("\n");
    return first.startsWith("## ")
      ? { title: first.slice(3).trim(), text: rest.join("\n").trim() }
      : { title: "", text: part.trim() };
  });
}

/**
 * Return the first sentences of a text, without marks.
 *
 * @param {string} text
 * @param {number} count
 */
export function firstSentences(text, count) {
  const paragraph = text.split(/\n\s*\n/).find((part) => /^[A-Za-z0-9*_[]/.test(part.trim())) ?? "";
  const words = paragraph
    .replace(/\s+/g, " ")
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/[*`]/g, "")
    .trim();
  return (words.match(/.*?[.!?](?=\s|$)/g) ?? [words]).slice(0, count).join("").trim();
}

/**
 * Return the elements of a text.
 *
 * @param {string} text
 * @returns {HTMLElement[]}
 */
export function rendered(text) {
  const made = [];
  const blocks = text
    .replace(/^---\n[\s\S]*?\n---\n/, "")
    .replace(/\r/g, "")
    .split(/\n\s*\n/);
  for (let place = 0; place < blocks.length; place += 1) {
    let block = blocks[place].replace(/^\n+|\s+$/g, "");
    if (!block) continue;
    if (block.startsWith("```")) {
      while (!/\n```\s*$/.test(block) && place + 1 < blocks.length) block += `\n\n${blocks[(place += 1)]}`;
      made.push(element("pre", {}, element("code", {}, block.replace(/^```.*\n/, "").replace(/\n?```\s*$/, ""))));
    } else if (/^#{1,6} /.test(block)) {
      const [line, ...rest] = block.split("\n");
      const level = Math.min(6, line.search(/[^#]/) + 1);
      made.push(element(/** @type {"h3"} */ (`h${level}`), {}, ...inline(line.replace(/^#+\s*/, ""))));
      if (rest.length) made.push(...rendered(rest.join("\n")));
    } else if (/^\|.*\|\s*\n\|[\s:|-]+\|/.test(block)) made.push(tableOf(block));
    else if (/^([-*]|\d+\.) /.test(block)) made.push(listOf(block));
    else made.push(element("p", {}, ...inline(block.replace(/\n/g, " "))));
  }
  return made;
}

/** @param {string} block */
function tableOf(block) {
  const [head, , ...rows] = block.split("\n").map((line) => line.replace(/^\||\|\s*$/g, "").split(/(?<!\\)\|/));
  /** @type {(cells: string[], tag: "th" | "td") => HTMLElement} */
  const row = (cells, tag) => element("tr", {}, ...cells.map((cell) => element(tag, {}, ...inline(cell.trim()))));
  const made = element("table", {}, element("thead", {}, row(head, "th")));
  made.append(element("tbody", {}, ...rows.map((cells) => row(cells, "td"))));
  return element("div", { class: "table" }, made);
}

/** @param {string} block */
function listOf(block) {
  const items = block
    .split(/\n(?=(?:[-*]|\d+\.) )/)
    .map((item) => item.replace(/^([-*]|\d+\.) /, "").replace(/\n\s*/g, " "));
  return element(/^\d/.test(block) ? "ol" : "ul", {}, ...items.map((item) => element("li", {}, ...inline(item))));
}

/**
 * @param {string} text
 * @returns {(HTMLElement | string)[]}
 */
function inline(text) {
  const marks = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\(([^)\s]+)\)/g;
  const made = [];
  let place = 0;
  for (const found of text.matchAll(marks)) {
    made.push(text.slice(place, found.index));
    place = found.index + found[0].length;
    if (found[1]) made.push(element("code", {}, found[1]));
    else if (found[2]) made.push(element("strong", {}, ...inline(found[2])));
    else if (found[3]) made.push(element("em", {}, found[3]));
    else if (/^https:\/\//.test(found[5])) {
      made.push(element("a", { href: found[5], rel: "noreferrer noopener", target: "_blank" }, found[4]));
    } else made.push(found[4]);
  }
  made.push(text.slice(place));
  return made.filter((part) => part !== "");
}
