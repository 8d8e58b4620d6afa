"""A film and two small networks that stand in for people and trained weights.

What they stand for: the trained detector and OSNet. Why: tests of the whole box have to know where
everybody is, must run in seconds, and must not depend on weights. Everything else is real: ONNX
files with cards, ONNX Runtime, decoding, suppression, tracking, and the wire.

The film: people are upright rectangles of one colour with a magenta mark on top, walking over grey
noise. The detector fires where a picture is magenta; the embedder is a projected mean colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.types import Image
from reid.card import Card, InputSpec, card_path, sha256_of, write_card
from tests.unit.edge.tiny_models import embedder_card, mean_embedder, save

WIDTH, HEIGHT = 416, 312  # no scaling on the way into the detector
SIZE = 416
PERSON_WIDTH, PERSON_HEIGHT = 44, 120
MARK = 16
MAGENTA = (255, 0, 255)


@dataclass(frozen=True)
class Walker:
    """One person of the film.

    Attributes:
        colour: BGR.
        start, end: top left corner in the first and the last frame, pixels.
    """

    colour: tuple[int, int, int]
    start: tuple[float, float]
    end: tuple[float, float]


TWO_WALKERS = (
    Walker((30, 160, 40), (10, 40), (340, 60)),
    Walker((40, 60, 200), (350, 170), (20, 150)),
)


def film_frame(number: int, frames: int, walkers: Sequence[Walker], seed: int = 1) -> Image:
    """Frame `number` of a film of so many frames: (312, 416, 3) uint8, BGR."""
    rng = np.random.default_rng(seed * 100_003 + number)
    image = rng.integers(100, 130, (HEIGHT, WIDTH, 3), np.uint8)
    share = number / max(1, frames - 1)
    for walker in walkers:
        x = round(walker.start[0] + share * (walker.end[0] - walker.start[0]))
        y = round(walker.start[1] + share * (walker.end[1] - walker.start[1]))
        image[y : y + PERSON_HEIGHT, x : x + PERSON_WIDTH] = walker.colour
        middle = x + (PERSON_WIDTH - MARK) // 2
        image[y : y + MARK, middle : middle + MARK] = MAGENTA
    return image


def write_film(
    path: Path,
    *,
    frames: int = 60,
    fps: int = 10,
    walkers: Sequence[Walker] = TWO_WALKERS,
    codec: str = "libx264",
) -> Path:
    """Write the film as H.264 without B-frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        stream.time_base = Fraction(1, fps)
        stream.codec_context.gop_size = fps
        stream.codec_context.max_b_frames = 0
        stream.options = {"preset": "ultrafast", "crf": "18"}
        for number in range(frames):
            picture = film_frame(number, frames, walkers)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_models(folder: Path) -> Path:
    """Write detector and embedder with their cards; returns the folder, for --models-dir."""
    folder.mkdir(parents=True, exist_ok=True)
    detector = _marker_detector(folder / "marks.onnx")
    content = detector.read_bytes()
    card = Card(
        kind="detector",
        name="marks",
        file=detector.name,
        sha256=sha256_of(content),
        bytes=len(content),
        licence="Apache-2.0",
        commercial_use=True,
        made_by="the tests",
        default=True,
        family="yolox-decoded",
        person_class=0,
        input=InputSpec(height=SIZE, width=SIZE, colour="bgr", range=255, fit="letterbox_top_left"),
    )
    write_card(card, card_path(detector))
    embedder = mean_embedder(folder / "colours.onnx", dimension=64, seed=3)
    embedder_card(embedder, space_id="colours/1", default=True, dimension=64)
    return folder


def _marker_detector(path: Path) -> Path:
    """YOLOX's decoded layout for 416 x 416 with one class; fires at magenta cells of stride 8."""
    cells = SIZE // 8
    rest = (SIZE // 16) ** 2 + (SIZE // 32) ** 2
    ys, xs = np.mgrid[0:cells, 0:cells]
    boxes = np.zeros((1, cells * cells + rest, 4), np.float32)
    boxes[0, : cells * cells, 0] = (xs.ravel() + 0.5) * 8
    boxes[0, : cells * cells, 1] = (ys.ravel() + 0.5) * 8 + (PERSON_HEIGHT - MARK) / 2
    boxes[0, :, 2], boxes[0, :, 3] = PERSON_WIDTH, PERSON_HEIGHT
    constants = {
        "blue": np.array([0], np.int64),
        "green": np.array([1], np.int64),
        "red": np.array([2], np.int64),
        "gain": np.array(4.0 / 200.0, np.float32),
        "most": np.array(0.95, np.float32),
        "none": np.array(0.0, np.float32),
        "flat": np.array([1, cells * cells, 1], np.int64),
        "boxes": boxes,
        "silent": np.zeros((1, rest, 1), np.float32),
        "certain": np.ones((1, cells * cells + rest, 1), np.float32),
    }
    node: Callable[..., onnx.NodeProto] = helper.make_node
    nodes = [
        node("Gather", ["images", "blue"], ["b"], axis=1),
        node("Gather", ["images", "green"], ["g"], axis=1),
        node("Gather", ["images", "red"], ["r"], axis=1),
        node("Min", ["b", "r"], ["less"]),
        node("Sub", ["less", "g"], ["magenta"]),
        node("Relu", ["magenta"], ["positive"]),
        node("AveragePool", ["positive"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        # one cell a mark: the strongest of its neighbours
        node("MaxPool", ["pooled"], ["best"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Equal", ["pooled", "best"], ["is_best"]),
        node("Cast", ["is_best"], ["kept"], to=TensorProto.FLOAT),
        node("Mul", ["pooled", "kept"], ["peaks"]),
        node("Mul", ["peaks", "gain"], ["scaled"]),
        node("Clip", ["scaled", "none", "most"], ["clipped"]),
        node("Reshape", ["clipped", "flat"], ["fired"]),
        node("Concat", ["fired", "silent"], ["score"], axis=1),
        node("Concat", ["boxes", "score", "certain"], ["output"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "marks",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, cells * cells + rest, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
