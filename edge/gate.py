"""skeleton"""
from __future__ import annotations
from edge.config import GateConfig
from edge.types import Detections, Image


class Gate:
    def __init__(self, *, config: GateConfig) -> None: ...

    def masked(self, image: Image) -> Image:
        """The image with masked polygons painted out (the same object where there are none)."""
        raise NotImplementedError

    def active(self, image: Image, *, now_s: float, tracks_alive: bool) -> bool:
        """Whether to detect in this frame: something moves, moved lately, or a tracklet lives."""
        raise NotImplementedError

    def inside(self, detections: Detections, width: int, height: int) -> Detections:
        """Detections whose feet (bottom centre) are inside a zone (all where there is none)."""
        raise NotImplementedError
