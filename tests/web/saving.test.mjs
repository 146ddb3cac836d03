import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { inflateSync } from "node:zlib";

import { cell, table } from "../../src/hilum/service/web/js/csv.mjs";
import { imagesOf, mediaType, sha256 } from "../../src/hilum/service/web/js/intake.mjs";
import { crc32, maskPng } from "../../src/hilum/service/web/js/png.mjs";
import { predictionsCsv } from "../../src/hilum/service/web/js/results.mjs";
import * as reviews from "../../src/hilum/service/web/js/review.mjs";
import { zip } from "../../src/hilum/service/web/js/zip.mjs";
import { prediction, record } from "./building.mjs";

test("cells as hilum writes them", () => {
  assert.equal(cell("=1+1"), "'=1+1");
  assert.equal(cell("-0.5e3"), "-0.5e3");
  assert.equal(cell("-x"), "'-x");
  assert.equal(cell('a "b", c'), '"a ""b"", c"');
  assert.equal(cell("two\nlines"), '"two\nlines"');
  assert.equal(cell(null), "");
  assert.equal(table([["a", "b"], ["1", ""]]), "a,b\n1,\n"); // prettier-ignore
});

test("CRC-32 of the standard's check value", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});

test("a mask as an 8-bit gray PNG", async () => {
  const png = Buffer.from(await maskPng(Uint8Array.of(0, 1, 1, 0, 0, 1), 3, 2));
  assert.equal(png.toString("latin1", 1, 4), "PNG");
  assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20), png[24], png[25]], [3, 2, 8, 0]);
  const length = png.readUInt32BE(33);
  assert.deepEqual([...inflateSync(png.subarray(41, 41 + length))], [0, 0, 255, 255, 0, 0, 0, 255]);
});

test("a zip that Python opens, names in UTF-8", async () => {
  const folder = mkdtempSync(join(tmpdir(), "hilum-zip-"));
  try {
    const content = Uint8Array.from({ length: 70_000 }, (_, place) => place % 256);
    const blob = await zip([
      { name: "a/b.bin", content },
      { name: "größe.txt", content: new Blob(["text"]) },
    ]);
    writeFileSync(join(folder, "x.zip"), Buffer.from(await blob.arrayBuffer()));
    const code =
      "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; z.extractall(sys.argv[2])";
    execFileSync("python3", ["-c", code, join(folder, "x.zip"), folder]);
    assert.deepEqual(new Uint8Array(readFileSync(join(folder, "a/b.bin"))), content);
    assert.equal(readFileSync(join(folder, "größe.txt"), "utf8"), "text");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** @returns {Storage} */
function storage() {
  /** @type {Map<string, string>} */
  const kept = new Map();
  return {
    get length() {
      return kept.size;
    },
    clear: () => kept.clear(),
    getItem: (key) => kept.get(key) ?? null,
    key: (place) => [...kept.keys()][place] ?? null,
    removeItem: (key) => void kept.delete(key),
    setItem: (key, value) => void kept.set(key, value),
  };
}

const GRID = { factor: 1, width: 6, height: 4, values: new Uint8Array(24).fill(1) };

test("a review is kept by content, and withdrawn", () => {
  const store = storage();
  store.setItem("other", "x");
  const review = reviews.revised(null, {
    decision: "other",
    label: "COVID",
    note: "faint",
    outline: "corrected",
    grid: GRID,
  });
  reviews.keepReview(store, "abc", review);
  assert.deepEqual(reviews.keptReview(store, "abc"), review);
  assert.equal(reviews.keptReview(store, "xyz"), null);
  assert.equal(reviews.keptReview(store, ""), null);
  store.setItem("hilum-review:bad", "{");
  assert.equal(reviews.keptReview(store, "bad"), null);
  assert.equal(reviews.revised(review, { decision: "", label: "", note: "", outline: "" }), null);
  assert.equal(reviews.revised(review, { outline: "accepted" })?.grid, null);
  reviews.forgetReviews(store);
  assert.deepEqual([store.length, store.getItem("other")], [1, "x"]);
});

/** @param {AsyncIterable<{name: string, content: Uint8Array | Blob}>} files */
async function gathered(files) {
  /** @type {Map<string, Uint8Array | Blob>} */
  const found = new Map();
  for await (const { name, content } of files) found.set(name, content);
  return found;
}

test("the export: labels and masks that a person gave, nothing else", async () => {
  const agreed = record("a", {
    path: "one/a.png",
    hash: "h1",
    prediction: prediction(),
    review: reviews.revised(null, { decision: "agree", label: "Normal", outline: "accepted" }),
  });
  const other = record("b", {
    path: "two/a.jpg",
    prediction: prediction(),
    review: reviews.revised(null, { decision: "other", label: "COVID", note: "a, b" }),
  });
  const open = record("c", { prediction: prediction(), review: reviews.revised(null, { decision: "not_assessable" }) });
  const none = record("d", { prediction: prediction() });
  const files = await gathered(reviews.reviewFiles([agreed, other, open, none], false));
  assert.deepEqual([...files.keys()], ["review-masks/one/a.png", "review.csv"]);
  const text = new TextDecoder().decode(/** @type {Uint8Array} */ (files.get("review.csv")));
  assert.deepEqual(text.split("\n"), [
    "image,mask,label,decision,predicted_label,probability,outline,note,sha256",
    "one/a.png,review-masks/one/a.png,Normal,agree,Normal,0.900000,accepted,,h1",
    'two/a.jpg,,COVID,other,Normal,0.900000,,"a, b",',
    "c.png,,,not_assessable,Normal,0.900000,,,",
    "",
  ]);
  const whole = await gathered(reviews.reviewFiles([agreed, other], true));
  assert.equal(whole.get("review-images/two/a.jpg"), other.file);
});

test("names that differ by suffix alone get masks of their own", () => {
  assert.deepEqual(reviews.distinct(["x/a.png", "x/a.jpg", "x/b"]), ["x/a.png", "x/a (2).jpg", "x/b"]);
});

test("the table of predictions", () => {
  const unreadable = record("b", {
    status: "unreadable",
    problem: { type: "", title: "", status: 422, detail: "damaged" },
  });
  const text = predictionsCsv(
    [record("a", { status: "ok", prediction: prediction() }), unreadable, record("c")],
    ["COVID", "Normal"],
  );
  assert.deepEqual(text.split("\n"), [
    "file,status,predicted_label,prediction_set,abstained,prob_COVID,prob_Normal,lung_fraction,reason",
    "a.png,ok,Normal,Normal,0,0.100000,0.900000,0.2500,",
    "b.png,unreadable,,,,,,,damaged",
    "",
  ]);
});

test("files that are no images are left out, whatever their names", async () => {
  const preamble = new Uint8Array(140);
  preamble.set([0x44, 0x49, 0x43, 0x4d], 128);
  /** @type {[string, BlobPart][]} */
  const given = [
    ["a.png", "x"],
    ["sub/IM0001", preamble],
    ["DICOMDIR", preamble],
    [".hidden/b.png", "x"],
    ["notes.txt", "text"],
    ["scan", Uint8Array.of(0xff, 0xd8, 0xff, 0xe0)],
    ["Normal/images/c.png", "x"],
    ["Normal/masks/c.png", "x"],
    ["review-masks/a.png", "x"],
    ["masks/only.png", "x"],
  ];
  const { images, others } = await imagesOf(given.map(([path, part]) => ({ file: new File([part], path), path })));
  assert.deepEqual(
    images.map(({ path }) => path),
    ["a.png", "sub/IM0001", "scan", "Normal/images/c.png", "masks/only.png"],
  );
  assert.equal(others, 5);
  assert.equal(mediaType("x", preamble), "application/dicom");
  assert.equal(mediaType("x.DCM", new Uint8Array()), "application/dicom");
  assert.equal(mediaType("x.png", new Uint8Array()), "application/octet-stream");
  const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  assert.equal(await sha256(new Uint8Array()), empty);
});
