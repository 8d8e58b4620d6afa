"""How long from the capture of a frame to the acks of the sightings that it triggered, on a box.

    python -m benchmarks.capture_to_ack [--seconds 60] [--cameras 1]

`edge-run` with the weights that come with it reads our rendered street over RTSP at its own pace,
decodes, detects, tracks, embeds, and delivers by mutual TLS to a matcher on the same machine. The
times are the box's own: from the moment that a frame left the decoder to the commit of its
sightings in the spool, and to the matcher's ack. Needs GStreamer's RTSP server. Last line: one JSON
object, in milliseconds. `bench_delivery` has the same figures beside its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from edge.sources.scene import SceneParams, SynthScene, write_video
from matcher import certs
from reid.tls import TlsFiles
from tests.support import rtsp
from tests.support.processes import Box, MatcherProcess
from tests.support.rtsp import RtspServer

MODELS = Path("models/weights")
FRAMES = 500
START_S = 120.0


def measure(
    folder: Path, *, seconds: float, cameras: int, server: TlsFiles, box: TlsFiles
) -> dict[str, Any]:
    """Run it.

    Args:
        folder: a new one, for films, spool and ledger.
        seconds: how long the box runs; the film (20 s) begins anew where it ends.
        cameras: 1 to 4 views of the street.
        server, box: certificates, the box's for edge-1 at site-1.
    Returns:
        `capture_to_spool` and `capture_to_ack` with p50, p95 and p99 in ms; `sightings_per_s`,
        `sightings`, `frames_per_s` over all cameras.
    """
    folder.mkdir(parents=True)
    scene = SynthScene(SceneParams.parse(f"synth://street?cameras={cameras}&people=8&seed=1"))
    films = {f"/{camera}": folder / f"{camera}.mp4" for camera in range(1, cameras + 1)}
    for camera, film in enumerate(films.values(), 1):
        write_video(film, scene, camera, FRAMES)
    with (
        RtspServer(films) as street,
        MatcherProcess(folder / "matcher", *_tls(server)) as matcher,
        Box(
            folder / "box",
            MODELS,
            *(f"--source={path[1:]}={street.url(path)}" for path in films),
            *("--matcher", f"localhost:{matcher.address.rpartition(':')[2]}"),
            *_tls(box),
            *("--site", "site-1", "--edge-id", "edge-1", "--duration", str(seconds)),
        ) as running,
    ):
        ended = running.finish(seconds + START_S)
    if ended.code:
        raise RuntimeError(f"edge-run ended with {ended.code}:\n{ended.stderr}")
    summary = ended.summary
    sightings, seen = summary["sightings"], summary["cameras"].values()
    return {
        "sightings": sightings["acked"],
        "sightings_per_s": round(sightings["acked"] / seconds, 2),
        "frames_per_s": round(sum(camera["frames_in"] for camera in seen) / seconds, 1),
        **{name: summary["latency_ms"][name] for name in ("capture_to_spool", "capture_to_ack")},
    }


def _tls(files: TlsFiles) -> tuple[str, ...]:
    return (f"--tls-ca={files.ca}", f"--tls-cert={files.cert}", f"--tls-key={files.key}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cameras", type=int, default=1, choices=range(1, 5))
    options = parser.parse_args()
    lacks = rtsp.missing()
    if lacks:
        print(f"{lacks}: make debian", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="capture-") as name:
        folder = Path(name)
        certs.init(folder / "ca")
        found = measure(
            folder / "run",
            seconds=options.seconds,
            cameras=options.cameras,
            server=certs.server(folder / "ca", hosts=["localhost"]),
            box=certs.box(folder / "ca", edge_id="edge-1", site="site-1"),
        )
    print(f"{platform.processor() or platform.machine()}, {options.cameras} cameras, "
          f"{found['frames_per_s']} frames/s, {found['sightings_per_s']} sightings/s, "
          f"n = {found['sightings']}")  # fmt: skip
    for name in ("capture_to_spool", "capture_to_ack"):
        print(f"{name}, ms: {found[name]}")
    print(json.dumps({"benchmark": "capture_to_ack", **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
