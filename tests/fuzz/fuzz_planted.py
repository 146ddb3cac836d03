"""Targets with faults, to test that each kind is found. ``fuzz_targets`` has the real ones."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Hashable

import numpy as np
from fuzz_case import Target
from hostile_case import SECONDS

from hilum.errors import ReadError

_MARK = b"!"
_SEEDS = [b"an image that is fine" * 3, b"another one, with a mark! in it" * 2]


def sound() -> Target:
    """Every case with the mark is refused as it should be."""

    def run(content: bytes) -> Hashable:
        if _MARK in content:
            raise ReadError("It is damaged.")
        return len(content) % 3

    return Target("sound", _SEEDS, run)


def exception() -> Target:
    def run(content: bytes) -> Hashable:
        if _MARK in content:
            raise KeyError("not an error of hilum")
        return True

    return Target("exception", _SEEDS, run)


def crash() -> Target:
    def run(content: bytes) -> Hashable:
        if _MARK in content:
            ctypes.string_at(0)
        return True

    return Target("crash", _SEEDS, run)


def slow() -> Target:
    def run(content: bytes) -> Hashable:
        end = time.process_time() + SECONDS + 0.1
        while _MARK in content and time.process_time() < end:
            pass
        return True

    return Target("slow", _SEEDS[1:], run)


def hang() -> Target:
    def run(content: bytes) -> Hashable:
        while _MARK in content:
            pass
        return True

    return Target("hang", _SEEDS[1:], run)


def memory() -> Target:
    def run(content: bytes) -> Hashable:
        return bool(np.ones(400_000_000 if _MARK in content else 1, np.uint8)[0])

    return Target("memory", _SEEDS[1:], run)


def broken() -> Target:
    """A target that cannot be made."""
    os.environ["HILUM_NO_SUCH_VARIABLE"]
    return Target("broken", _SEEDS, len)
