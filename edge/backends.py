"""Which runtime and which variant of a model is fastest on this machine: measured, and remembered.

Promise: with `backend = "auto"` every admitted choice is opened (so its checksum, shapes and golden
output are verified) and timed for about a second, once per machine, model and thread count; the
choice is kept in the data folder under the processor's name. ONNX Runtime at float is the plain
choice: another must beat it by MARGIN. A choice that cannot be opened is left out and said so; the
plain one failing is the model's failure.
Threads: any; opening models is slow, so not the inference thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from edge.config import RuntimeConfig
from edge.runtime import Precision, RuntimeName, have_openvino, quota_threads
from reid.card import ModelFile
from reid.model_errors import ModelError

CACHE = "runtimes.json"
MEASURE_S = 1.0
MARGIN = 0.95  # a share of the plain time; closer is noise, and the plain choice is best tried
_LEAST_RUNS = 5

log = structlog.get_logger("edge.models")


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run a model."""

    model: ModelFile
    runtime: RuntimeName = "onnxruntime"
    precision: Precision = "f32"

    @property
    def label(self) -> str:
        """Short and stable, for the cache and for people."""
        return f"{self.model.name} {self.runtime} {self.precision}"


def choices(model: ModelFile, variants: Sequence[ModelFile], config: RuntimeConfig) -> list[Choice]:
    """The admitted ways to run a model, the plain one first.

    A runtime the configuration names is the only one; bf16 only where a card admits it.
    """
    runtimes: list[RuntimeName]
    if config.backend == "auto":
        runtimes = ["onnxruntime", *(["openvino"] if have_openvino() else [])]  # type: ignore[list-item]
    else:
        runtimes = [config.backend]
    found: list[Choice] = []
    for file in (model, *variants):
        for runtime in runtimes:
            found.append(Choice(file, runtime))
            admitted = file.card.runtimes if file.card else ()
            found += [Choice(file, runtime, e.precision) for e in admitted if e.runtime == runtime]
    return found


def choose(
    candidates: Sequence[Choice],
    measure: Callable[[Choice], float],
    *,
    config: RuntimeConfig,
    cache_dir: Path | None,
) -> Choice:
    """The fastest of `candidates`, from the cache or by measuring.

    Args:
        candidates: the plain one first; at least one.
        measure: opens a choice and returns milliseconds of one run.
        cache_dir: the data folder; None: nothing is remembered.

    Raises:
        ModelError: the plain choice cannot be opened.
    """
    plain = candidates[0]
    if len(candidates) == 1:
        return plain
    key = _key(candidates, config.threads or quota_threads())
    path = cache_dir / CACHE if cache_dir else None
    known = _read(path)
    by_label = {choice.label: choice for choice in candidates}
    remembered = by_label.get(str(known.get(key, {}).get("chosen")))
    if remembered is not None:
        return remembered
    times = {plain.label: measure(plain)}
    for choice in candidates[1:]:
        try:
            times[choice.label] = measure(choice)
        except ModelError as error:
            log.warning("left out", choice=choice.label, because=str(error))
    fastest = min(times, key=lambda label: times[label])
    label = fastest if times[fastest] < MARGIN * times[plain.label] else plain.label
    log.info("fastest here", chosen=label, ms={name: round(ms, 2) for name, ms in times.items()})
    _write(path, {**known, key: {"chosen": label, "ms": times, "processor": processor_name()}})
    return by_label[label]


def time_runs(run: Callable[[], object], *, seconds: float = MEASURE_S) -> float:
    """Median milliseconds of `run`, after one warm-up, for about `seconds`."""
    run()
    end = time.monotonic() + seconds
    times: list[float] = []
    while len(times) < _LEAST_RUNS or time.monotonic() < end:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def processor_name() -> str:
    """What the machine calls its processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model", "Hardware")):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no such file on this system; the platform module knows something
    return platform.processor() or platform.machine()


def processor_flags() -> frozenset[str]:
    """What the processor says it can do, as Linux calls it; empty where nothing tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass  # no such file on this system
    return frozenset()


def _key(candidates: Sequence[Choice], threads: int) -> str:
    """What the timing depends on: processor, threads, runtimes' versions, files."""
    parts = [processor_name(), str(threads), _version("onnxruntime"), _version("openvino")]
    for choice in candidates:
        sha256 = choice.model.card.sha256 if choice.model.card else str(choice.model.path)
        parts.append(f"{sha256} {choice.runtime} {choice.precision}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _read(path: Path | None) -> dict[str, dict[str, object]]:
    if path is None:
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("timings forgotten", file=str(path), because=str(error))
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path | None, known: dict[str, dict[str, object]]) -> None:
    if path is None:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(json.dumps(known, indent=1), encoding="utf-8")
        beside.replace(path)
    except OSError as error:  # the measurement is repeated at the next start, nothing is lost
        log.warning("timings not kept", file=str(path), because=str(error))
