"""Is the fastest admitted choice taken, once measured, and what is left out?"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.backends import CACHE, Choice, choices, choose, time_runs
from edge.config import RuntimeConfig
from reid.card import ModelFile, RuntimeVariant
from reid.model_errors import ModelError, ModelUnreadable
from tests.unit.edge.tiny_models import embedder_card, mean_embedder

AUTO = RuntimeConfig(threads=1)


def model(folder: Path, name: str, **card: object) -> ModelFile:
    path = mean_embedder(folder / f"{name}.onnx")
    return ModelFile(path, embedder_card(path, **card))


class Stopwatch:
    """Answers a time for each choice, and counts how often it was asked."""

    def __init__(self, times: dict[str, float]) -> None:
        self.times = times
        self.asked: list[str] = []

    def __call__(self, choice: Choice) -> float:
        self.asked.append(choice.label)
        if choice.label not in self.times:
            raise ModelUnreadable(choice.model.path, "does not load here", "nothing")
        return self.times[choice.label]


def test_choices_are_runtimes_times_files_and_admitted_precisions(tmp_path: Path) -> None:
    bf16 = RuntimeVariant(runtime="openvino", precision="bf16", variant_id="b", tolerance=0.1)
    base, small = model(tmp_path, "base", runtimes=(bf16,)), model(tmp_path, "small")

    found = [choice.label for choice in choices(base, [small], AUTO)]

    assert found == [
        "base onnxruntime f32",
        "base openvino f32",
        "base openvino bf16",
        "small onnxruntime f32",
        "small openvino f32",
    ]


def test_a_runtime_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    base = model(tmp_path, "base")

    found = choices(base, [], RuntimeConfig(backend="openvino"))

    assert [choice.label for choice in found] == ["base openvino f32"]


def test_the_fastest_is_taken_and_remembered(tmp_path: Path) -> None:
    candidates = choices(model(tmp_path, "base"), [], AUTO)
    watch = Stopwatch({"base onnxruntime f32": 10.0, "base openvino f32": 5.0})

    first = choose(candidates, watch, config=AUTO, cache_dir=tmp_path)
    again = choose(candidates, watch, config=AUTO, cache_dir=tmp_path)

    assert (first.runtime, again.runtime) == ("openvino", "openvino")
    assert len(watch.asked) == 2  # each once, at the first call


def test_another_number_of_threads_is_measured_anew(tmp_path: Path) -> None:
    candidates = choices(model(tmp_path, "base"), [], AUTO)
    watch = Stopwatch({"base onnxruntime f32": 10.0, "base openvino f32": 5.0})
    choose(candidates, watch, config=AUTO, cache_dir=tmp_path)

    choose(candidates, watch, config=RuntimeConfig(threads=2), cache_dir=tmp_path)

    assert len(watch.asked) == 4


def test_the_plain_choice_stays_unless_clearly_beaten(tmp_path: Path) -> None:
    candidates = choices(model(tmp_path, "base"), [], AUTO)
    watch = Stopwatch({"base onnxruntime f32": 10.0, "base openvino f32": 9.8})

    assert choose(candidates, watch, config=AUTO, cache_dir=None).runtime == "onnxruntime"


def test_a_choice_that_does_not_open_is_left_out(tmp_path: Path) -> None:
    candidates = choices(model(tmp_path, "base"), [], AUTO)

    chosen = choose(
        candidates, Stopwatch({"base onnxruntime f32": 10.0}), config=AUTO, cache_dir=None
    )

    assert chosen.runtime == "onnxruntime"


def test_the_plain_choice_failing_is_the_models_failure(tmp_path: Path) -> None:
    candidates = choices(model(tmp_path, "base"), [], AUTO)

    with pytest.raises(ModelError, match="does not load here"):
        choose(candidates, Stopwatch({}), config=AUTO, cache_dir=None)


def test_damaged_timings_are_measured_anew(tmp_path: Path) -> None:
    (tmp_path / CACHE).write_text("{")
    candidates = choices(model(tmp_path, "base"), [], AUTO)
    watch = Stopwatch({"base onnxruntime f32": 10.0, "base openvino f32": 5.0})

    chosen = choose(candidates, watch, config=AUTO, cache_dir=tmp_path)

    assert chosen.runtime == "openvino"


def test_a_run_is_timed_at_least_a_few_times() -> None:
    calls: list[int] = []

    milliseconds = time_runs(lambda: calls.append(1), seconds=0.0)

    assert milliseconds >= 0.0
    assert len(calls) >= 5
