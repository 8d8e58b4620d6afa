"""Draws the README's picture from a run on our own rendered street.

    python docs/make_picture.py [--models-dir DIR] [--seed N] [--seconds S]

Runs `edge-run --embedded` on two rendered cameras, asks the matcher who is who, and draws one
instant of both cameras with boxes in the colour of the identity, above the timeline of identities.
Writes docs/picture.png. What it shows is what the run gave, mistakes included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from edge.sources.scene import SceneParams, SynthScene

START = "2026-06-01T08:00:00Z"
FPS = 10
COLOURS = plt.get_cmap("tab10").colors + plt.get_cmap("Set2").colors  # type: ignore[attr-defined]


def main() -> int:
    parser = argparse.ArgumentParser(description="Draws the README's picture.")
    parser.add_argument("--models-dir", default=os.environ.get("EDGE_MODELS_DIR"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    url = (
        f"synth://street?cameras=2&people=8&seed={arguments.seed}&fps={FPS}"
        f"&frames={arguments.seconds * FPS}"
    )
    with tempfile.TemporaryDirectory() as folder:
        summary, people, boxes = _run(url, Path(folder), arguments.models_dir)
    index = _best_instant(boxes, people)
    _draw(url, index, people, boxes, summary, Path(__file__).with_name("picture.png"))
    return 0


def _run(
    url: str, folder: Path, models_dir: str | None
) -> tuple[dict, list[dict], dict[str, dict[int, list]]]:
    command = [sys.executable, "-m", "edge.cli", "--embedded", "--summary", "json"]
    for camera in (1, 2):
        command += ["--source", f"camera-{camera}={url}&camera={camera}"]
    command += ["--start-time", START, "--data-dir", str(folder / "box"), "--metrics", "off"]
    command += ["--tracks", str(folder / "tracks.txt")]
    if models_dir:
        command += ["--models-dir", models_dir]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    who = subprocess.run(
        [
            sys.executable,
            "-m",
            "matcher.cli",
            "who",
            "--json",
            "--data-dir",
            folder / "box/matcher",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    people = json.loads(who.stdout)["people"]
    boxes: dict[str, dict[int, list]] = {}
    for camera in ("camera-1", "camera-2"):
        rows = defaultdict(list)
        for line in (folder / f"tracks-{camera}.txt").read_text().splitlines():
            frame, number, *box = line.split(",")[:6]
            rows[int(frame) - 1].append((int(number), *map(float, box)))
        boxes[camera] = rows
    return summary, people, boxes


def _best_instant(boxes: dict[str, dict[int, list]], people: list[dict]) -> int:
    """The frame that shows most people who were seen in both cameras."""
    both = _numbers([person for person in people if len(person["cameras"]) > 1])
    frames = set(boxes["camera-1"]) & set(boxes["camera-2"])

    def count(frame: int) -> tuple[int, int]:
        here = [row[0] for camera in boxes.values() for row in camera[frame]]
        return min(len(camera[frame]) for camera in boxes.values()), sum(n in both for n in here)

    return max(sorted(frames), key=count)


def _numbers(people: list[dict]) -> dict[int, int]:
    """Tracklet number -> index of its person."""
    return {
        int(tracklet["tracklet_id"].rpartition("/")[2]): i
        for i, person in enumerate(people)
        for tracklet in person["tracklets"]
    }


def _draw(
    url: str,
    index: int,
    people: list[dict],
    boxes: dict[str, dict[int, list]],
    summary: dict,
    target: Path,
) -> None:
    people.sort(key=lambda person: person["first_seen"])
    of = _numbers(people)
    scene = SynthScene(SceneParams.parse(url))
    timeline = max(2.4, 0.19 * len(people))  # inches: every row's letter needs room
    figure = plt.figure(figsize=(11, 5.0 + timeline), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[4.1, timeline])
    for camera in (1, 2):
        axis = figure.add_subplot(grid[0, camera - 1])
        axis.imshow(scene.frame(camera, index)[:, :, ::-1])
        axis.set_title(f"camera-{camera}", fontsize=11, loc="left")
        axis.axis("off")
        for number, x, y, width, height in boxes[f"camera-{camera}"][index]:
            colour = COLOURS[of[number] % len(COLOURS)] if number in of else (0.6, 0.6, 0.6)
            axis.add_patch(Rectangle((x, y), width, height, fill=False, ec=colour, lw=2.2))
            if number in of:
                axis.text(
                    x,
                    y - 4,
                    chr(ord("A") + of[number]),
                    fontsize=9,
                    fontweight="bold",
                    color="black",
                    bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
                )
    axis = figure.add_subplot(grid[1, :])
    start = datetime.fromisoformat(START)
    for person, entry in enumerate(people):
        for tracklet in entry["tracklets"]:
            first = (datetime.fromisoformat(tracklet["first_seen"]) - start).total_seconds()
            last = (datetime.fromisoformat(tracklet["last_seen"]) - start).total_seconds()
            second = tracklet["camera"] == "camera-2"
            axis.barh(
                person + (0.2 if second else -0.2),
                max(last - first, 0.3),
                left=first,
                height=0.34,
                color=COLOURS[person % len(COLOURS)],
                hatch="////" if second else None,
                edgecolor="white",
                linewidth=0,
            )
    axis.axvline(index / FPS, color="black", lw=1, ls=":")
    axis.set_yticks(range(len(people)), [chr(ord("A") + i) for i in range(len(people))])
    axis.invert_yaxis()
    axis.set_xlabel("seconds (plain: camera-1, hatched: camera-2; dotted: the pictures above)")
    sent, video = summary["bytes"]["wire_out"], summary["cameras"]
    frames = sum(camera["frames_in"] for camera in video.values())
    axis.set_title(
        f"who was seen where: {len(people)} identities from {frames} frames; "
        f"{sent / 1000:.0f} kB of embeddings sent, no picture",
        fontsize=11,
        loc="left",
    )
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.savefig(target)
    print(
        f"{target}: {len(people)} identities, {sum(len(p['cameras']) > 1 for p in people)} in both"
    )


if __name__ == "__main__":
    sys.exit(main())
