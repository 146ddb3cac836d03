import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateRawSync } from "node:zlib";

import { isDicom, readHeader } from "../../src/hilum/service/web/js/dicom.mjs";
import { dicomElement, dicomFile, joined } from "./building.mjs";

const EXPLICIT = "1.2.840.10008.1.2.1";
const IMPLICIT = "1.2.840.10008.1.2";
const BIG = "1.2.840.10008.1.2.2";

/** @param {{explicit?: boolean, little?: boolean}} how */
function elements(how) {
  const item = dicomElement(0xfffee000, "", dicomElement(0x00100010, "PN", "Wrong^Person", how), {
    ...how,
    explicit: false,
  });
  const endOfItems = dicomElement(0xfffee0dd, "", "", { ...how, explicit: false });
  return [
    dicomElement(0x00080020, "DA", "20240131", how),
    dicomElement(0x00080060, "CS", "DX", how),
    dicomElement(0x00081140, "SQ", joined(item, endOfItems), { ...how, undefinedLength: true }),
    dicomElement(0x00100010, "PN", "Mustermann^Erika^Eva", how),
    dicomElement(0x00181164, "DS", "0.143\\0.144", how),
    dicomElement(0x00185101, "CS", "PA", how),
    dicomElement(0x7fe00010, "OW", new Uint8Array(64), how),
  ];
}

const EXPECTED = {
  patient: "Mustermann, Erika Eva",
  date: "2024-01-31",
  modality: "DX",
  view: "PA",
  spacing: { spacing: [0.143, 0.144], element: "ImagerPixelSpacing" },
};

test("explicit, implicit and big-endian headers, past nested sequences", async () => {
  assert.deepEqual(await readHeader(dicomFile(EXPLICIT, ...elements({}))), EXPECTED);
  assert.deepEqual(await readHeader(dicomFile(IMPLICIT, ...elements({ explicit: false }))), EXPECTED);
  assert.deepEqual(await readHeader(dicomFile(BIG, ...elements({ little: false }))), EXPECTED);
});

test("without a preamble, and deflated", async () => {
  assert.deepEqual(await readHeader(joined(...elements({}))), EXPECTED);
  assert.deepEqual(await readHeader(joined(...elements({ explicit: false }))), EXPECTED);
  const deflated = new Uint8Array(deflateRawSync(joined(...elements({}))));
  assert.deepEqual(await readHeader(dicomFile("1.2.840.10008.1.2.1.99", deflated)), EXPECTED);
});

test("PixelSpacing, which is calibrated, comes first", async () => {
  const found = await readHeader(
    dicomFile(EXPLICIT, dicomElement(0x00181164, "DS", "0.2\\0.2"), dicomElement(0x00280030, "DS", "0.1\\0.1")),
  );
  assert.deepEqual(found.spacing, { spacing: [0.1, 0.1], element: "PixelSpacing" });
});

test("names in their character set", async () => {
  const utf8 = dicomFile(
    EXPLICIT,
    dicomElement(0x00080005, "CS", "ISO_IR 192"),
    dicomElement(0x00100010, "PN", "Äpfel^Ωμ"),
  );
  assert.equal((await readHeader(utf8)).patient, "Äpfel, Ωμ");
  const latin = dicomFile(
    EXPLICIT,
    dicomElement(0x00080005, "CS", "ISO_IR 100"),
    dicomElement(0x00100010, "PN", Uint8Array.of(0xc4, 0x62)),
  );
  assert.equal((await readHeader(latin)).patient, "Äb");
});

test("damage gives what was read before it", async () => {
  const whole = dicomFile(EXPLICIT, ...elements({}));
  for (let length = 0; length < whole.length; length += 7) {
    const found = await readHeader(whole.slice(0, length));
    assert.ok(["", EXPECTED.date].includes(found.date));
  }
  const random = Uint8Array.from({ length: 4000 }, (_, place) => (place * 7919 * place) % 251);
  assert.equal(typeof (await readHeader(random)).patient, "string");
  const nested = joined(
    ...Array.from({ length: 500 }, () => dicomElement(0x00081140, "SQ", "", { undefinedLength: true })),
  );
  assert.equal((await readHeader(dicomFile(EXPLICIT, nested))).patient, "");
});

test("the preamble tells DICOM", () => {
  assert.equal(isDicom(dicomFile(EXPLICIT)), true);
  assert.equal(isDicom(new Uint8Array(200)), false);
  assert.equal(isDicom(new Uint8Array(10)), false);
});
