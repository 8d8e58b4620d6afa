"""Small films of our own for tests: a bright square that wanders over noise, numbered by place."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from edge.types import Image


def picture(number: int, *, width: int = 320, height: int = 240, seed: int = 1) -> Image:
    """Frame `number` of the film: (height, width, 3) uint8, BGR."""
    ground = np.random.default_rng(seed).integers(40, 90, (height, width, 3), dtype=np.uint8)
    side = height // 4
    x = (number * 8) % (width - side)
    y = (number * 5) % (height - side)
    ground[y : y + side, x : x + side] = (40, 200, 240)
    return ground


def write_clip(
    path: Path,
    *,
    frames: int = 100,
    fps: int = 25,
    width: int = 320,
    height: int = 240,
    codec: str = "libx264",
    key_every: int = 10,
) -> Path:
    """Write the film without B-frames; the container follows the name's suffix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.codec_context.gop_size = key_every
        stream.codec_context.max_b_frames = 0
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "x264-params": "scenecut=0"}
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(
                picture(number, width=width, height=height), format="bgr24"
            )
            frame.pts = number
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
