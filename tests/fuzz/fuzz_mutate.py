"""Mutations of bytes: of bits, numbers, text and whole parts. The only state is that of the generator."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

MOST_BYTES = 1 << 16
"""Maximum size of a case."""

_MOST_STEPS = 8
_LONGEST_PART = 64  # bytes, of most of the parts that are moved
_NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    32_767,
    32_768,
    65_535,
    65_536,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
_FORMATS = ("B", "<H", ">H", "<I", ">I", "<Q", ">Q")
_TEXTS = (
    b"", b"-1", b"0", b"NaN", b"Infinity", b"-0", b"1e999", b"1" * 400, b"null", b"true", b"[]", b"{}", b'""', b"[[[[",
    b"\0", b"\r\n", b"\n", b'"', b"'", b",", b"=1+1", b"\xff\xfe", b"\xed\xa0\x80", "é".encode(), b"../", b"%s", b"\\",
)  # fmt: skip
_NUMERALS = re.compile(rb"[0-9]+")

Step = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def mutate(content: bytes, source: random.Random, others: Sequence[bytes]) -> bytes:
    """Return a copy of the content after 1 to 8 random steps, at most MOST_BYTES long.

    Args:
        content: The bytes.
        source: Generator of the random numbers.
        others: Other contents, of which parts are inserted.
    """
    mutated = bytearray(content)
    for _ in range(1 << source.randrange(_MOST_STEPS.bit_length())):
        source.choice(_STEPS)(mutated, source, others)
    return bytes(mutated[:MOST_BYTES])


def _flip_bit(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    if mutated:
        mutated[source.randrange(len(mutated))] ^= 1 << source.randrange(8)


def _set_byte(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    if mutated:
        mutated[source.randrange(len(mutated))] = source.randrange(256)


def _set_number(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    kind = source.choice(_FORMATS)
    size = struct.calcsize(kind)
    if len(mutated) >= size:
        start = source.randrange(len(mutated) - size + 1)
        struct.pack_into(kind, mutated, start, source.choice(_NUMBERS) % (1 << 8 * size))


def _add_to_number(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    kind = source.choice(_FORMATS)
    size = struct.calcsize(kind)
    if len(mutated) >= size:
        start = source.randrange(len(mutated) - size + 1)
        (number,) = struct.unpack_from(kind, mutated, start)
        struct.pack_into(kind, mutated, start, (number + source.randint(-9, 9)) % (1 << 8 * size))


def _set_numeral(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    if found := [*_NUMERALS.finditer(mutated)]:
        chosen = source.choice(found)
        number = source.choice((source.choice(_NUMBERS), -source.choice(_NUMBERS), int(chosen[0][:18]) + 1, 10**30))
        mutated[chosen.start() : chosen.end()] = str(number).encode()


def _insert_text(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    start = source.randint(0, len(mutated))
    mutated[start : start + source.choice((0, 0, 1, 4))] = source.choice(_TEXTS)


def _remove(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    start, end = _part(mutated, source)
    del mutated[start:end]


def _repeat(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    start, end = _part(mutated, source)
    mutated[end:end] = mutated[start:end] * source.choice((1, 1, 2, 50))


def _move(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    start, end = _part(mutated, source)
    place = source.randint(0, len(mutated))
    mutated[place : place + end - start] = mutated[start:end]


def _insert_other(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    other = bytearray(source.choice(others))
    start, end = _part(other, source)
    place = source.randint(0, len(mutated))
    mutated[place : place + source.choice((0, end - start))] = other[start:end]


def _cut(mutated: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    if not source.randrange(4):
        del mutated[source.randint(0, len(mutated)) :]


def _part(content: bytearray, source: random.Random) -> tuple[int, int]:
    start = source.randint(0, len(content))
    longest = len(content) if not source.randrange(8) else _LONGEST_PART
    return start, min(len(content), start + source.randint(0, longest))


_STEPS: tuple[Step, ...] = (
    _flip_bit, _set_byte, _set_number, _add_to_number, _set_numeral, _insert_text, _remove, _repeat, _move,
    _insert_other, _cut,
)  # fmt: skip
