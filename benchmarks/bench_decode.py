"""What a frame costs the box before anything looks at it: decoding, and conversion to BGR.

    python -m benchmarks.bench_decode [--frames N] [--repeats N]

Our rendered street (16 people), encoded here as H.264, H.265 and motion JPEG in two sizes, read by
the box's own source as a file is. Processor time of all threads per frame, in ms; medians of the
repeats, each over the whole clip. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream

from benchmarks.machine import cpu_name
from edge.config import SourceConfig
from edge.sources.av import AvSource
from edge.sources.base import SourceEndedError
from edge.sources.scene import SceneParams, SynthScene
from reid.clock import SystemClock

SIZES = ((768, 576), (1920, 1080))
FPS = 10
# encoder, its options, container
CODECS = {
    "H.264": ("libx264", {"preset": "veryfast"}, "mp4"),
    "H.265": ("libx265", {"preset": "veryfast", "x265-params": "log-level=none"}, "mp4"),
    "motion JPEG": ("mjpeg", {}, "mkv"),
}


def write(path: Path, images: list[av.VideoFrame], encoder: str, options: dict[str, str]) -> None:
    """Encode pictures of one size, a key frame every two seconds, no B-frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = images[0].width, images[0].height
        stream.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 2 * FPS
        stream.codec_context.max_b_frames = 0
        for number, image in enumerate(images):
            image.pts, image.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


def cost(path: Path) -> tuple[float, float, int]:
    """Milliseconds of processor a frame to decode and to convert, and how many frames came."""
    source = AvSource(config=SourceConfig(name="clip", url=str(path)), clock=SystemClock())
    source.open()
    decoding = converting = 0.0
    frames = 0
    try:
        while True:
            begin = time.process_time()
            reading = source.read()
            middle = time.process_time()
            reading.to_bgr()
            decoding += middle - begin
            converting += time.process_time() - middle
            frames += 1
    except SourceEndedError:
        return 1e3 * decoding / frames, 1e3 * converting / frames, frames
    finally:
        source.close()


def main() -> None:
    """Encode, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print(f"{cpu_name()}, Python {platform.python_version()}, PyAV {av.__version__}")
    print(f"{given.frames} frames, medians of {given.repeats}; ms of processor a frame")
    print(f"{'':<26}{'decode':>8}{'to BGR':>8}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            params = SceneParams(cameras=1, people=16, seed=1, width=width, height=height, fps=FPS)
            scene = SynthScene(params)
            images = [
                av.VideoFrame.from_ndarray(scene.frame(1, index), format="bgr24")
                for index in range(given.frames)
            ]
            for name, (encoder, options, suffix) in CODECS.items():
                path = Path(folder) / f"{encoder}-{height}.{suffix}"
                write(path, images, encoder, options)
                runs = [cost(path) for _ in range(given.repeats)]
                row = {
                    "codec": name,
                    "size": f"{width}x{height}",
                    "frames": runs[0][2],
                    "decode_ms": round(statistics.median(run[0] for run in runs), 2),
                    "bgr_ms": round(statistics.median(run[1] for run in runs), 2),
                }
                rows.append(row)
                label = f"{row['size']} {name}"
                print(f"{label:<26}{row['decode_ms']:>8}{row['bgr_ms']:>8}", flush=True)
    print(json.dumps({"benchmark": "bench_decode", "machine": cpu_name(), "rows": rows}))


if __name__ == "__main__":
    main()
