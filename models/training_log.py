"""What a training run tells of itself: one line an epoch, and the curve drawn from the lines.

Promise: `log.jsonl` holds one JSON object for each finished epoch, in order and once, however often
the run was stopped; `curve.png` shows the losses, and mAP where it was measured.
Threads: the training's alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOG, CURVE = "log.jsonl", "curve.png"
LOSSES = ("classes", "contrastive", "triplet", "distil_logits", "distil_relations")


def append(folder: Path, line: dict[str, Any]) -> None:
    """Add an epoch: its number, `step`, losses by name, and scores where they were measured."""
    with (folder / LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")


def forget_after(folder: Path, step: int) -> None:
    """Drop the epochs that a run which goes on from `step` will do again."""
    lines = _lines(folder)
    kept = [line for line in lines if line["step"] <= step]
    if (folder / LOG).exists():
        part = folder / f"{LOG}.part"
        part.write_text("".join(json.dumps(line) + "\n" for line in kept))
        part.replace(folder / LOG)


def plot(folder: Path) -> None:
    """Draw `curve.png`; nothing before the first epoch is done."""
    lines = _lines(folder)
    if not lines:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in LOSSES:
        points = [(line["epoch"], line[name]) for line in lines if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend(loc="upper left")
    points = [(line["epoch"], line["map"]) for line in lines if "map" in line]
    if points:
        right = axes.twinx()
        right.plot(*zip(*points, strict=True), "k.-", label="mAP")
        right.set(ylabel="mAP, %", ylim=(0, 100))
    figure.savefig(folder / CURVE, dpi=110)


def _lines(folder: Path) -> list[dict[str, Any]]:
    try:
        text = (folder / LOG).read_text()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]  # a line that was cut off is of an epoch not yet saved
    return [json.loads(line) for line in whole.splitlines()]
