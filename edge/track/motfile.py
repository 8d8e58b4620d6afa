"""skeleton"""

from __future__ import annotations
from pathlib import Path
from edge.types import TrackStep


class MotFile:
    """Writes the tracks of one camera in MOTChallenge format: frame,id,x,y,w,h,score,-1,-1,-1."""

    def __init__(self, path: Path) -> None: ...

    def write(self, step: TrackStep, *, frame_index: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def path_for(path: Path, camera: str, cameras: int) -> Path:
    """FILE itself for one camera; with several, FILE-CAMERA.suffix."""
    raise NotImplementedError
