/** Write zip archives without compression (APPNOTE 6.3.10, method "stored"). */

import { crc32 } from "./png.mjs";

/** @typedef {{name: string, content: Uint8Array | Blob}} Entry */

const UTF8 = 0x0800; // general purpose bit 11: names are UTF-8
const DAY_ONE = 0x21; // 1980-01-01: the archive does not depend on the time

/**
 * Return a zip archive of files.
 *
 * @param {Iterable<Entry> | AsyncIterable<Entry>} entries
 * @returns {Promise<Blob>}
 */
export async function zip(entries) {
  /** @type {(Uint8Array<ArrayBuffer> | Blob)[]} */
  const parts = [];
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const directory = [];
  let place = 0;
  for await (const { name, content } of entries) {
    const bytes = content instanceof Blob ? new Uint8Array(await content.arrayBuffer()) : Uint8Array.from(content);
    const path = new TextEncoder().encode(name);
    const sum = crc32(bytes);
    const common = [u16(20), u16(UTF8), u16(0), u16(0), u16(DAY_ONE), u32(sum), u32(bytes.length), u32(bytes.length)];
    const local = joined([u32(0x04034b50), ...common, u16(path.length), u16(0), path]);
    directory.push(
      joined([
        u32(0x02014b50),
        u16(20),
        ...common,
        u16(path.length),
        u16(0),
        u16(0),
        u16(0),
        u16(0),
        u32(0),
        u32(place),
        path,
      ]),
    );
    // A blob may be kept by the browser outside of its memory.
    parts.push(local, new Blob([bytes]));
    place += local.length + bytes.length;
  }
  const size = directory.reduce((sum, entry) => sum + entry.length, 0);
  const count = u16(directory.length);
  const end = joined([u32(0x06054b50), u16(0), u16(0), count, count, u32(size), u32(place), u16(0)]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** @param {number} value */
function u16(value) {
  return Uint8Array.of(value & 255, (value >>> 8) & 255);
}

/** @param {number} value */
function u32(value) {
  return Uint8Array.of(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, (value >>> 24) & 255);
}

/**
 * @param {Uint8Array[]} parts
 * @returns {Uint8Array<ArrayBuffer>}
 */
function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    all.set(part, place);
    place += part.length;
  }
  return all;
}
