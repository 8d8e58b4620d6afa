"""Judge a detector, any that the box can open, on pictures with boxes of people.

    edge-models evaluate DETECTOR.onnx --data FOLDER_OR_TAR --protocol coco-person --json

Promise: pictures go through the box's own code (edge.detect): what is judged is what runs.
Figures: recall at precision 0.9, AP at IoU 0.5, both by height of person, and milliseconds a
frame (median, letterbox and suppression included). Heights are in pixels of the given pictures.
Fails: ModelError for the model, DatasetError for the data. One thread.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from edge.config import DetectConfig, RuntimeConfig
from edge.detect.detector import Detector, open_detector
from edge.models_dir import model_at
from models.detector_data import DatasetError, Floats, Image, Picture, read_all, split
from models.detector_metrics import BANDS, Found, Quality, Truth, average_precision
from reid.model_errors import ModelError

PROTOCOL = "coco-person"
Part = Literal["all", "held-out"]
Scene = tuple[Image, Floats, Floats]  # picture (h, w, 3) BGR, people (n, 4), regions to ignore
# Everything that could count in a curve of precision over recall, far below what the box uses
_LEAST_SCORE = 0.01


def open_judged(model: Path, threads: int = 1, nms_iou: float | None = None) -> Detector:
    """Open a detector so that its weak detections are seen too."""
    return open_detector(
        model_at(model),
        RuntimeConfig(threads=threads, backend="onnxruntime"),
        DetectConfig(low_confidence=_LEAST_SCORE, nms_iou=nms_iou),
    )


def scenes(data: Path, part: Part = "all", limit: int | None = None) -> list[Scene]:
    """Pictures of a COCO-style folder or tar, or of a folder of such, decoded.

    Args:
        part: held-out: what training leaves out of persondet (models.detector_data.split).
        limit: at most so many, evenly taken.
    """
    return [_scene(picture) for picture in _chosen(data, part, limit)]


def _scene(picture: Picture) -> Scene:
    return picture.decode(), picture.boxes, picture.ignore


def _chosen(data: Path, part: Part, limit: int | None) -> list[Picture]:
    pictures = read_all(data)
    if part == "held-out":
        _, pictures = split(pictures)
    if limit is not None and len(pictures) > limit:
        chosen = np.linspace(0, len(pictures) - 1, limit).round().astype(int)
        pictures = [pictures[i] for i in chosen]
    if not pictures:
        raise DatasetError(data, "holds no pictures to judge by")
    return pictures


def judge(
    detector: Detector,
    pictures: Iterable[Scene],
    *,
    label: str = "",
    total: int | None = None,
    progress: bool = True,
) -> dict[str, object]:
    """Run a detector over pictures and compare with their labels.

    Returns:
        images, people, recall (at precision 0.9), ap50, threshold (the score from which on
        precision is 0.9), ms_median, and bands: the same for small, medium and large people;
        shares in 0..1, null where nobody is of that height.
    """
    found: list[Found] = []
    truth: list[Truth] = []
    times: list[float] = []
    for image, people, ignore in tqdm(
        pictures, label, total, unit=" pictures", disable=not progress, mininterval=2.0
    ):
        start = time.perf_counter()
        seen = detector.detect(image)
        times.append(time.perf_counter() - start)
        found.append((seen.boxes, seen.scores))
        truth.append((people, ignore))
    bands: dict[str, object] = {
        name: _plain(average_precision(found, truth, heights=heights))
        for name, heights in BANDS.items()
    }
    return {
        "images": len(found),
        **_plain(average_precision(found, truth)),
        "ms_median": round(1000 * statistics.median(times), 2) if times else None,
        "bands": bands,
    }


def evaluate(
    model: Path,
    data: Path,
    *,
    part: Part = "all",
    threads: int = 1,
    limit: int | None = None,
    progress: bool = True,
) -> dict[str, object]:
    """Judge an ONNX detector on a COCO-style folder or tar: what `judge` gives, and what ran.

    Returns:
        also `other_size`, how many pictures have not the width and height that the list says:
        their boxes are mostly of another scale, and mean nothing then.
    """
    detector = open_judged(model, threads)
    pictures = _chosen(data, part, limit)
    if not any(len(picture.boxes) for picture in pictures):
        raise DatasetError(
            data, f"no person is labelled in its {len(pictures)} pictures: nothing to judge by"
        )
    other_size = 0

    def scenes() -> Iterator[Scene]:  # decoded one by one: a large set fits no memory
        nonlocal other_size
        for picture in pictures:
            scene = _scene(picture)
            other_size += scene[0].shape[:2] != (picture.height, picture.width)
            yield scene

    result = judge(
        detector,
        scenes(),
        label=detector.name,
        total=len(pictures),
        progress=progress,
    )
    return {
        "protocol": PROTOCOL,
        "model": detector.name,
        "family": detector.family,
        "part": part,
        "threads": threads,
        **result,
        "other_size": other_size,
    }


def print_evaluation(model: Path, data: Path, *, part: Part, threads: int, as_json: bool) -> None:
    """What `edge-models evaluate --protocol coco-person` does; exits 3 for a model, 2 for data."""
    errors = Console(stderr=True, markup=False)
    try:
        result = evaluate(model, data, part=part, threads=threads)
    except (ModelError, DatasetError) as error:
        errors.print(str(error), style="red", highlight=False)
        raise typer.Exit(3 if isinstance(error, ModelError) else 2) from error
    if result["other_size"]:
        errors.print(
            f"{data}: {result['other_size']} of {result['images']} pictures have another size than "
            "the list says; where their boxes are of that size, the figures mean nothing",
            style="yellow", markup=False, highlight=False,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result))
        return
    table = Table(title=f"{result['model']} on {data.name}, {result['images']} pictures")
    for column in ("people", "labels", "recall at precision 0.9", "AP50"):
        table.add_column(column, justify="right")
    bands = result["bands"]
    assert isinstance(bands, dict)
    for name, found in [("all", result), *bands.items()]:
        table.add_row(name, *(str(found[key]) for key in ("people", "recall", "ap50")))
    Console(markup=False).print(table)
    typer.echo(f"{result['ms_median']} ms a frame (median), {threads} threads")


def _plain(quality: Quality) -> dict[str, object]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 4)

    return {
        "people": quality.people,
        "recall": number(quality.recall),
        "ap50": number(quality.ap50),
        "threshold": number(quality.threshold),
    }
