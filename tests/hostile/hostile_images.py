"""Image files other than DICOM that someone could send."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hostile_case import Case
from image_writing import encode, jpeg_of_scans, png_header, tiff
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from hilum.phantoms.chest import draw_phantom

Content = Callable[[], bytes]
_EXIF_ORIENTATION = 0x0112


@cache
def phantom() -> Image.Image:
    """A synthetic radiograph that the packaged model accepts."""
    return Image.fromarray(draw_phantom(1, "Normal", size=256).image)


def file(name: str, content: Content) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def encoded(kind: str, mode: str = "L", **options: Any) -> Content:
    return lambda: encode(phantom().convert(mode), kind, **options)


def part(content: Content, share: float, end: bytes = b"") -> Content:
    return lambda: content()[: int(share * len(content()))] + end


def png(width: int, height: int, color: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8 bits from unfiltered rows and further chunks."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    more = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def black(side: int, channels: int = 1) -> bytes:
    return png(side, side, 0 if channels == 1 else 2, bytes(side * (channels * side + 1)))


def with_text(name: bytes, data: bytes) -> Content:
    return lambda: png(64, 64, 0, bytes(64 * 65), (name, data))


def flipped(content: Content, position: int) -> Content:
    """The content with one byte changed, from the end if the position is negative."""

    def make() -> bytes:
        changed = bytearray(content())
        changed[position] ^= 0xFF
        return bytes(changed)

    return make


def with_exif(orientation: int) -> Content:
    """The phantom turned so that the orientation turns it back."""

    def make() -> bytes:
        exif = Image.Exif()
        exif[_EXIF_ORIENTATION] = orientation
        turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        turned = phantom().transpose(turns[orientation]) if orientation in turns else phantom()
        return encode(turned, "PNG", exif=exif)

    return make


def palette() -> bytes:
    return encode(phantom().convert("P"), "PNG")


def with_alpha() -> bytes:
    image = phantom().convert("LA")
    image.putalpha(255)
    return encode(image, "PNG")


def wide() -> bytes:
    return encode(Image.fromarray(np.asarray(phantom()).astype(np.uint16) * 257), "PNG")


def array(values: NDArray[Any], kind: str = "TIFF") -> Content:
    return lambda: encode(Image.fromarray(values), kind)


def frames(kind: str) -> Content:
    more = [Image.fromarray(np.asarray(phantom()) // 2)]
    return lambda: encode(phantom(), kind, save_all=True, append_images=more)


def tiled() -> bytes:
    """A TIFF of 64 x 64 pixels that declares tiles of 61,440 x 61,440."""
    values = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 61_440, 323: 61_440, 324: 8, 325: 20}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    data = zlib.compress(bytes(64)).ljust(20, b"\0")
    return b"II*\0" + struct.pack("<I", 28) + data + struct.pack("<H", len(values)) + entries + bytes(4)


def looped() -> bytes:
    """A TIFF whose directory is followed by itself."""
    content = bytearray(tiff(bytes(64 * 64), 64, 64, 8, 1))
    start = struct.unpack_from("<I", content, 4)[0]
    content[-4:] = struct.pack("<I", start)
    return bytes(content)


def bmp_header(width: int, height: int, offset: int = 54) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, offset, 40, width, height, 1, 8, 0, 0, 0, 0, 0, 0)


def webp_header(width: int, height: int) -> bytes:
    """A lossless WebP of that size by its header, without data."""
    bits = (width - 1) | (height - 1) << 14
    chunk = b"\x2f" + struct.pack("<I", bits) + bytes(8)
    return (
        b"RIFF" + struct.pack("<I", 12 + len(chunk) + 1) + b"WEBPVP8L" + struct.pack("<I", len(chunk)) + chunk + b"\0"
    )


def link(target: str, name: str = "link.png") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def pipe(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def directory(folder: Path) -> Path:
    (folder / "folder.png").mkdir()
    return folder / "folder.png"


def sparse(folder: Path) -> Path:
    with (folder / "sparse.png").open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        stream.truncate(5 << 30)
    return folder / "sparse.png"


def named(name: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / os.fsdecode(name)
        path.write_bytes(encoded("PNG")())
        return path

    return make


_CODECS: dict[str, Content] = {
    "PNG": encoded("PNG"),
    "PNG, 16 bits": wide,
    "JPEG": encoded("JPEG"),
    "JPEG, color": encoded("JPEG", "RGB"),
    "JPEG, progressive": encoded("JPEG", progressive=True),
    "WebP": encoded("WEBP", "RGB"),
    "WebP, lossless": encoded("WEBP", "RGB", lossless=True),
    "BMP": encoded("BMP"),
    "TIFF": encoded("TIFF"),
    "TIFF, deflated": encoded("TIFF", compression="tiff_adobe_deflate"),
    "TIFF, LZW": encoded("TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": encoded("TIFF", compression="jpeg"),
}
_ZIP = b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)

IMAGES = [
    *(Case(f"{name}: whole", file("a.img", content), "ok") for name, content in _CODECS.items()),
    *(Case(f"{name}: {share:.0%} of it", file("a.img", part(content, share)), "unreadable")
      for name, content in _CODECS.items() for share in (0.98, 0.5)),
    *(Case(f"{name}: half of it, with an end", file("a.jpg", part(_CODECS[name], 0.5, b"\xff\xd9")), "unreadable")
      for name in ("JPEG", "JPEG, color")),
    *(Case(f"JPEG, progressive: {share:.0%} of it, with an end",
           file("a.jpg", part(_CODECS["JPEG, progressive"], share, b"\xff\xd9")), "unreadable")
      for share in (0.99, 0.9, 0.75, 0.6, 0.3)),
    Case("bomb: 60,000 x 60,000, PNG", file("a.png", lambda: png_header(60_000, 60_000)), "unreadable"),
    Case("bomb: 2 ** 31 x 2 ** 31, PNG", file("a.png", lambda: png_header(2**31 - 1, 2**31 - 1)), "unreadable"),
    Case("bomb: 60,000 x 60,000, BMP", file("a.bmp", lambda: bmp_header(60_000, 60_000)), "unreadable"),
    Case("bomb: 16,384 x 16,384, WebP", file("a.webp", lambda: webp_header(16_384, 16_384)), "unreadable"),
    Case("bomb: 60,000 x 60,000, TIFF", file("a.tif", lambda: tiff(b"", 60_000, 60_000, 8, 1)), "unreadable"),
    Case("bomb: tiles of 61,440 x 61,440", file("a.tif", tiled), "unreadable"),
    Case("bomb: 49 million pixels, gray", file("a.png", lambda: black(7_000)), "refused"),
    Case("bomb: 49 million pixels, color", file("a.png", lambda: black(7_000, 3)), "refused"),
    Case("bomb: 3,000 scans", file("a.jpg", lambda: jpeg_of_scans(4_000, 3_000)), "unreadable"),
    Case("bomb: 64 scans of 25 million pixels", file("a.jpg", lambda: jpeg_of_scans(5_000, 64)), "unreadable"),
    Case("bomb: 20 scans of 25 million pixels", file("a.jpg", lambda: jpeg_of_scans(5_000, 20)), "refused"),
    Case("bomb: scans of 49 million pixels, color", file("a.jpg", lambda: jpeg_of_scans(7_000, 9, 3)), "unreadable"),
    Case("bomb: text of 64 MB", file("a.png", with_text(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
         "unreadable"),
    Case("bomb: color profile of 64 MB", file("a.png", with_text(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
         "unreadable"),
    Case("thin: 48,000,000 x 1", file("a.png", lambda: png(48_000_000, 1, 0, bytes(48_000_001))), "unreadable"),
    Case("thin: 1 x 40,000", file("a.png", lambda: png(1, 40_000, 0, bytes(80_000))), "unreadable"),
    Case("thin: 100,000,000 x 1", file("a.png", lambda: png(100_000_000, 1, 0, bytes(1_000))), "unreadable"),
    Case("small: 1 x 1", file("a.png", lambda: png(1, 1, 0, bytes(2))), "refused"),
    Case("no side: 0 x 5", file("a.png", lambda: png_header(0, 5)), "unreadable"),
    Case("BMP: a negative width", file("a.bmp", lambda: bmp_header(-5, 5)), "unreadable"),
    Case("BMP: pixels beyond its end", file("a.bmp", lambda: bmp_header(64, 64, 2**31)), "unreadable"),
    Case("TIFF: directory after itself", file("a.tif", looped), "refused"),
    Case("PNG: changed header", file("a.png", flipped(encoded("PNG"), 20)), "unreadable"),
    Case("PNG: changed data", file("a.png", flipped(encoded("PNG"), 4_000)), "unreadable"),
    Case("PNG: signature alone", file("a.png", lambda: b"\x89PNG\r\n\x1a\n"), "unreadable"),
    Case("JPEG: start alone", file("a.jpg", lambda: b"\xff\xd8\xff\xe0"), "unreadable"),
    Case("animated PNG", file("a.png", frames("PNG")), "unreadable"),
    Case("animated WebP", file("a.webp", frames("WEBP")), "unreadable"),
    Case("TIFF of two pages", file("a.tif", frames("TIFF")), "unreadable"),
    Case("GIF", file("a.png", encoded("GIF")), "unreadable"),
    Case("samples: floating point", file("a.tif", array(np.zeros((64, 64), np.float32))), "unreadable"),
    Case("samples: 32 bits, above 65,535", file("a.tif", array(np.full((64, 64), 1 << 20, np.int32))), "unreadable"),
    Case("samples: 32 bits, negative", file("a.tif", array(np.full((64, 64), -1, np.int32))), "unreadable"),
    Case("samples: signed, 8 bits", file("a.tif", lambda: tiff(bytes(4096), 64, 64, 8, 1, 2)), "unreadable"),
    Case("samples: LAB", file("a.tif", lambda: encode(Image.new("LAB", (64, 64)), "TIFF")), "unreadable"),
    Case("palette", file("a.png", palette), "ok"),
    Case("transparency", file("a.png", with_alpha), "ok"),
    Case("CMYK", file("a.jpg", encoded("JPEG", "CMYK")), "ok"),
    *(Case(f"EXIF orientation {turn}", file("a.png", with_exif(turn)), "ok") for turn in (1, 3, 6, 8, 9, 65_535)),
    Case("EXIF: no EXIF", file("a.png", lambda: encode(phantom(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")), "ok"),
    Case("PNG and ZIP", file("a.png", lambda: encoded("PNG")() + _ZIP), "ok"),
    Case("JPEG and HTML", file("a.html", lambda: encoded("JPEG")() + b"<script>alert(1)</script>"), "ok"),
    Case("PNG called DICOM", file("a.dcm", encoded("PNG")), "ok"),
    Case("text called PNG", file("a.png", lambda: b"The lungs are clear. " * 50), "unreadable"),
    Case("text called DICOM", file("a.dcm", lambda: b"The lungs are clear. " * 50), "unreadable"),
    Case("ZIP called PNG", file("a.png", lambda: _ZIP), "unreadable"),
    Case("PDF called PNG", file("a.png", lambda: b"%PDF-1.7\n" + bytes(200)), "unreadable"),
    Case("empty", file("a.png", bytes), "unreadable"),
    Case("zeros", file("a.png", lambda: bytes(100_000)), "unreadable"),
    Case("PNG with a script as its text", file("a.png", lambda: encode(phantom(), "PNG", pnginfo=_script())), "ok"),
    Case("name: not UTF-8", named(b"\xff\xfe.png"), "ok"),
    Case("name: a line break and quotes", named(b"a\n\"';.png"), "ok"),
    Case("name: 255 bytes", named(b"a" * 251 + b".png"), "ok"),
    Case("name: a formula", named(b"=cmd|' !A0.png"), "ok"),
    Case("link to nothing", link("nothing.png"), "unreadable"),
    Case("link to itself", link("link.png"), "unreadable"),
    Case("link to a device without end", link("/dev/zero"), "unreadable"),
    Case("link to a terminal", link("/dev/tty"), "unreadable"),
    Case("pipe", pipe("pipe.png"), "unreadable"),
    Case("folder", directory, "unreadable"),
    Case("5 GiB, sparse", sparse, "unreadable"),
]  # fmt: skip


def _script() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "<script>alert(1)</script>")
    return info
