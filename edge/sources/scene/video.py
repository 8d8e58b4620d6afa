"""A rendered scene as a video file, for tests, benchmarks and demonstrations."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av

from edge.sources.scene.params import SceneParams
from edge.types import Image

OPTIONS = {"libx264": {"preset": "veryfast", "crf": "20", "bf": "0"}}


class HasFrames(Protocol):
    """What `write_video` needs of a scene."""

    params: SceneParams

    def frame(self, camera: int, index: int) -> Image:
        """One picture, BGR."""
        ...


def write_video(
    path: Path,
    scene: HasFrames,
    camera: int,
    frames: int,
    codec: str = "libx264",
    *,
    first: int = 0,
    keyframe_s: float = 2.0,
) -> None:
    """Write frames first..first+frames-1 of a camera into a file, no B-frames.

    Args:
        path: where to; the ending names the container (.mp4, .mkv, .avi).
        scene: what is shown; its `params.fps` becomes the file's.
        camera: 1..cameras.
        frames: how many, 1 or more.
        codec: an encoder of FFmpeg: libx264, libx265, mjpeg, mpeg4.
        first: index of the first frame.
        keyframe_s: seconds between key frames.
    Raises:
        ValueError: no frame is asked for, or the codec is for sound.
        av.FFmpegError: the file cannot be written, or the encoder refuses.
    """
    if frames < 1:
        raise ValueError(f"{path}: a video needs 1 frame or more, got {frames}")
    params = scene.params
    rate = Fraction(params.fps).limit_denominator(1000)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=dict(OPTIONS.get(codec, {})))
        if not isinstance(stream, av.VideoStream):
            raise ValueError(f"{codec} is no codec for video")
        stream.width, stream.height = params.width, params.height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = max(round(params.fps * keyframe_s), 1)
        for index in range(first, first + frames):
            picture = av.VideoFrame.from_ndarray(scene.frame(camera, index), format="bgr24")
            for packet in stream.encode(picture):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
