"""The files of the conformance table: each stores an image in another way, and is to be read as that image.

`python tests/inference/dicom_matrix/matrix_cases.py` writes the table into README.md anew.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where it runs as a script

from dicom_images import content_of, dicom_image

README = Path(__file__).with_name("README.md")

SYNTAXES = {
    "explicit little endian": uid.ExplicitVRLittleEndian,
    "implicit little endian": uid.ImplicitVRLittleEndian,
    "explicit big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG 2000 lossless": uid.JPEG2000Lossless,
    "JPEG-LS lossless": uid.JPEGLSLossless,
    "JPEG lossless, first-order": uid.JPEGLosslessSV1,
    "JPEG baseline, quality 95": uid.JPEGBaseline8Bit,
}
PLAIN = "explicit little endian"
BY_PYDICOM = {"RLE": "pydicom", "JPEG 2000 lossless": "pylibjpeg", "JPEG-LS lossless": "pyjpegls"}
DCMTK = "JPEG lossless, first-order"
LOSSY = "JPEG baseline, quality 95"

VALUES = {
    "none": "the stored values themselves, over all the bits",
    "rescale": "slope 2, intercept -1000",
    "rescale, falling": "slope -1, stored the other way round",
    "window LINEAR": "the middle half of the range (8 bits: all of it)",
    "window LINEAR_EXACT": "the middle half of the range (8 bits: all of it)",
    "window SIGMOID": "stored through the inverse function; from 12 bits on, which can hold it",
    "rescale, window": "slope 0.5, intercept 100, window LINEAR on the rescaled values",
    "VOI LUT": "a falling table, stored the other way round",
    "modality LUT": "a falling table, stored the other way round",
}
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
BOTH: tuple[Photometric, ...] = ("MONOCHROME1", "MONOCHROME2")
BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Case:
    """One file of the table."""

    values: str
    photometric: Photometric
    bits: int
    signed: bool
    syntax: str

    def __str__(self) -> str:
        sign = "signed" if self.signed else "unsigned"
        return f"{self.values} {self.photometric} {self.bits} bits {sign} {self.syntax}".replace(" ", "-")

    @property
    def tolerance(self) -> float:
        """How far a pixel may be from the image's, as a share of its range: half a level of the file, or so."""
        if self.syntax == LOSSY:
            return 2 / 255  # two decoders' rounding
        if self.values == "window SIGMOID":
            return 0.001  # black and white are at infinity, and are stored as 0.0005 and 0.9995
        return 0.5 / (2**self.bits // 2 - 1 if "window" in self.values and self.bits > 8 else 2**self.bits - 1) + 1e-4


def _cases() -> list[Case]:
    depths = [(bits, False) for bits in BITS] + [(bits, True) for bits in (8, 12, 16)]
    plain = [Case(values, photometric, *depth, PLAIN) for values, photometric, depth in product(VALUES, BOTH, depths)]
    others = [
        Case("none", photometric, bits, signed, syntax)
        for syntax in SYNTAXES
        for photometric, bits, signed in product(BOTH, (8, 12, 16), (False, True))
        if syntax not in (PLAIN, LOSSY)
    ]
    lossy = [Case("none", photometric, 8, False, LOSSY) for photometric in BOTH]
    return [case for case in plain + others + lossy if case.values != "window SIGMOID" or case.bits >= 12]


CASES = _cases()


def content(case: Case, image: NDArray[np.uint8]) -> bytes | None:
    """The file that shows ``image`` (H, W); None where it takes an encoder that is not installed."""
    stored, elements = _stored(case, image / 255)
    dataset = dicom_image(stored.view(f"u{stored.itemsize}"), kind="CR", bits=case.bits, name=str(case))
    del dataset.WindowCenter, dataset.WindowWidth
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = case.photometric, int(case.signed)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return _encoded(dataset, stored, case)


def reference(case: Case, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image whose PNG a file is compared with: ``image``, or what is left of it where a file is lossy."""
    if case.syntax != LOSSY:
        return image
    stored, _ = _stored(case, image / 255)
    shown = np.asarray(Image.open(io.BytesIO(_jpeg(stored))))
    return 255 - shown if case.photometric == "MONOCHROME1" else shown


def _jpeg(stored: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _stored(case: Case, image: NDArray[np.float64]) -> tuple[NDArray[Any], dict[str, Any]]:
    """The stored values for an image in [0, 1], and the elements that say how they are shown."""
    shown = 1 - image if case.photometric == "MONOCHROME1" else image
    count = 2**case.bits
    low = -count // 2 if case.signed else 0
    rising, falling = low + shown * (count - 1), low + (1 - shown) * (count - 1)
    first, last = (low, low + count - 1) if case.bits == 8 else (low + count // 4, low + count // 4 + count // 2 - 1)
    inside = first + shown * (last - first)
    steep = low + count / 2 - count / 16 * np.log(1 / np.clip(shown, 0.0005, 0.9995) - 1)
    table = [_falling_table(low, case)]
    linear = {"WindowCenter": (first + last + 1) / 2, "WindowWidth": last - first + 1}
    values, elements = {
        "none": (rising, {}),
        "rescale": (rising, {"RescaleSlope": 2, "RescaleIntercept": -1000}),
        "rescale, falling": (falling, {"RescaleSlope": -1, "RescaleIntercept": 0}),
        "window LINEAR": (inside, linear),
        "window LINEAR_EXACT": (
            inside,
            {"WindowCenter": (first + last) / 2, "WindowWidth": last - first, "VOILUTFunction": "LINEAR_EXACT"},
        ),
        "window SIGMOID": (
            steep,
            {"WindowCenter": low + count / 2, "WindowWidth": count / 4, "VOILUTFunction": "SIGMOID"},
        ),
        "rescale, window": (
            inside,
            {
                "RescaleSlope": 0.5,
                "RescaleIntercept": 100,
                "WindowCenter": (first + last) / 4 + 100.5,
                "WindowWidth": (last - first) / 2 + 1,
            },
        ),
        "VOI LUT": (falling, {"VOILUTSequence": Sequence(table)}),
        "modality LUT": (falling, {"ModalityLUTSequence": Sequence(table)}),
    }[case.values]
    kind = f"{'i' if case.signed else 'u'}{1 if case.bits == 8 else 2}"
    return np.rint(values).astype(kind), elements


def _falling_table(low: int, case: Case) -> Dataset:
    item = Dataset()
    count = 2**case.bits
    item.add_new("LUTDescriptor", "SS" if case.signed else "US", [count % 65536, low, case.bits])
    if case.values == "modality LUT":
        item.ModalityLUTType = "US"
    item.add_new("LUTData", "OW", np.arange(count)[::-1].astype("<u2").tobytes())
    return item


def _encoded(dataset: Dataset, stored: NDArray[Any], case: Case) -> bytes | None:
    if case.syntax in BY_PYDICOM:
        dataset.compress(SYNTAXES[case.syntax], encoding_plugin=BY_PYDICOM[case.syntax], generate_instance_uid=False)
    elif case.syntax == DCMTK:
        return _by_dcmtk(dataset)
    elif case.syntax == LOSSY:
        dataset.PixelData = encapsulate([_jpeg(stored)])
        dataset.file_meta.TransferSyntaxUID = SYNTAXES[case.syntax]
    else:
        order = ">" if case.syntax == "explicit big endian" else "<"
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        dataset.file_meta.TransferSyntaxUID = SYNTAXES[case.syntax]
    return content_of(dataset)


def _by_dcmtk(dataset: Dataset) -> bytes | None:
    program = shutil.which("dcmcjpeg")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "plain.dcm", Path(folder) / "packed.dcm"
        plain.write_bytes(content_of(dataset))
        subprocess.run([program, "+e1", "+un", str(plain), str(packed)], check=True, capture_output=True, timeout=60)
        return packed.read_bytes()


def table() -> str:
    """The table of README.md: the files by transfer syntax and values."""
    lines = [
        "| transfer syntax | how values are shown | photometric | bits, unsigned | bits, signed | files |",
        "|---|---|---|---|---|---|",
    ]
    for (syntax, values), group in groupby(CASES, key=lambda case: (case.syntax, case.values)):
        cases = list(group)
        photometric = " and ".join(kind for kind in BOTH if any(case.photometric == kind for case in cases))
        depths = [
            ", ".join(str(bits) for bits in BITS if any((case.bits, case.signed) == (bits, sign) for case in cases))
            for sign in (False, True)
        ]
        lines.append(f"| {syntax} | {values} | {photometric} | {depths[0]} | {depths[1]} | {len(cases)} |")
    lines.append(f"| | | | | | {len(CASES)} |")
    return "\n".join(lines)


def write_readme() -> str:
    """Return the content of README.md."""
    values = "\n".join(f"- {name}: {meaning}." for name, meaning in VALUES.items())
    return f"""# DICOM files that are read alike

`test_dicom_matrix.py` writes a phantom as a DICOM file in {len(CASES)} ways and expects of each

- the image of the phantom, bright where it is bright: no pixel further off than half a level of the file
  (sigmoid: 0.001 of the range);
- that the learned gate accepts it, as it accepts the PNG of the phantom;
- class probabilities within 0.01 of those of the PNG, and a lung mask that overlaps that of the PNG by a Dice of at
  least 0.99, both from the bundle that comes with hilum.

It does so with two phantoms. One is of the network's own 128 pixels: the same gray levels reach the network, and the
probabilities must agree within 0.000001. One of 320 pixels is shrunk, after which gray levels are rounded once more, so
that a file of another depth may differ from the PNG by a level here and there. Of the phantoms tried, this is one whose
answer does not hang on single levels; on others that alone moved a probability by up to 0.04.

JPEG baseline is lossy: its two files are compared with the PNG of what Pillow decodes of them,
within two of 255 levels, for the second phantom alone.

Conversion of values:

{values}

Encoders: pydicom (RLE), pylibjpeg-openjpeg (JPEG 2000), pyjpegls, which highdicom brings (JPEG-LS), Pillow (JPEG
baseline), and for JPEG lossless `dcmcjpeg` of dcmtk; without it those files are skipped. This file is written by
`python tests/inference/dicom_matrix/matrix_cases.py`, and a test compares it with what is tested.

{table()}
"""


if __name__ == "__main__":
    README.write_text(write_readme(), encoding="utf-8")
