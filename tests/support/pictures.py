"""Looks for pictures in bytes: what a decoder makes at least 16 x 16 pixels of is a picture.

Candidates are the places where a known form begins: still pictures by their signature, video by the
parameter sets that come before a key frame. Each candidate is given to a real decoder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import av
import av.error
import cv2
import numpy as np

MIN_PIXELS = 16

_STILL = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|BM....\x00\x00\x00\x00|II\*\x00|MM\x00\*"
    rb"|\x00\x00\x00\x0cjP  |P[56][ \n]",
    re.DOTALL,
)
# Annex B start code, then an H.264 sequence parameter set (type 7) or an H.265 one (type 32 or 33).
_H264 = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]")
_H265 = re.compile(rb"\x00\x00\x01[\x40-\x43]\x01")


@dataclass(frozen=True)
class Picture:
    """Something that decodes.

    Attributes:
        form: what it was decoded as.
        offset: where it begins.
        width, height: pixels.
    """

    form: str
    offset: int
    width: int
    height: int


def find_pictures(data: bytes) -> list[Picture]:
    """Every candidate in `data` that decodes to at least 16 x 16 pixels."""
    found = []
    for match in _STILL.finditer(data):
        image = cv2.imdecode(np.frombuffer(data[match.start() :], np.uint8), cv2.IMREAD_COLOR)
        if image is not None and min(image.shape[:2]) >= MIN_PIXELS:
            found.append(Picture("still", match.start(), image.shape[1], image.shape[0]))
    for codec, pattern in (("h264", _H264), ("hevc", _H265)):
        for match in pattern.finditer(data):
            size = _decode_video(codec, data[match.start() :])
            if size is not None:
                found.append(Picture(codec, match.start(), *size))
    return found


def _decode_video(codec: str, data: bytes) -> tuple[int, int] | None:
    context = av.CodecContext.create(codec, "r")
    try:
        for packet in context.parse(data):
            for frame in context.decode(packet):
                if min(frame.width, frame.height) >= MIN_PIXELS:
                    return frame.width, frame.height
        for packet in context.parse(b""):
            context.decode(packet)
        for frame in context.decode(None):
            if min(frame.width, frame.height) >= MIN_PIXELS:
                return frame.width, frame.height
    except av.error.FFmpegError:
        return None
    return None
