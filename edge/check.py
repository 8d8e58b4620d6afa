"""`edge-run --check`: opens everything, runs one frame, says what it found.

Promise: tries what a run needs (models, every camera, the matcher) and writes nothing but to
stdout; every fault is said, not only the first. Exit codes: 0 all works; 2 an address that nothing
can be made of; 3 a model refused; 4 a camera gave no frame. A matcher that does not answer is said
and is no fault: the box would spool.
Threads: the main thread only.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from rich.console import Console

from edge.box_addresses import files_for
from edge.config import Config, SourceConfig
from edge.exit_codes import ExitCode
from edge.model_keeper import ModelKeeper
from edge.pipeline import crops_of
from edge.sources.reconnect import CameraThread
from edge.types import Frame
from reid.tls_diagnose import diagnose
from reid.web import WebError, parse_address

_CONNECT_TIMEOUT_S = 3.0


def check(config: Config, sources: Sequence[SourceConfig], models: ModelKeeper) -> ExitCode:
    """Try everything once and say what was found."""
    out = Console(highlight=False, soft_wrap=True)
    cameras = []
    for source in sources:
        try:
            cameras.append(CameraThread(config=source))
        except ValueError as error:  # an address that nothing can be made of
            out.print(f"camera {source.name}: {error}")
            return ExitCode.USAGE
    detector, embedder = models.detector(), models.embedders()[0]
    out.print(
        f"detector {detector.name}: {detector.input.width}x{detector.input.height}, "
        f"{detector.family} (from {detector.family_from}), {detector.runtime} "
        f"{detector.precision}; {detector.licence}"
    )
    out.print(
        f"embedder {embedder.name}: {embedder.input.width}x{embedder.input.height}, space "
        f"{embedder.space_id}, {embedder.runtime} {embedder.precision}; {embedder.licence}"
    )
    failed = [
        source.name
        for source, camera in zip(sources, cameras, strict=True)
        if not _try_camera(source, camera, models, out)
    ]
    for address in config.uplink.matchers if not config.embedded else ():
        out.print(_try_matcher(address, config))
    if failed:
        out.print(f"no frame from {', '.join(failed)}")
        return ExitCode.NO_SOURCE
    return ExitCode.DONE


def _try_camera(
    source: SourceConfig, camera: CameraThread, models: ModelKeeper, out: Console
) -> bool:
    camera.start()
    deadline = time.monotonic() + source.open_timeout_s + source.frame_timeout_s
    frame = None
    try:
        while frame is None and not camera.done and time.monotonic() < deadline:
            frame = camera.take(0.2)
    finally:
        camera.stop()
    if frame is None:
        out.print(f"camera {source.name}: {camera.last_error or 'no frame in time'}")
        return False
    out.print(f"camera {source.name}: {_look(frame, models)}")
    return True


def _look(frame: Frame, models: ModelKeeper) -> str:
    started_s = time.perf_counter()
    found = models.detector().detect(frame.image)
    detected_s = time.perf_counter()
    embedder = models.embedders()[0]
    embedder.embed(crops_of(frame.image, found.boxes))
    embedded_s = time.perf_counter()
    sure = int((found.scores >= 0.6).sum())
    per_crop = f", {(embedded_s - detected_s) * 1e3 / len(found):.1f} ms a crop" if found else ""
    return (
        f"{frame.width}x{frame.height}, capture time from {frame.captured.source.value} "
        f"(± {frame.captured.uncertainty_ms:.0f} ms); {sure} people in this frame; "
        f"{(detected_s - started_s) * 1e3:.1f} ms to detect{per_crop}"
    )


def _try_matcher(address: str, config: Config) -> str:
    files = files_for(config, address)
    spools = "the box would capture and spool until that is mended"
    try:
        host, port = parse_address(address, what="matcher")
        with socket.create_connection((host, port), _CONNECT_TIMEOUT_S):
            pass
    except (WebError, OSError, UnicodeError) as error:  # a name with an empty or too long label
        return f"matcher {address}: does not answer ({error}); {spools}"
    refused = diagnose(address, files, timeout_s=_CONNECT_TIMEOUT_S)
    if refused is not None:
        return f"matcher {address}: {refused}; {spools}"
    return f"matcher {address}: answers{' with mutual TLS' if files is not None else ''}"
