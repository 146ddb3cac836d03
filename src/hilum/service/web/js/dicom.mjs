/**
 * Read the few elements of a DICOM header that the page shows. Patient name and date stay in the browser: nothing that is
 * read here is sent. Pixels are decoded by the service.
 */

/**
 * @typedef {object} DicomHeader
 * @property {string} patient
 * @property {string} date As YYYY-MM-DD, or as in the file.
 * @property {string} modality
 * @property {string} view
 * @property {{spacing: [number, number], element: "PixelSpacing" | "ImagerPixelSpacing"} | null} spacing Between rows and
 *   between columns, mm.
 */

const LONG = new Set(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]);
const UNDEFINED = 0xffffffff;
const DEFLATED = "1.2.840.10008.1.2.1.99";
const IMPLICIT = "1.2.840.10008.1.2";
const BIG_ENDIAN = "1.2.840.10008.1.2.2";
const MOST = 64; // levels of nested sequences

/** The elements that are kept, by tag. */
const NAMES = new Map([
  [0x00020010, "syntax"],
  [0x00080005, "charset"],
  [0x00080020, "studyDate"],
  [0x00080060, "modality"],
  [0x00100010, "patient"],
  [0x00181164, "imagerSpacing"],
  [0x00185101, "view"],
  [0x00280030, "spacing"],
]);
const LAST = 0x00280030; // nothing further is needed

/** Names of character sets of PS3.3 C.12.1.1.2 for TextDecoder. */
const CHARSETS = new Map([
  ["ISO_IR 100", "iso-8859-1"],
  ["ISO_IR 101", "iso-8859-2"],
  ["ISO_IR 109", "iso-8859-3"],
  ["ISO_IR 110", "iso-8859-4"],
  ["ISO_IR 144", "iso-8859-5"],
  ["ISO_IR 127", "iso-8859-6"],
  ["ISO_IR 126", "iso-8859-7"],
  ["ISO_IR 138", "iso-8859-8"],
  ["ISO_IR 148", "windows-1254"],
  ["ISO_IR 203", "iso-8859-15"],
  ["ISO_IR 13", "shift_jis"],
  ["ISO_IR 166", "windows-874"],
  ["ISO_IR 192", "utf-8"],
  ["GB18030", "gb18030"],
  ["GBK", "gbk"],
  ["ISO 2022 IR 87", "iso-2022-jp"],
  ["ISO 2022 IR 149", "euc-kr"],
  ["ISO 2022 IR 58", "gb18030"],
  ["ISO 2022 IR 100", "iso-8859-1"],
]);

/**
 * Return whether bytes are a DICOM file with the preamble of PS3.10.
 *
 * @param {Uint8Array} bytes At least the first 132.
 */
export function isDicom(bytes) {
  return (
    bytes.length >= 132 && bytes[128] === 0x44 && bytes[129] === 0x49 && bytes[130] === 0x43 && bytes[131] === 0x4d
  );
}

/**
 * Read a header; what is absent is empty. A damaged file gives what was read before the damage.
 *
 * @param {Uint8Array} bytes
 * @returns {Promise<DicomHeader>}
 */
export async function readHeader(bytes) {
  /** @type {Map<string, Uint8Array>} */
  const found = new Map();
  try {
    await collect(bytes, found);
  } catch (error) {
    if (!(error instanceof RangeError) && !(error instanceof TypeError)) throw error; // reads beyond the end; bad deflate
  }
  const charsets = plain(found.get("charset"))
    .split("\\")
    .map((name) => CHARSETS.get(name.trim()))
    .filter(Boolean);
  const charset = charsets.at(-1) ?? "iso-8859-1";
  const patient = new TextDecoder(charset).decode(found.get("patient") ?? new Uint8Array());
  const date = plain(found.get("studyDate"));
  return {
    patient: patientName(patient),
    date: /^\d{8}$/.test(date) ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}` : date,
    modality: plain(found.get("modality")),
    view: plain(found.get("view")),
    spacing: spacingOf(found, "spacing", "PixelSpacing") ?? spacingOf(found, "imagerSpacing", "ImagerPixelSpacing"),
  };
}

/**
 * @param {Uint8Array} bytes
 * @param {Map<string, Uint8Array>} found
 */
async function collect(bytes, found) {
  let start = 0;
  let syntax = IMPLICIT;
  if (isDicom(bytes)) {
    start = elements(bytes, 132, { explicit: true, little: true, meta: true }, found);
    syntax = plain(found.get("syntax"));
  } else if (/^[A-Z]{2}$/.test(String.fromCharCode(bytes[4], bytes[5]))) syntax = "explicit";
  let rest = bytes.subarray(start);
  if (syntax === DEFLATED) {
    const stream = new Blob([Uint8Array.from(rest)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    rest = new Uint8Array(await new Response(stream).arrayBuffer());
  }
  elements(
    rest,
    0,
    {
      explicit: syntax !== IMPLICIT,
      little: syntax !== BIG_ENDIAN,
      meta: false,
    },
    found,
  );
}

/**
 * Walk over the elements of a dataset up to the last one that is needed; return the place where it stopped.
 *
 * @param {Uint8Array} bytes
 * @param {number} place
 * @param {{explicit: boolean, little: boolean, meta: boolean}} syntax
 * @param {Map<string, Uint8Array>} found
 */
function elements(bytes, place, syntax, found) {
  while (place + 8 <= bytes.length) {
    const { tag, length, body } = elementAt(bytes, place, syntax);
    if (syntax.meta && tag >>> 16 !== 2) return place;
    if (!syntax.meta && tag > LAST) return place;
    if (length === UNDEFINED) {
      place = endOfSequence(bytes, body, syntax, 0);
      continue;
    }
    const name = NAMES.get(tag);
    if (name && !found.has(name) && body + length <= bytes.length) found.set(name, bytes.subarray(body, body + length));
    place = body + length;
  }
  return place;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} place
 * @param {{explicit: boolean, little: boolean}} syntax
 */
function elementAt(bytes, place, { explicit, little }) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const tag = view.getUint16(place, little) * 0x10000 + view.getUint16(place + 2, little);
  if (!explicit || tag >>> 16 === 0xfffe) return { tag, length: view.getUint32(place + 4, little), body: place + 8 };
  const representation = String.fromCharCode(bytes[place + 4], bytes[place + 5]);
  if (LONG.has(representation)) return { tag, length: view.getUint32(place + 8, little), body: place + 12 };
  return { tag, length: view.getUint16(place + 6, little), body: place + 8 };
}

/**
 * Return the place after a sequence, or an item, of undefined length.
 *
 * @param {Uint8Array} bytes
 * @param {number} place
 * @param {{explicit: boolean, little: boolean}} syntax
 * @param {number} depth
 * @returns {number}
 */
function endOfSequence(bytes, place, syntax, depth) {
  if (depth > MOST) throw new RangeError("too many levels");
  while (place + 8 <= bytes.length) {
    const { tag, length, body } = elementAt(bytes, place, syntax);
    if (tag === 0xfffee0dd || tag === 0xfffee00d) return body;
    place = length === UNDEFINED ? endOfSequence(bytes, body, syntax, depth + 1) : body + length;
  }
  return place;
}

/** @param {Uint8Array | undefined} value */
function plain(value) {
  return value
    ? String.fromCharCode(...value)
        .replace(/\0/g, "")
        .trim()
    : "";
}

/** @param {string} text */
function patientName(text) {
  const [family, given, middle] = text
    .split("=")[0]
    .replace(/\0/g, "")
    .split("^")
    .map((part) => part.trim());
  const first = [given, middle].filter(Boolean).join(" ");
  return [family, first].filter(Boolean).join(", ");
}

/**
 * @param {Map<string, Uint8Array>} found
 * @param {string} key
 * @param {"PixelSpacing" | "ImagerPixelSpacing"} element
 * @returns {DicomHeader["spacing"]}
 */
function spacingOf(found, key, element) {
  const [row, column] = plain(found.get(key)).split("\\").map(Number);
  return row > 0 && column > 0 ? { spacing: [row, column], element } : null;
}
