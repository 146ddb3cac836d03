"""CSV files that someone could name as a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hostile_case import Case
from hostile_images import encoded, file, link, pipe


def table(content: bytes) -> Callable[[Path], Path]:
    """A table beside the images a.png and b.png, so that it is not refused for want of images."""

    def make(folder: Path) -> Path:
        for name in ("a.png", "b.png"):
            file(name, encoded("PNG"))(folder)
        return file("data.csv", lambda: content)(folder)

    return make


_BOXES = b"image,boxes\na.png,"

TABLES = [
    Case("two columns of images", table(b"image,image\na.png,b.png\n"), "DataError"),
    Case("two columns of labels", table(b"image,Label,label\na.png,x,y\n"), "DataError"),
    Case("a cell of 200,000 characters", table(b"image\n" + b"a" * 200_000 + b"\n"), "DataError"),
    Case("a name of 100,000 characters", table(b"image\n" + b"a" * 100_000 + b"\n"), "DataError"),
    Case("a column name of 200,000 characters", table(b"a" * 200_000 + b",image\n1,2\n"), "DataError"),
    Case("100,000 columns", table(b"image" + b",a" * 100_000 + b"\n" + b"a.png\n"), "DataError"),
    Case("no header", table(b"a.png\nb.png\n"), "DataError"),
    Case("empty", table(b""), "DataError"),
    Case("a header alone", table(b"image,label\n"), "DataError"),
    Case("zeros", table(bytes(100_000)), "DataError"),
    Case("a zero in a name", table(b"image\na\0.png\n"), "DataError"),
    Case("UTF-16", table("image\na.png\n".encode("utf-16")), "DataError"),
    Case("Latin-1", table(b"image\n\xe4.png\n"), "DataError"),
    Case("a quote without end", table(b'image\n"a.png\n' + b"b.png\n" * 1_000), "DataError"),
    Case("more cells than columns", table(b"image\na.png,b\n"), "DataError"),
    Case("an image twice", table(b"image\na.png\n./a.png\n"), "DataError"),
    Case("an unknown split", table(b"image,split\na.png,exam\n"), "DataError"),
    Case("boxes: nested 100,000 deep", table(_BOXES + b"[" * 100_000 + b"\n"), "DataError"),
    Case("boxes: NaN", table(_BOXES + b'"[[NaN, 0, 1, 1]]"\n'), "DataError"),
    Case("boxes: infinity", table(_BOXES + b'"[[0, 0, 1e999, 1]]"\n'), "DataError"),
    Case("boxes: an object", table(_BOXES + b'"{""x"": 1}"\n'), "DataError"),
    Case("an image outside, which does not exist", table(b"image\n../../../../../../nothing.png\n"), "DataError"),
    Case("a device as image", table(b"image\n/dev/zero\n"), "DataError"),
    Case("pipe", pipe("data.csv"), "DataError"),
    Case("link to itself", link("data.csv", "data.csv"), "DataError"),
    Case("link to a device without end", link("/dev/zero", "data.csv"), "DataError"),
]
