"""Do models change between frames, under load too, and does stopping wait for no model?"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edge import model_keeper, models_dir
from edge.model_keeper import ModelKeeper
from reid.model_errors import ModelNotFound
from tests.unit.edge.model_box import FRAME, Box, score, settle


def test_a_chosen_detector_is_taken_while_the_box_runs(box: Box) -> None:
    keeper = box.keeper()
    box.detector("better", score=0.5)

    box.use("detector", "better")
    settle(keeper)

    assert score(keeper) == 0.5
    assert [event.name for event in box.told("taken")] == ["better"]
    assert "edge-models use chose better" in keeper.why("detector")


def test_nothing_is_taken_while_the_folder_still_changes(box: Box) -> None:
    keeper = box.keeper()
    box.detector("better", score=0.5)
    box.use("detector", "better")

    keeper.look()
    assert score(keeper) == 0.9
    (box.models / "more.toml").write_text("still copying")
    keeper.look()
    assert score(keeper) == 0.9
    keeper.look()

    assert score(keeper) == 0.5


def test_a_file_replaced_in_place_with_its_card_is_taken(box: Box) -> None:
    keeper = box.keeper()

    box.detector("d", score=0.7)
    settle(keeper)

    assert score(keeper) == 0.7


def test_a_link_to_nowhere_does_not_hide_the_other_changes(box: Box) -> None:
    (box.models / "away.onnx").symlink_to("nowhere.onnx")
    keeper = box.keeper()
    box.detector("better", score=0.5)

    box.use("detector", "better")
    settle(keeper)

    assert score(keeper) == 0.5


def test_a_folder_that_goes_away_and_comes_back_changes_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = box.data / "packaged"
    packaged.mkdir()
    keeper = box.keeper()
    shutil.copy(box.detector("spare", score=0.2, default=True), packaged)
    (box.models / "spare.toml").rename(packaged / "spare.toml")
    others = models_dir.packaged_dir
    monkeypatch.setattr(
        models_dir,
        "packaged_dir",
        lambda name="weights": packaged if name == "weights" else others(name),
    )
    settle(keeper)
    before = list(box.events)

    box.models.rename(box.data / "away")
    settle(keeper)
    without = score(keeper)
    (box.data / "away").rename(box.models)
    settle(keeper)

    assert (without, score(keeper)) == (0.9, 0.9)
    assert box.events == before


@pytest.fixture
def running(box: Box) -> Iterator[ModelKeeper]:
    keeper = box.keeper()
    keeper.start()
    yield keeper
    keeper.stop()


def _until(condition: Callable[[], bool], state: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, f"still {state()}"
        threading.Event().wait(0.005)


def test_models_are_swapped_under_load_without_a_lost_or_mixed_frame(
    box: Box, running: ModelKeeper
) -> None:
    box.detector("other", score=0.5)
    frames: list[tuple[str, float]] = []
    ended = threading.Event()
    faults: list[BaseException] = []

    def look_for_ever() -> None:
        try:
            while not ended.is_set():
                detector = running.detector()
                found = detector.detect(FRAME)
                frames.append((detector.name, round(float(found.scores[0]), 3)))
        except BaseException as fault:
            faults.append(fault)
            raise

    inference = threading.Thread(target=look_for_ever)
    inference.start()
    try:
        for turn in range(4):
            box.use("detector", ("other", "d")[turn % 2])
            _until(lambda turn=turn: running.taken["detector"] > turn, lambda: running.events)
            here = len(frames)
            _until(lambda here=here: len(frames) > here + 20, lambda: len(frames))
    finally:
        ended.set()
        inference.join(timeout=20.0)

    assert faults == []
    assert set(frames) == {("d", 0.9), ("other", 0.5)}
    changes = sum(a[0] != b[0] for a, b in itertools.pairwise(frames))
    assert changes == 4
    assert running.refused == {}


def test_stopping_does_not_wait_for_a_model_that_never_opens(
    box: Box, running: ModelKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, ended = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        opening.set()
        ended.wait(timeout=60.0)
        raise ModelNotFound("endless", "never opened", "nothing to do")

    monkeypatch.setattr(model_keeper, "STOP_S", 0.05)
    monkeypatch.setattr(running._loader, "detector", hang)
    box.detector("endless", score=0.5)
    box.use("detector", "endless")
    assert opening.wait(timeout=20.0)

    started = time.monotonic()
    running.stop()
    waited = time.monotonic() - started
    ended.set()

    assert waited < 10.0


def test_stopping_twice_is_harmless(box: Box) -> None:
    keeper = box.keeper()
    keeper.start()

    keeper.stop()
    keeper.stop()

    assert score(keeper) == 0.9
