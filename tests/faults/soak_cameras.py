"""A box with four real RTSP cameras, one dead, one flapping: does anything grow?

    python -m tests.faults.soak_cameras --minutes 8 --out out/soak-cameras

`edge-run` as a process, decoding and all, with small stand-in networks (tests.support.standins) and
a real matcher. Two cameras are there all the time, one never was, one is killed and comes back,
again and again. Each of its returns stands for a quarter of an hour of a day: that is what is
accelerated; the others run at their own pace. Writes a CSV and a plot; the last line is one JSON
object with the slope of each series per simulated hour, after the first third. Needs GStreamer's
RTSP server.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import time
from pathlib import Path

import psutil

from tests.faults.soak import beyond_limit, report
from tests.support import rtsp
from tests.support.processes import Box, Finished, MatcherProcess
from tests.support.rtsp import RtspServer
from tests.support.standins import write_film, write_models

SERIES = ("rss_mb", "files", "threads", "handles")
UP_S, DOWN_S = 8.0, 6.0
START_S = 180.0


def sample(process: psutil.Process, returns: int) -> dict[str, float]:
    """One row of the table."""
    return {
        "hours": returns / 4,
        "rss_mb": process.memory_info().rss / 1e6,
        "files": process.num_fds(),
        "threads": process.num_threads(),
        "handles": len(process.net_connections("inet")),
    }


def soak(folder: Path, *, minutes: float) -> tuple[list[dict[str, float]], Finished]:
    """Run it; returns the samples, and how the box ended."""
    film = write_film(folder / "film.mp4", frames=100)
    models = write_models(folder / "models")
    samples: list[dict[str, float]] = []
    with (
        RtspServer({"/a": film, "/b": film}) as steady,
        RtspServer({"/flaps": film}) as flapping,
        MatcherProcess(folder / "matcher") as matcher,
        socket.socket() as dead,
    ):
        dead.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else takes it
        cameras = {
            "a": steady.url("/a"),
            "b": steady.url("/b"),
            "flaps": flapping.url("/flaps"),
            "dead": f"rtsp://127.0.0.1:{dead.getsockname()[1]}/x",
        }
        sources = [f"--source={name}={url}" for name, url in cameras.items()]
        with Box(folder / "box", models, *sources, "--matcher", matcher.address) as box:
            box.wait_for_log("camera 'flaps': frames of", START_S)
            process = psutil.Process(box.process.pid)
            began = time.monotonic()
            returns = 0
            while time.monotonic() - began < minutes * 60:
                time.sleep(UP_S)
                samples.append(sample(process, returns))
                flapping.kill()
                time.sleep(DOWN_S)
                flapping.start()
                returns += 1
            box.process.send_signal(signal.SIGTERM)
            return samples, box.finish(START_S)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/soak-cameras"),
        help="folder for table, plot and files",
    )
    options = parser.parse_args()
    lacks = rtsp.missing()
    if lacks:
        print(lacks, file=sys.stderr)
        return 2
    options.out.mkdir(parents=True)
    samples, ended = soak(options.out, minutes=options.minutes)
    found = report(samples, SERIES, options.out, warm_up=samples[-1]["hours"] / 3)
    cameras, sightings = ended.summary["cameras"], ended.summary["sightings"]
    for name, camera in cameras.items():
        print(f"{name}: {camera['frames_in']} frames, {camera['reconnects']} reconnects")
    print(f"sightings: {sightings}")
    print(
        json.dumps(
            {"minutes": options.minutes, "returns": len(samples), "exit": ended.code,
             "slope_per_hour": found}
        )
    )  # fmt: skip
    return 1 if ended.code or beyond_limit(found) else 0


if __name__ == "__main__":
    sys.exit(main())
