"""The last words of a run: a few lines for people, or one JSON object as stdout's last line."""

from __future__ import annotations

import json
import sys
from typing import Literal

from rich.console import Console
from rich.table import Table

from edge.live import human_bytes
from edge.status import Snapshot, byte_figures, summary_dict


def print_summary(snapshot: Snapshot, form: Literal["text", "json"], exit_reason: str) -> None:
    """Write the summary to stdout.

    Raises:
        OSError: nobody takes it (a full disk, a reader that left).
    """
    if form == "json":
        print(json.dumps(summary_dict(snapshot, exit_reason)), flush=True)
        return
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as captured:  # rich itself would end the process on a broken pipe
        _write(console, snapshot, exit_reason)
    print(captured.get(), end="", flush=True)


def _write(console: Console, snapshot: Snapshot, exit_reason: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("camera")
    names = ("seconds", "frames", "analysed", "dropped", "people found", "tracklets", "embeddings")
    for name in names:
        table.add_column(name, justify="right")
    for name, camera in snapshot.cameras.items():
        table.add_row(
            name,
            f"{camera.seconds:.1f}",
            str(camera.frames_in),
            str(camera.frames_analysed),
            str(camera.frames_dropped),
            str(camera.detections),
            str(camera.tracklets),
            str(camera.embeddings),
        )
    console.print(table)
    video, wire, ratio = byte_figures(snapshot)
    delivery = snapshot.delivery
    share = f": {ratio:.0f} times less" if ratio else ""
    console.print(
        f"sightings: {delivery.committed} committed, {delivery.acked} acked, "
        f"{delivery.waiting} waiting in the spool"
    )
    for reason, count in sorted(delivery.skipped.items()):
        told = delivery.told.get(reason)
        heard = "" if told is None else f"; the matcher knows of {told}"
        console.print(f"dropped since the spool exists ({reason}): {count}{heard}")
    console.print(f"bytes: {human_bytes(wire)} sent for {human_bytes(video)} of video{share}")
    for step, values in snapshot.latencies.items():
        if values is not None:
            name = step.replace("_", " ")
            console.print(
                f"{name}: {values['p50']:.1f} ms (median), {values['p95']:.1f} (p95), "
                f"{values['p99']:.1f} (p99)"
            )
    for text in snapshot.warnings:
        console.print(f"degraded: {text}", style="yellow")
    console.print(f"ended: {exit_reason}")
