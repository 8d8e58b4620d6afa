"""A day of a box's delivery at an accelerated pace: does anything grow?

    python -m tests.faults.soak --hours 24 --speed 80 --out out/soak

Four cameras' worth of sightings (one camera dead, one flapping every simulated quarter of an hour)
go through the real spool and uplink to a real matcher; the link is cut for a simulated quarter of
an hour now and then. Sampled: resident memory, open files and threads of both processes, the
spool's size, and how far association is behind the ledger. What a deployment keeps for a day is
kept for six simulated hours here (acked rows on the box, identities at the matcher), so that the
run shows what comes after everything has filled. The cameras themselves, video and networks, are
not part of it. Writes a CSV and a plot; the last line is one JSON object with the slope of each
series per simulated hour, after the warm-up of eight simulated hours (a third of a shorter run);
the exit code is 1 where one in megabytes is outside of ± 1.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil

from tests.faults.proxy import Behaviour
from tests.faults.world import World

QUARTER_S = 900.0
KEPT_HOURS = 6.0  # acked rows at the box, identities at the matcher
WARM_UP_HOURS = 8.0
LIMIT_MB_PER_HOUR = 1.0
PER_CAMERA_PER_S = 0.25  # simulated: a lively entrance
SERIES = (
    *("box_rss_mb", "box_files", "box_threads", "spool_mb"),
    *("matcher_rss_mb", "matcher_files", "matcher_threads", "behind_h"),
)


class SoakWorld(World):
    """The world of the fault harness, with a large spool on an ordinary disk."""

    kept_s = 86400.0

    def box_options(self) -> list[str]:
        """What this box has other than the fault harness's."""
        return ["--max-bytes", str(1 << 30), "--acked-keep-s", str(self.kept_s)]

    def _environment(self, who: str) -> dict[str, str]:
        kept = str(self.kept_s)
        return super()._environment(who) | {
            "EDGE_MATCH_RETENTION__IDENTITY_S": kept,
            "EDGE_MATCH_ASSOCIATION__WINDOW_S": kept,
        }


def behind_s(folder: Path) -> float:
    """How far association is behind what is committed: its window is then that of an earlier
    time, and fills later. Real seconds."""
    with (
        contextlib.closing(_read(folder / "ledger.db")) as ledger,
        contextlib.closing(_read(folder / "identities.db")) as identities,
    ):
        reached = identities.execute("SELECT value FROM meta WHERE name = 'position'").fetchone()
        last = ledger.execute("SELECT committed_ns FROM log ORDER BY position DESC LIMIT 1")
        next_one = ledger.execute(
            "SELECT committed_ns FROM log WHERE position > ? ORDER BY position LIMIT 1",
            (int(reached[0]) if reached else 0,),
        ).fetchone()
        return 0.0 if next_one is None else (last.fetchone()[0] - next_one[0]) / 1e9


def _read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)


def sample(world: World, hours: float, speed: float) -> dict[str, float]:
    """One row of the table."""
    assert world.box is not None
    assert world.matcher is not None
    box, matcher = psutil.Process(world.box.pid), psutil.Process(world.matcher.pid)
    spool = sum(f.stat().st_size for f in world.box_dir.glob("spool.sqlite*"))
    return {
        "hours": round(hours, 3),
        "box_rss_mb": box.memory_info().rss / 1e6,
        "box_files": box.num_fds(),
        "box_threads": box.num_threads(),
        "matcher_rss_mb": matcher.memory_info().rss / 1e6,
        "matcher_files": matcher.num_fds(),
        "matcher_threads": matcher.num_threads(),
        "spool_mb": spool / 1e6,
        "behind_h": behind_s(world.matcher_dir) * speed / 3600,
    }


def soak(folder: Path, *, hours: float, speed: float) -> tuple[list[dict[str, float]], World]:
    """Run it; returns the samples."""
    world = SoakWorld(folder, seed=1, tmpfs=False)
    world.kept_s = KEPT_HOURS * 3600 / speed
    samples: list[dict[str, float]] = []
    with world:
        world.wait(world.captures, "the box to capture")
        began = time.monotonic()
        quarter = -1
        while True:
            simulated_s = (time.monotonic() - began) * speed
            if simulated_s >= hours * 3600:
                break
            if int(simulated_s // QUARTER_S) != quarter:
                quarter = int(simulated_s // QUARTER_S)
                # Camera 3 is dead; camera 2 flaps; every fifth quarter the link is down.
                cameras = [0, 1, 2] if quarter % 2 else [0, 1]
                rate = PER_CAMERA_PER_S * len(cameras) * speed
                world.set_control(rate=rate, cameras=cameras)
                world.proxy.set(Behaviour(cut=quarter % 5 == 4))
            samples.append(sample(world, simulated_s / 3600, speed))
            time.sleep(max(0.05, QUARTER_S / 3 / speed))
        verdict = world.settle()
        assert verdict.holds, verdict.problems
        print(f"captured {verdict.captured}, acked {verdict.acked}, lost {verdict.lost}")
    return samples, world


def slopes(
    samples: list[dict[str, float]], series: Sequence[str], *, warm_up: float
) -> dict[str, float]:
    """Change per simulated hour, by least squares, after so many of them."""
    rest = [row for row in samples if row["hours"] >= warm_up]
    hours = np.array([row["hours"] for row in rest])
    return {
        name: round(float(np.polyfit(hours, np.array([row[name] for row in rest]), 1)[0]), 4)
        for name in series
    }


def beyond_limit(found: Mapping[str, float]) -> list[str]:
    """Which series in megabytes change by more than the limit, up or down: what shrinks through a
    whole run had not filled by its start, so its slope says nothing of a day."""
    return [
        name
        for name, slope in found.items()
        if name.endswith("_mb") and not abs(slope) <= LIMIT_MB_PER_HOUR
    ]


def plot(samples: list[dict[str, float]], series: Sequence[str], path: Path) -> None:
    """One panel per series, two columns."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = (len(series) + 1) // 2
    figure, panels = pyplot.subplots(lines, 2, figsize=(10, 2.5 * lines), sharex=True)
    for name, panel in zip(series, panels.T.flat, strict=True):
        panel.plot([row["hours"] for row in samples], [row[name] for row in samples])
        panel.set_title(name)
        panel.set_ylim(bottom=0, top=max(1.0, 1.1 * max(row[name] for row in samples)))
    for panel in panels[-1]:
        panel.set_xlabel("simulated hours")
    figure.tight_layout()
    figure.savefig(path)


def report(
    samples: list[dict[str, float]], series: Sequence[str], out: Path, *, warm_up: float
) -> dict[str, float]:
    """Write table and plot, print each series; returns the slopes."""
    name = out.name
    with (out / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["hours", *series])
        writer.writeheader()
        writer.writerows(samples)
    plot(samples, series, out / f"{name}.png")
    found = slopes(samples, series, warm_up=warm_up)
    for one, slope in found.items():
        values = [row[one] for row in samples]
        print(f"{one:<16} {min(values):8.1f} .. {max(values):8.1f}   {slope:+.4f} per hour")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--hours", type=float, default=24.0, help="simulated")
    parser.add_argument("--speed", type=float, default=80.0, help="simulated seconds a second")
    parser.add_argument(
        "--out", type=Path, default=Path("out/soak"), help="folder for table, plot and files"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    samples, _ = soak(options.out / "world", hours=options.hours, speed=options.speed)
    warm_up = min(WARM_UP_HOURS, options.hours / 3)
    found = report(samples, SERIES, options.out, warm_up=warm_up)
    print(json.dumps({"hours": options.hours, "speed": options.speed, "slope_per_hour": found}))
    return 1 if beyond_limit(found) else 0


if __name__ == "__main__":
    sys.exit(main())
