"""The entry points of `edge-run`: run, check.

Promise: everything that can be wrong with settings, models and addresses is said before the first
frame is read, with its exit code.
Threads: the main thread only.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog

from edge.box import Box
from edge.check import check as try_everything
from edge.config import Config, SourceConfig
from edge.exit_codes import ExitCode
from edge.identity import make_data_dir
from edge.model_keeper import ModelKeeper
from edge.models_dir import find_model
from edge.refusals import CannotStart, refusals
from edge.settings import default_cache_dir
from edge.signals import Stopped, stops_start
from edge.sources.urls import SourceKind, parse
from reid import logs

log = structlog.get_logger("edge")
_STREET = "synth://street?cameras=2&people=8&seed=1"
_STREET_FRAMES = 400


def run(
    config: Config, *, sample: bool = False, reread: Callable[[], Config] | None = None
) -> ExitCode:
    """Run the box until its sources have ended, it is told to stop, or a thread dies.

    Args:
        config: what to run with.
        sample: watch the sample as well.
        reread: gives the configuration anew, for SIGHUP; raises SettingsError.
    """
    logs.configure(config.status.log)
    try:
        with stops_start(threading.Event()) as start, ExitStack() as stack:
            with start.breakable():
                with refusals():
                    _look_ahead(config)
                sources = sources_of(config, sample=sample)
            box = Box(config, sources, stack=stack, start=start, reread=reread)
            start.go_on()
            return box.run()
    except Stopped:
        log.info("told to stop while starting")
        return ExitCode.DONE
    except CannotStart as refusal:
        print(f"edge-run: {logs.mask(str(refusal))}", file=sys.stderr)
        return refusal.code


def _look_ahead(config: Config) -> None:
    """Say at once what would end the run after a download, a rendering, or the timing of models.

    Raises:
        ModelError: no such model.
        CannotStart: every source is a file, and none is there.
    """
    find_model(config.detect.model, "detector", config.models_dir)
    find_model(config.embed.model, "embedder", config.models_dir)
    addresses = [parse(source.url) for source in config.sources]
    files = [Path(a.target) for a in addresses if a.kind in (SourceKind.FILE, SourceKind.FOLDER)]
    missing = [text for path in files if (text := _missing(path))]
    if files and len(files) == len(addresses) == len(missing):
        raise CannotStart(ExitCode.NO_SOURCE, "\n".join(missing))


def _missing(path: Path) -> str:
    """Why there is nothing to open at a path; empty: there is."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"{path}: there is no such file; check the path"
    except OSError as error:
        return f"{path}: {error.strerror}; check the path and its rights"
    return ""


def sources_of(config: Config, *, sample: bool) -> tuple[SourceConfig, ...]:
    """The cameras to watch, the sample among them where it is asked for.

    Raises:
        CannotStart: none.
    """
    sources = config.sources
    if sample:
        sources = (*sources, *_sample(config))
    if not sources:
        raise CannotStart(
            ExitCode.USAGE,
            "no camera given; add --rtsp URL or --source NAME=URL, or take --sample for a look",
        )
    return sources


def _sample(config: Config) -> tuple[SourceConfig, ...]:
    """A public clip, or the rendered street where none can be had."""
    # imported late: only a first look needs it
    from edge.sources.sample import fetch_sample

    clip = fetch_sample(_cache_dir(config), progress=_progress)
    if clip is not None:
        return (SourceConfig(name="sample", url=str(clip)),)
    log.warning("no public sample clip can be had here; watching our rendered street instead")
    start = datetime.now(UTC)  # the same for both: they watch one street
    return tuple(_rendered(camera, _cache_dir(config), start) for camera in (1, 2))


def _rendered(camera: int, cache: Path, start: datetime) -> SourceConfig:
    """One camera of our rendered street as a file of H.264, so that bytes can be compared."""
    from edge.sources.scene import SceneParams, SynthScene, write_video

    clip = cache / f"street-{camera}.mp4"
    if not clip.is_file():
        log.info(f"rendering camera {camera} of the street to {clip}")
        cache.mkdir(parents=True, exist_ok=True)
        part = clip.with_name(f".{clip.name}.part.mp4")
        write_video(part, SynthScene(SceneParams.parse(_STREET)), camera, _STREET_FRAMES)
        part.replace(clip)
    return SourceConfig(name=f"street-{camera}", url=str(clip), start_time=start)


def _cache_dir(config: Config) -> Path:
    """Where downloads are kept: the user's cache, or the data folder of whoever has no home."""
    cache = default_cache_dir(os.environ)
    return cache if os.access(cache.parent, os.W_OK) else config.data_dir / "cache"


def _progress(text: str) -> None:
    log.info(text)


def check(config: Config, *, sample: bool = False) -> ExitCode:
    """Open everything, run one frame of each camera, say what was found."""
    logs.configure(config.status.log)
    try:
        with refusals():
            sources = sources_of(config, sample=sample)
            make_data_dir(config.data_dir)
            models = ModelKeeper(config=config)
            models.open()
    except CannotStart as refusal:
        print(f"edge-run: {logs.mask(str(refusal))}", file=sys.stderr)
        return refusal.code
    return try_everything(config, sources, models)
