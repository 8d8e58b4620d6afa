"""Choices out of bytes, where atheris is not installed: what streams are made of, for hypothesis.

The few methods of `atheris.FuzzedDataProvider` that `tests.fuzz.streams` uses, of the same names
and ranges; when the bytes are used up every choice is the first one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Reads choices from the front of some bytes.

    Args:
        data: what to read.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def ConsumeBytes(self, count: int) -> bytes:  # noqa: N802
        """At most so many bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def ConsumeIntInRange(self, low: int, high: int) -> int:  # noqa: N802
        """low..high, both possible."""
        size = max(1, ((high - low).bit_length() + 7) // 8)
        return low + int.from_bytes(self.ConsumeBytes(size), "little") % (high - low + 1)

    def ConsumeInt(self, size: int) -> int:  # noqa: N802
        """A signed number of so many bytes."""
        return int.from_bytes(self.ConsumeBytes(size), "little", signed=True)

    def ConsumeBool(self) -> bool:  # noqa: N802
        """Either."""
        return bool(self.ConsumeIntInRange(0, 1))

    def ConsumeProbability(self) -> float:  # noqa: N802
        """0 to 1."""
        return self.ConsumeIntInRange(0, 65535) / 65535

    def ConsumeFloat(self) -> float:  # noqa: N802
        """Any, also infinite or none."""
        return float(struct.unpack("<d", self.ConsumeBytes(8).ljust(8, b"\0"))[0])

    def ConsumeUnicodeNoSurrogates(self, count: int) -> str:  # noqa: N802
        """At most so many characters."""
        return self.ConsumeBytes(self.ConsumeIntInRange(0, count)).decode("latin-1")

    def PickValueInList(self, values: Sequence[T]) -> T:  # noqa: N802
        """One of them."""
        return values[self.ConsumeIntInRange(0, len(values) - 1)]
