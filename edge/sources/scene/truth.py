"""Ground truth of a rendered scene, and its file in MOTChallenge format.

Promise: exact, since it comes from the same figures that are drawn; no rounding but the file's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TruthBox:
    """Where one person is in one frame of one camera.

    Attributes:
        person: the person's number, 1..people; the same in all cameras.
        box: x1, y1, x2, y2 in pixels around the whole figure with what it carries, hidden parts
            included; may reach beyond the frame.
        visible: share of the figure's pixels that are seen, 0..1: neither outside of the frame
            nor covered by people, street furniture or a door.
    """

    person: int
    box: tuple[float, float, float, float]
    visible: float

    def clipped(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The box's part inside a frame of this size, in pixels: what a detector can return."""
        x1, y1, x2, y2 = self.box
        return (
            min(max(x1, 0.0), float(width)),
            min(max(y1, 0.0), float(height)),
            min(max(x2, 0.0), float(width)),
            min(max(y2, 0.0), float(height)),
        )


class HasTruth(Protocol):
    """What `write_truth` needs of a scene."""

    def truth(self, camera: int, index: int) -> list[TruthBox]:
        """The people of one frame."""
        ...


def write_truth(path: Path, scene: HasTruth, camera: int, frames: int) -> None:
    """Write frames 0..frames-1 of a camera as MOTChallenge ground truth.

    One line a person and frame: `frame,id,left,top,width,height,consider,class,visibility`;
    frames count from 1, boxes are in pixels, class 1 is a pedestrian, `consider` is 0 where
    nothing of the person is visible.

    Source: Milan et al., MOT16, arXiv:1603.00831, section 3.3, table 4.
    """
    with path.open("w", encoding="ascii") as out:
        for index in range(frames):
            for one in scene.truth(camera, index):
                x1, y1, x2, y2 = one.box
                out.write(
                    f"{index + 1},{one.person},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},"
                    f"{int(one.visible > 0)},1,{one.visible:.3f}\n"
                )
