"""What an adapter is: it knows one family of detector outputs and turns it into boxes of people.

An adapter is chosen once, at opening, by `edge.detect.recognise`; it keeps nothing per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from edge.runtime import Array
from edge.types import Floats
from reid.card import InputSpec

Candidates = tuple[Floats, Floats]  # boxes (n, 4) x1 y1 x2 y2 in input pixels, scores (n,)


@dataclass(frozen=True, slots=True)
class Layout:
    """What an adapter needs to know of a model.

    Attributes:
        height, width: of the model's input, pixels.
        person_class: index of the class person, as the family counts; None: the family's usual.
    """

    height: int
    width: int
    person_class: int | None


class Adapter(Protocol):
    """Reads the outputs of one family.

    Attributes:
        family: its name in cards, flags and messages.
        default_input: how the family is usually fed; the card's [input] wins.
        output_names: what its usual exporter calls the outputs.
        nms_iou: IoU limit of its suppression; None where the model suppresses by itself.
        decoding: one line for `edge-models check`: what the numbers of the output mean.
    """

    family: ClassVar[str]
    output_names: ClassVar[frozenset[str]]
    nms_iou: ClassVar[float | None]
    decoding: ClassVar[str]

    def __init__(self, layout: Layout) -> None: ...

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec: ...

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        """Whether outputs of these shapes can be this family's, for an input of that size."""
        ...

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        """Whether the values of one run can be; asked only where the shapes fit."""
        ...

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        """How many classes outputs of fitting shapes hold; None: the rows name theirs."""
        ...

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        """People at or above `low`, before suppression, in input pixels, in no order."""
        ...


def corners(centres: Floats) -> Floats:
    """(n, 4) cx cy w h → (n, 4) x1 y1 x2 y2."""
    half = centres[:, 2:] * 0.5
    found: Floats = np.concatenate([centres[:, :2] - half, centres[:, :2] + half], axis=1)
    return found


def grid_cells(height: int, width: int, strides: Sequence[int]) -> tuple[Floats, Floats]:
    """Cells of an anchor-free head, level by level, row by row.

    Returns:
        (n, 2) float32 x y of the cells in cells, and (n,) float32 their strides in pixels.
    """
    cells, sizes = [], []
    for stride in strides:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.mgrid[0:rows, 0:columns]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32))
        sizes.append(np.full(rows * columns, stride, np.float32))
    return np.concatenate(cells), np.concatenate(sizes)


def cell_count(height: int, width: int, strides: Sequence[int]) -> int:
    """How many cells `grid_cells` has."""
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)
