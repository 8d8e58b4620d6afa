"""The parts of one run: what starts, what is watched, what ends, in which order.

Promise: a fault of a camera or of the network never ends the process, and a thread that dies always
does. The end drains in the order of the data, in at most `shutdown_s`. A reload (SIGHUP) touches
the cameras that changed, certificates and limits, and leaves the others undisturbed.
Threads: the main thread only.

    start:  folder's lock → id → models → matcher → web → spool → uplink → inference → cameras
    end:    cameras → inference (tells what lives) → spool → uplink (acks) → web → matcher
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import structlog
from rich.console import Console

from edge.box_addresses import check_addresses, tls_dir
from edge.box_pages import start_preview, start_status
from edge.box_readings import read_camera, read_delivery
from edge.box_reload import reloaded, waiting_for_the_start
from edge.collect import Collector
from edge.config import Config, SourceConfig
from edge.embedded import EmbeddedMatcher
from edge.exit_codes import ExitCode
from edge.identity import load_edge_id
from edge.inference import InferenceThread
from edge.live import REDRAW_S, LiveView
from edge.model_keeper import ModelEvent, ModelKeeper
from edge.pipeline import Analysed, CameraPipeline
from edge.refusals import CannotStart, refusals
from edge.settings import SettingsError
from edge.shots import CropBudget
from edge.sighting import SightingBuilder
from edge.signals import Start, ends, reloads
from edge.sources.camera import CameraEvent, CameraState, EventKind
from edge.sources.reconnect import CameraThread
from edge.spool import Spool
from edge.status import BoxStatus, DeliverySnapshot
from edge.summary import print_summary
from edge.track.motfile import MotFile, path_for
from edge.types import Frame, Tracklet
from edge.uplink import Uplink
from edge.uplink_messages import BoxIdentity
from reid import SOFTWARE, logs
from reid.clock import SystemClock

# Files can wait for the spool's writer; live cameras wait for nobody.
_FILE_PATIENCE_S = 30.0
_BAD_EVENTS = {EventKind.OFFLINE, EventKind.DAMAGED, EventKind.FAILED, EventKind.RESIZED}

log = structlog.get_logger("edge")


_ALL_READ = "all sources were read"


class Box:
    """The parts of one run; the stack ends in reverse what the constructor started.

    The constructor raises Stopped where the end is asked for before it is through.
    """

    def __init__(
        self,
        config: Config,
        sources: tuple[SourceConfig, ...],
        *,
        stack: ExitStack,
        start: Start,
        reread: Callable[[], Config] | None,
    ) -> None:
        self._config = config
        self._sources = sources
        self._reread = reread
        self._stack = stack
        self._clock = SystemClock()
        self._told_to_stop = start.told_to_stop
        self._told_to_reload = threading.Event()
        stack.enter_context(reloads(self._told_to_reload))
        self._fault: tuple[str, BaseException] | None = None
        self._sizes: dict[str, tuple[int, int]] = {}
        self._tracks: dict[str, MotFile] = {}
        self._tracks_files = len(sources)  # decides the names of the files, also after a reload
        with refusals():
            self._status = BoxStatus([source.name for source in self._sources])
            self._spool = Spool(
                config=config.spool,
                data_dir=config.data_dir,
                clock=self._clock,
                on_fault=self._thread_died,
            )
            # Before anything is written: the folder may be that of a box that runs.
            self._spool.lock()
            stack.callback(self._spool.stop)
            self._edge_id = load_edge_id(
                config.data_dir, config.edge_id, new_edge_id=config.new_edge_id
            )
            self._models = self._open_models(start)
            self._matcher = self._start_matcher()
            start.go_on()
            self._preview = start_preview(
                config, [source.name for source in sources], status=self._status, stack=stack
            )
            self._collector = self._start_collector()
            start_status(
                config, status=self._status, alive=lambda: self._fault is None, stack=stack
            )
            self._spool.open()
            stack.callback(self._spool.stop)
            self._uplink = self._make_uplink()
        self._builder = SightingBuilder(
            site=config.site,
            edge_id=self._edge_id,
            writer_id=self._spool.writer_id,
            boot_id=self._clock.boot_id,
            encoding=config.uplink.encoding,
            variants=self._models.variants,
        )
        self._budget = CropBudget(per_s=config.shots.budget_per_s)
        self._numbers = itertools.count(1)
        self._cameras = {
            source.name: self._make_camera(source, max_fps=config.fps) for source in self._sources
        }
        self._inference = self._make_inference()
        self._status.read_camera = self._read_camera
        self._status.read_delivery = self._read_delivery

    # -- start -------------------------------------------------------------------------------------

    def _open_models(self, start: Start) -> ModelKeeper:
        keeper = ModelKeeper(
            config=self._config, on_event=self._on_model, on_fault=self._thread_died
        )
        with start.breakable():  # models may be timed and tried for long
            keeper.open()
        log.info(keeper.detector().licence, because=keeper.why("detector"))
        log.info(keeper.embedders()[0].licence, because=keeper.why("embedder"))
        self._stack.callback(keeper.stop)
        keeper.start()
        return keeper

    def _start_matcher(self) -> EmbeddedMatcher | None:
        self._addresses = self._config.uplink.matchers
        if not self._config.embedded:
            return None
        matcher = EmbeddedMatcher(self._config.data_dir / "matcher")
        self._stack.callback(matcher.stop)
        self._addresses = (matcher.start(),)
        return matcher

    def _start_collector(self) -> Collector | None:
        config = self._config.collect
        if config.folder is None:
            return None
        collector = Collector(config=config, on_fault=self._thread_died)
        collector.start()
        self._stack.callback(collector.stop)
        if collector.over:
            log.warning(
                "no crops are kept: the folder's hours are spent (collect.max_hours), or its count "
                "cannot be read; to go on raise them, to begin anew delete the count",
                count=str(collector.count_file),
                hours=config.max_hours,
            )
            return collector
        log.warning(
            "crops of people are kept on this box (--collect); nothing of them is sent",
            folder=str(config.folder),
            hours=config.max_hours,
            max_bytes=config.max_bytes,
            deleted_after_hours=config.keep_hours,
        )
        return collector

    def _make_uplink(self) -> Uplink:
        self._config = self._config.model_copy(
            update={"uplink": self._config.uplink.model_copy(update={"matchers": self._addresses})}
        )
        self._status.warn("insecure", check_addresses(self._config))
        return Uplink(
            config=self._config.uplink,
            outbox=self._spool,
            identity=self._identity,
            clock=self._clock,
            tls_dir=tls_dir(self._config.data_dir),
            on_fault=self._thread_died,
        )

    def _identity(self) -> BoxIdentity:
        """Who we are, for Hello; frame sizes once they are known."""
        return BoxIdentity(
            edge_id=self._edge_id,
            site=self._config.site,
            software=SOFTWARE,
            cameras={source.name: self._sizes.get(source.name, (0, 0)) for source in self._sources},
            spaces={e.space_id: (e.dimension, (e.variant_id,)) for e in self._models.embedders()},
        )

    def _make_camera(self, source: SourceConfig, *, max_fps: float) -> CameraThread:
        try:
            return CameraThread(
                config=source,
                max_fps=max_fps,
                on_event=self._on_event,
                on_frame=lambda: self._inference.wake(),
            )
        except ValueError as error:  # an address that nothing can be made of
            raise CannotStart(ExitCode.USAGE, f"camera {source.name!r}: {error}") from error

    def _make_inference(self) -> InferenceThread:
        return InferenceThread(
            cameras=self._cameras,
            pipelines={source.name: self._make_pipeline(source) for source in self._sources},
            emit=self._emit,
            observe=self._observe,
        )

    def _make_pipeline(self, source: SourceConfig) -> CameraPipeline:
        config = self._config
        return CameraPipeline(
            camera=source.name,
            gate=source.gate,
            track=config.track,
            shots=config.shots,
            models=self._models,
            budget=self._budget,
            numbers=self._numbers,
            status=self._status,
            tracks=self._tracks_of(source.name),
            keep=None if self._collector is None else self._collector.put,
        )

    def _tracks_of(self, camera: str) -> MotFile | None:
        """The camera's file of tracks; a camera that comes back goes on in its own."""
        if self._config.tracks is None:
            return None
        if camera not in self._tracks:
            tracks = MotFile(path_for(self._config.tracks, camera, self._tracks_files))
            with refusals():
                tracks.open()
            self._stack.callback(tracks.close)
            self._tracks[camera] = tracks
        return self._tracks[camera]

    # -- what the threads call ---------------------------------------------------------------------

    def _emit(self, tracklet: Tracklet, triggered_monotonic_nanos: int) -> None:
        self._builder.use(self._models.variants)
        new = self._builder.build(tracklet, triggered_monotonic_nanos=triggered_monotonic_nanos)
        camera = self._cameras.get(tracklet.camera)  # None: it was taken away meanwhile
        patient = camera is not None and not camera.live
        self._spool.put(new, timeout_s=_FILE_PATIENCE_S if patient else 0.0)

    def _observe(self, frame: Frame, analysed: Analysed) -> None:
        self._sizes[frame.camera] = (frame.width, frame.height)
        if self._preview is not None:
            self._preview.show(frame, analysed.step)

    def _on_event(self, event: CameraEvent) -> None:
        tell = log.warning if event.kind in _BAD_EVENTS else log.info
        repeated = {"repeated": event.repeated} if event.repeated else {}
        tell(event.text, **repeated)

    def _on_model(self, event: ModelEvent) -> None:
        """A refused model is said in readyz until one of its kind is taken."""
        name = f"model {event.kind}"
        if event.what == "refused":
            self._status.warn(name, f"{event.kind} {event.name} refused: {event.text}")
        elif event.what == "taken":
            self._status.warn(name, None)

    def _thread_died(self, name: str, fault: BaseException) -> None:
        if self._fault is None:
            self._fault = (name, fault)
        self._told_to_stop.set()

    # -- what status reads -------------------------------------------------------------------------

    def _read_camera(self, name: str) -> dict[str, Any]:
        camera = self._cameras.get(name)
        if camera is None:  # it has just been taken away
            return {}
        return read_camera(camera)

    def _read_delivery(self) -> DeliverySnapshot:
        self._status.models = self._models.describe()
        self._status.models_taken = sum(self._models.taken.values())
        self._status.models_refused = dict(self._models.refused)
        latencies = self._spool.latencies_ms()
        self._status.capture_to_spool.replace(latencies["capture_to_spool"])
        self._status.capture_to_ack.replace(latencies["capture_to_ack"])
        self._status.warn("spool", self._spool.counters().degraded or None)
        self._status.warn("log", logs.problem() or None)
        self._status.warn("collect", None if self._collector is None else self._collector.told())
        return read_delivery(self._spool, self._uplink)

    # -- run and end -------------------------------------------------------------------------------

    def run(self) -> ExitCode:
        """Start everything, wait for the end, end in order, say the last words."""
        config = self._config
        log.info(
            "started",
            software=SOFTWARE,
            site=config.site,
            edge_id=self._edge_id,
            cameras=[source.name for source in self._sources],
            matcher=list(self._addresses),
            data_dir=str(config.data_dir),
        )
        with ends(self._told_to_stop):
            self._uplink.start()
            self._inference.start()
            for camera in self._cameras.values():
                camera.start()
            with self._view() as view:
                reason = self._wait(view)
            log.info("ending", because=reason, at_most_s=config.shutdown_s)
            self._end()
        code, reason = self._verdict(reason)
        self._say_last_words(reason)
        return code

    def _say_last_words(self, reason: str) -> None:
        try:
            print_summary(self._status.snapshot(), self._config.status.summary, reason)
        except OSError as error:  # all is stored; a full disk or a reader that left changes no code
            log.warning("the summary could not be written", error=error)

    def _view(self) -> LiveView:
        console = Console(stderr=True)
        return LiveView(console=console, snapshot=self._status.snapshot)

    def _wait(self, view: LiveView) -> str:
        """Watch over the threads until it is time to end; returns why."""
        deadline = None
        if self._config.duration_s is not None:
            deadline = time.monotonic() + self._config.duration_s
        while not self._told_to_stop.wait(REDRAW_S):
            view.redraw()
            if self._told_to_reload.is_set():
                self._told_to_reload.clear()
                self._reload()
            if not self._inference.is_alive():
                if self._inference.fault is not None:
                    self._thread_died("inference", self._inference.fault)
                    break
                return _ALL_READ
            if not self._uplink.alive():
                self._thread_died("uplink", RuntimeError("it ended without a word"))
                break
            if self._matcher is not None and self._matcher.died:
                self._thread_died("embedded matcher", RuntimeError("its process ended"))
                break
            if deadline is not None and time.monotonic() >= deadline:
                return f"{self._config.duration_s:g} s are over (--duration)"
        return "a thread died" if self._fault is not None else "told to stop"

    def _reload(self) -> None:
        """SIGHUP: cameras come, go and change; certificates and limits are read anew."""
        if self._reread is None:
            return
        try:
            new = self._reread()
            if not new.sources:
                raise CannotStart(ExitCode.USAGE, "it names no camera")
            old = {source.name: source for source in self._sources}
            wanted = {source.name: source for source in new.sources}
            gone = [name for name in old if wanted.get(name) != old[name]]
            for name in wanted:
                self._tracks_of(name)
            # Made before anything is taken away: an address that is wrong must change nothing.
            come = {
                name: self._make_camera(source, max_fps=new.fps)
                for name, source in wanted.items()
                if old.get(name) != source
            }
            with refusals():
                self._status.warn("insecure", check_addresses(new))
        except (SettingsError, CannotStart) as error:
            text = f"reload refused, everything stays as it was: {logs.mask(str(error))}"
            log.error(text)
            self._status.warn("reload", text)
            return
        self._status.warn("reload", None)
        later = waiting_for_the_start(self._config, new)
        matchers = self._addresses if self._config.embedded else None
        self._config = reloaded(self._config, new, matchers=matchers)
        self._inference.hold(True)
        for name in gone:
            self._take_camera_away(name)
        self._sources = new.sources
        for name, camera in come.items():
            self._add_camera(wanted[name], camera)
        self._inference.hold(False)
        if self._preview is not None:
            self._preview.watch([source.name for source in new.sources])
        self._spool.set_config(new.spool)
        # A new stream: its Hello tells the cameras, and certificates are read anew.
        self._uplink.reload(self._config.uplink)
        if later:
            log.warning("these settings are taken at the next start only", settings=later)
        log.info("reloaded", cameras=list(wanted), changed=sorted({*gone, *come}))

    def _take_camera_away(self, name: str) -> None:
        done = self._inference.remove(name)
        self._cameras[name].stop()
        done.wait(self._config.shutdown_s)
        del self._cameras[name]
        self._status.forget(name)

    def _add_camera(self, source: SourceConfig, camera: CameraThread) -> None:
        self._status.watch(source.name)
        self._cameras[source.name] = camera
        self._inference.add(source.name, camera, self._make_pipeline(source))
        camera.start()

    def _end(self) -> None:
        """Drain in the order of the data, within shutdown_s."""
        deadline = time.monotonic() + self._config.shutdown_s

        def left_s() -> float:
            return max(0.1, deadline - time.monotonic())

        stoppers = [threading.Thread(target=c.stop, daemon=True) for c in self._cameras.values()]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(left_s())
        self._inference.stop()
        self._inference.join(left_s())
        if self._inference.fault is not None:
            self._thread_died("inference", self._inference.fault)
        self._spool.flush(left_s())
        if self._fault is None:
            self._uplink.drain(left_s())
        self._uplink.stop()
        self._spool.stop(left_s())

    def _verdict(self, reason: str) -> tuple[ExitCode, str]:
        if self._fault is not None:
            name, fault = self._fault
            log.error(f"the thread {name!r} died; this is our own fault", exc_info=fault)
            return ExitCode.FAULT, f"the thread {name!r} died: {type(fault).__name__}: {fault}"
        states = {camera.state for camera in self._cameras.values()}
        if reason == _ALL_READ and states == {CameraState.FAILED}:
            for camera in self._cameras.values():
                print(f"edge-run: {camera.last_error}", file=sys.stderr)
            return ExitCode.NO_SOURCE, "no source could be opened"
        delivery = self._status.snapshot().delivery
        if reason == _ALL_READ and delivery.refused and delivery.waiting:
            return ExitCode.REFUSED, f"the matcher refuses us: {delivery.problem}"
        if delivery.waiting:
            reason += f"; {delivery.waiting} sightings wait in the spool for the matcher"
        return ExitCode.DONE, reason
