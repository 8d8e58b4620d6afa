"""From a configured name to a model that runs: find, check the licence, choose a runtime, verify.

Promise: what comes back has been hashed, shaped and run on its golden picture; for `default` the
fastest admitted variant is taken, a model asked for by name or file is taken as it is.
Fails: ModelError (exit code 3).
Threads: any, one at a time; loading takes seconds, so never the inference thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge.backends import Choice, choices, choose, time_runs
from edge.config import Config
from edge.detect.detector import Detector, open_detector
from edge.embed import Embedder, golden_row, open_embedder
from edge.models_dir import DEFAULT, find_model, stand_ins, variants_of
from edge.trial import TrialFailed, run_in_child
from reid.card import Kind, ModelFile, verify_licence
from reid.golden import golden_image
from reid.model_errors import LicenceRefused, ModelError, ModelMisbehaved

CHILD_S = 120.0  # opening and timing one choice takes seconds; a hung runtime must not hold the box


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration means at one moment; equal when nothing changed.

    Attributes:
        file: the model asked for.
        variants: others that may stand in for it, if they are faster here.
        stamps: size and time of the files, so that a file replaced in place is another.
    """

    file: ModelFile
    variants: tuple[ModelFile, ...]
    stamps: tuple[tuple[int, int], ...]


class ModelLoader:
    """Loads the detector and the embedders that a configuration names."""

    def __init__(self, *, config: Config) -> None:
        self._config = config

    def find(self, kind: Kind) -> Wanted:
        """The model that the configuration means now; cheap.

        Raises:
            ModelError: none, a broken card, or its licence is refused.
        """
        config = self._config
        file = find_model(
            self._asked(kind), kind, config.models_dir, commercial=config.require_commercial
        )
        verify_licence(file, require_commercial=config.require_commercial)
        return self._wanted(file, kind)

    def stand_ins(self, kind: Kind) -> Iterator[Wanted]:
        """What may stand in for a `default` that cannot be opened, best first.

        Nothing stands in for a model that was asked for by name or file.
        """
        if self._asked(kind) == DEFAULT:
            for file in stand_ins(kind, self._config.models_dir):
                if self._allowed(file):
                    yield self._wanted(file, kind)

    def detector(self, wanted: Wanted) -> Detector:
        """Open and verify a detector, with the fastest runtime here.

        Raises:
            ModelError: it is not as its card says, or none of its runtimes opens it.
        """
        return self._open_detector(self._choose(wanted.file, wanted.variants, self._time_detector))

    def embedder(self, wanted: Wanted) -> Embedder:
        """Open and verify an embedder, with the fastest runtime here.

        Raises:
            ModelError: it is not as its card says, or none of its runtimes opens it.
        """
        return self._open_embedder(self._choose(wanted.file, wanted.variants, self._time_embedder))

    def exact_embedder(self, file: ModelFile) -> Embedder:
        """Open and verify this very embedder.

        Raises:
            ModelError: its licence is refused, or as `embedder`.
        """
        verify_licence(file, require_commercial=self._config.require_commercial)
        return self._open_embedder(self._choose(file, (), self._time_embedder))

    def _asked(self, kind: Kind) -> str:
        return self._config.detect.model if kind == "detector" else self._config.embed.model

    def _wanted(self, file: ModelFile, kind: Kind) -> Wanted:
        variants: tuple[ModelFile, ...] = ()
        if self._asked(kind) == DEFAULT and self._config.runtime.backend == "auto":
            known = variants_of(file, self._config.models_dir)
            variants = tuple(variant for variant in known if self._allowed(variant))
        return Wanted(file, variants, tuple(_stamp(f) for f in (file, *variants)))

    def _choose(
        self, file: ModelFile, variants: Sequence[ModelFile], measure: Callable[[Choice], float]
    ) -> Choice:
        runtime = self._config.runtime
        candidates = choices(file, variants, runtime)
        return choose(candidates, measure, config=runtime, cache_dir=self._config.data_dir)

    def _allowed(self, file: ModelFile) -> bool:
        try:
            verify_licence(file, require_commercial=self._config.require_commercial)
        except LicenceRefused:
            return False
        return True

    def _open_detector(self, choice: Choice) -> Detector:
        return open_detector(
            choice.model,
            self._config.runtime,
            self._config.detect,
            backend=choice.runtime,
            precision=choice.precision,
        )

    def _open_embedder(self, choice: Choice) -> Embedder:
        return open_embedder(
            choice.model,
            self._config.runtime,
            self._config.embed,
            backend=choice.runtime,
            precision=choice.precision,
        )

    def _time_detector(self, choice: Choice) -> float:
        return self._timed(choice, "detector", self._open_detector)

    def _time_embedder(self, choice: Choice) -> float:
        return self._timed(choice, "embedder", self._open_embedder)

    def _timed(self, choice: Choice, kind: Kind, open_here: Callable[[Choice], object]) -> float:
        """Milliseconds of one run, measured in a process of its own.

        A runtime that is tried and not taken would keep its memory (OpenVINO: some hundred MB). A
        model that crashes it or never ends is refused, and not opened here.
        """
        try:
            found = run_in_child(_time_in_child, self._config, choice, kind, timeout_s=CHILD_S)
        except TrialFailed as error:
            raise ModelMisbehaved(
                choice.model.path, f"{choice.runtime} {error}", "take it out of the models folder"
            ) from error
        if isinstance(found, float):
            return found
        open_here(choice)  # raises what is wrong with it, as this process sees it
        raise ModelError(choice.model.path, found, "nothing to do: another choice is taken")


def _time_in_child(config: Config, choice: Choice, kind: Kind) -> float | str:
    """Median milliseconds, or what is wrong: errors of models do not travel between processes."""
    loader = ModelLoader(config=config)
    try:
        if kind == "detector":
            detector = loader._open_detector(choice)
            picture = golden_image(detector.input.height, detector.input.width)
            return time_runs(lambda: detector.detect(picture))
        embedder = loader._open_embedder(choice)
        return time_runs(lambda: golden_row(embedder, 1))
    except ModelError as error:
        return str(error)


def _stamp(file: ModelFile) -> tuple[int, int]:
    try:
        stat = file.path.stat()
    except OSError:
        return (0, 0)  # gone since it was found; opening it says so
    return stat.st_size, stat.st_mtime_ns
