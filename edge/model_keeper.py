"""The models of the running box, and their change while it runs.

Promise: `detector()` and `embedders()` cost nothing and may answer another model from one frame to
the next, never in the middle of a frame's work; tracklets live on. The models folder is looked at
every `watch_s`; what is new there is loaded beside the running model, hashed and run on its golden
picture, and only then taken. What is wrong is refused, counted and said, and the old one stays.
Another space: the old embedder runs beside the new one for `overlap_s`, also across restarts, so
that the matcher can bridge identities; then it ends.
Full or failing: at most two embedders run; a third space ends the oldest. A bridge whose old model
is gone is said and left out.
Threads: `detector()`, `embedders()` from the inference thread; one thread of its own loads.

    folder changed → still for one look → find → same as running? ─yes→ nothing
                                                       └no→ load, verify ─fails→ refused, old stays
                                                                └ok→ taken (embedder of another
                                                                     space: bridge until …)
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog

from edge.config import Config
from edge.detect.detector import Detector
from edge.embed import Embedder
from edge.model_loader import ModelLoader, Wanted
from edge.models_dir import model_at
from reid.card import Kind, ModelFile
from reid.model_errors import LicenceRefused, ModelError

STATE = "models.json"
KEPT_EVENTS = 20
STOP_S = 2.0  # a look ends at once; opening a model may take far longer than a stop may

log = structlog.get_logger("edge.models")

What = Literal["taken", "refused", "bridge", "bridge_ended"]
_Model = TypeVar("_Model", Detector, Embedder)
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """Something that happened to a model.

    Attributes:
        what: taken, refused (the old one stays), bridge (the old embedder runs on for a while),
            bridge_ended.
        kind: detector or embedder.
        name: which model.
        text: for people.
        code: of the error, for refused; else empty.
    """

    what: What
    kind: Kind
    name: str
    text: str
    code: str = ""


class ModelKeeper:
    """Opens the models and changes them; satisfies `edge.pipeline.Models`."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Callable[[], float] = time.time,
        on_event: Callable[[ModelEvent], None] | None = None,
        on_fault: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        """Opens nothing.

        Args:
            config: names, folders, runtime.
            clock: UTC seconds; a bridge lasts over restarts, so it is not the monotonic clock.
            on_event: told of every event, from the keeper's thread.
            on_fault: told when the keeper's thread dies; the process should end.
        """
        self._config = config
        self._clock = clock
        self._on_event = on_event
        self._on_fault = on_fault
        self._loader = ModelLoader(config=config)
        self._detector: Detector | None = None
        self._embedders: tuple[Embedder, ...] = ()
        self._running: dict[Kind, Wanted] = {}
        self._bridge_until: float | None = None
        self._seen: Stamp = ()
        self._pending: Stamp | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.events: collections.deque[ModelEvent] = collections.deque(maxlen=KEPT_EVENTS)
        self.taken: collections.Counter[Kind] = collections.Counter()
        self.refused: collections.Counter[str] = collections.Counter()

    def open(self) -> None:
        """Open what the configuration means now, and the old embedder of a bridge that still runs.

        A `default` that cannot be opened is refused as while running, and what was chosen before
        it, or the folder's own default, stands in: a box that was switched off must come back.

        Raises:
            ModelError: nothing can be opened, or what was asked for by name cannot; exit code 3.
        """
        self._seen = self._stamp() or ()
        self._detector = self._open_first("detector", self._loader.detector)
        main = self._open_first("embedder", self._loader.embedder)
        self._embedders = (main,)
        self._resume_bridge(main)
        self._keep_state()

    def _open_first(self, kind: Kind, open_one: Callable[[Wanted], _Model]) -> _Model:
        """The model that is meant, or what stands in for a default that cannot be opened."""
        try:
            wanted = self._loader.find(kind)
            model = open_one(wanted)
        except LicenceRefused:
            raise
        except ModelError as error:
            for wanted in self._loader.stand_ins(kind):
                with contextlib.suppress(ModelError):
                    model = open_one(wanted)
                    break
            else:
                raise
            self.refused[error.code] += 1
            text = f"{error}; {model.name} stands in: {wanted.file.why}"
            self._tell("refused", kind, error.where, text, error.code)
        self._running[kind] = wanted
        return model

    def start(self) -> None:
        """Begin to look at the models folder; without one there is nothing to do."""
        if self._config.models_dir is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="model-keeper", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; may come twice, from any thread.

        A model that is just being opened is not waited for: the thread ends with the process.
        """
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)

    def detector(self) -> Detector:
        """The detector of this frame."""
        assert self._detector is not None, "open() comes first"
        return self._detector

    def embedders(self) -> Sequence[Embedder]:
        """The embedders of this frame: the main one, then the old one of a bridge."""
        return self._embedders

    @property
    def variants(self) -> dict[str, str]:
        """space_id -> variant_id, the main embedder's first."""
        return {embedder.space_id: embedder.variant_id for embedder in self._embedders}

    def describe(self) -> dict[str, dict[str, str]]:
        """What runs, for status and summary: detector, embedder and, in a bridge, the old one."""
        detector = self.detector()
        found = {"detector": _described(detector, "", detector.variant_id)}
        for key, embedder in zip(("embedder", "old_embedder"), self._embedders, strict=False):
            found[key] = _described(embedder, embedder.space_id, embedder.variant_id)
        return found

    def why(self, kind: Kind) -> str:
        """Why the running model is this one."""
        return self._running[kind].file.why

    def look(self) -> None:
        """Look at the folder once and act; the keeper's thread calls it every `watch_s`."""
        self._end_bridge_in_time()
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:  # a folder that is away says nothing: all stays
            self._pending = None
        elif stamp != self._pending:
            self._pending = stamp  # something may still be writing: wait until it stands still
        else:
            self._seen, self._pending = stamp, None
            self._consider("detector")
            self._consider("embedder")

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._config.runtime.watch_s):
                self.look()
        except BaseException as fault:
            if self._on_fault is None:
                raise
            self._on_fault("model-keeper", fault)

    def _consider(self, kind: Kind) -> None:
        try:
            wanted = self._loader.find(kind)
            if wanted == self._running[kind]:
                return
            if kind == "detector":
                detector = self._loader.detector(wanted)
                self._detector = detector
                name = detector.name
            else:
                name = self._take_embedder(wanted)
        except ModelError as error:
            self.refused[error.code] += 1
            kept = self.detector().name if kind == "detector" else self._embedders[0].name
            self._tell("refused", kind, error.where, f"{error}; {kept} stays", error.code)
            return
        self._running[kind] = wanted
        self.taken[kind] += 1
        self._tell("taken", kind, name, wanted.file.why)
        self._keep_state()

    def _take_embedder(self, wanted: Wanted) -> str:
        old = self._embedders[0]
        new = next((e for e in self._embedders if _is(e, wanted.file)), None)
        if new is None:
            new = self._loader.embedder(wanted)
        if new.space_id == old.space_id:
            others = [e for e in self._embedders[1:] if e.space_id != new.space_id]
            self._embedders = (new, *others)
        elif self._config.embed.overlap_s > 0.0:
            self._bridge_until = self._clock() + self._config.embed.overlap_s
            self._embedders = (new, old)
            self._tell("bridge", "embedder", old.name, self._bridge_text(old))
        else:
            self._embedders = (new,)
            self._bridge_until = None
        return new.name

    def _end_bridge_in_time(self) -> None:
        if self._bridge_until is not None and self._clock() >= self._bridge_until:
            ended = self._embedders[1:]
            self._bridge_until = None
            self._embedders = self._embedders[:1]
            for old in ended:
                self._tell("bridge_ended", "embedder", old.name, f"{old.space_id} has ended")
            self._keep_state()

    def _resume_bridge(self, main: Embedder) -> None:
        """Load the old embedder where the last run's bridge goes on, or where one begins now."""
        state = self._read_state()
        last, old, until = state.get("embedder"), state.get("old"), state.get("until")
        if isinstance(last, dict) and last.get("space_id") != main.space_id:
            old, until = last, self._clock() + self._config.embed.overlap_s
        if not isinstance(old, dict) or not isinstance(until, int | float):
            return
        if self._clock() >= until or old.get("space_id") == main.space_id:
            return
        path = Path(str(old.get("path")))
        try:
            file = model_at(path)
            if file.card is None or file.card.space_id != old.get("space_id"):
                raise ModelError(path, "is another model now", "nothing to do: no bridge")
            embedder = self._loader.exact_embedder(file)
        except ModelError as error:
            self.refused[error.code] += 1
            text = f"no bridge from the old embedder's space {old.get('space_id')}: {error}"
            self._tell("refused", "embedder", str(path), text, error.code)
            return
        self._bridge_until = float(until)
        self._embedders = (main, embedder)
        self._tell("bridge", "embedder", embedder.name, self._bridge_text(embedder))

    def _bridge_text(self, old: Embedder) -> str:
        left = (self._bridge_until or 0.0) - self._clock()
        return f"{old.space_id} runs beside the new space for {left / 3600.0:.1f} h more"

    def _tell(self, what: What, kind: Kind, name: str, text: str, code: str = "") -> None:
        event = ModelEvent(what, kind, name, text, code)
        self.events.append(event)
        speak = log.warning if what == "refused" else log.info
        speak(f"model {what}", kind=kind, name=name, because=text)
        if self._on_event is not None:
            self._on_event(event)

    def _stamp(self) -> Stamp | None:
        """Names, sizes and times of what counts in the folder; None: there is no such folder."""
        folder = self._config.models_dir
        if folder is None:
            return None
        try:
            with os.scandir(folder) as entries:
                found = [stamp for stamp in map(_stamp_of, entries) if stamp is not None]
        except OSError:
            return None
        return tuple(sorted(found))

    def _read_state(self) -> dict[str, Any]:
        path = self._config.data_dir / STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("bridge forgotten", file=str(path), because=str(error))
            return {}
        return state if isinstance(state, dict) else {}

    def _keep_state(self) -> None:
        """Remember the spaces that run, for a bridge that lasts over a restart."""
        state: dict[str, Any] = {"embedder": _remembered(self._embedders[0])}
        if self._bridge_until is not None and len(self._embedders) > 1:
            state |= {"old": _remembered(self._embedders[1]), "until": self._bridge_until}
        path = self._config.data_dir / STATE
        beside = path.with_name(f".{STATE}.part")
        try:
            beside.write_text(json.dumps(state), encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            log.warning("a restart will not know the bridge", file=str(path), because=str(error))


def _stamp_of(entry: os.DirEntry[str]) -> tuple[str, int, int] | None:
    if not entry.name.endswith((".onnx", ".toml")) or entry.name.startswith("."):
        return None
    try:
        stat = entry.stat()
    except OSError:
        return None  # a link to nowhere, or it went away under us
    return entry.name, stat.st_size, stat.st_mtime_ns


def _is(embedder: Embedder, file: ModelFile) -> bool:
    return (embedder.path, embedder.card) == (file.path, file.card)


def _remembered(embedder: Embedder) -> dict[str, str]:
    return {"space_id": embedder.space_id, "path": str(embedder.path.absolute())}


def _described(model: Detector | Embedder, space_id: str, variant_id: str) -> dict[str, str]:
    return {
        "name": model.name,
        "space_id": space_id,
        "variant_id": variant_id,
        "runtime": model.runtime,
    }
