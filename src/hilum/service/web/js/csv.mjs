/** Write CSV tables as hilum's own (hilum.storage.CsvWriter). */

const FORMULA = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;
const DECIMAL = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/;

/**
 * Return a cell: text that a spreadsheet would take for a formula has an apostrophe before it, which hilum removes.
 *
 * @param {unknown} value
 */
export function cell(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  if (typeof value === "string" && FORMULA.test(text) && !DECIMAL.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * Return a table as UTF-8 text.
 *
 * @param {readonly (readonly unknown[])[]} rows
 */
export function table(rows) {
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}
