"""Do models change between frames, is a bad one refused, does a new space bridge from the old?"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge import model_keeper, models_dir
from edge.config import Config, EmbedConfig, RuntimeConfig
from edge.model_keeper import ModelEvent, ModelKeeper
from edge.model_pointer import Pointer, read_pointer, write_pointer
from reid.model_errors import LicenceRefused, ModelError, ModelNotFound
from tests.unit.edge.tiny_models import (
    constant_detector,
    detector_card,
    embedder_card,
    mean_embedder,
    yolox_rows,
)

FRAME = np.zeros((64, 64, 3), np.uint8)
CROP = np.full((40, 20, 3), 90, np.uint8)


@pytest.fixture(autouse=True)
def _no_packaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = models_dir.packaged_dir
    monkeypatch.setattr(
        models_dir,
        "packaged_dir",
        lambda name="weights": None if name == "weights" else packaged(name),
    )


class Clock:
    """UTC seconds that stand still until moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Box:
    """A models folder, a data folder, and keepers on them."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.data = folder / "data"
        self.models.mkdir()
        self.data.mkdir()
        self.clock = Clock()
        self.events: list[ModelEvent] = []
        self.detector("d", score=0.9)
        self.embedder("e", space_id="space-a", seed=1)
        write_pointer(self.models, Pointer().using("detector", "d").using("embedder", "e"))

    def detector(self, name: str, *, score: float, **card: object) -> Path:
        rows = yolox_rows([(16, 30, 16, 40, score)], raw=True)
        path = constant_detector(self.models / f"{name}.onnx", {"output": rows})
        detector_card(path, **card)
        return path

    def embedder(self, name: str, *, space_id: str, seed: int, **card: object) -> Path:
        path = mean_embedder(self.models / f"{name}.onnx", seed=seed)
        embedder_card(path, space_id=space_id, **card)
        return path

    def use(self, kind: str, name: str) -> None:
        write_pointer(self.models, read_pointer(self.models).using(kind, name))

    def keeper(self, **config: object) -> ModelKeeper:
        fields: dict[str, object] = {
            "data_dir": self.data,
            "models_dir": self.models,
            "runtime": RuntimeConfig(threads=1, backend="onnxruntime", watch_s=0.01),
            "embed": EmbedConfig(overlap_s=3600.0),
        }
        keeper = ModelKeeper(
            config=Config.model_validate({**fields, **config}),
            clock=self.clock,
            on_event=self.events.append,
        )
        keeper.open()
        return keeper

    def told(self, what: str) -> list[ModelEvent]:
        return [event for event in self.events if event.what == what]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def settle(keeper: ModelKeeper) -> None:
    """Two looks: the first sees a change, the second that it stands still."""
    keeper.look()
    keeper.look()


def score(keeper: ModelKeeper) -> float:
    return round(float(keeper.detector().detect(FRAME).scores[0]), 3)


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


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _other_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 0xFF
    path.write_bytes(content)


def _broken_card(path: Path) -> None:
    path.with_suffix(".toml").write_text("kind = 1")


def _endless_card(path: Path) -> None:
    path.with_suffix(".toml").write_text("x = " + "[" * 20_000)


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_cut, "card_mismatch"),
        (_other_bytes, "card_mismatch"),
        (_broken_card, "card_invalid"),
        (_endless_card, "card_invalid"),
        (_gone, "not_found"),
    ],
)
def test_a_bad_model_is_refused_counted_and_the_old_one_stays(
    damage: Callable[[Path], None], code: str, box: Box
) -> None:
    keeper = box.keeper()
    path = box.detector("bad", score=0.5)
    damage(path)

    box.use("detector", "bad")
    settle(keeper)

    assert score(keeper) == 0.9
    assert keeper.refused == {code: 1}
    (refused,) = box.told("refused")
    assert refused.text.endswith("d stays")


@pytest.mark.parametrize(
    "text",
    ["x = " + "[" * 20_000, "#" * 100_000, 'detector = ["' + "a" * 5_000 + '"]'],
    ids=["endless", "long", "long name"],
)
def test_a_pointer_that_nobody_meant_is_refused_and_the_models_stay(text: str, box: Box) -> None:
    keeper = box.keeper()

    (box.models / "current.toml").write_text(text)
    settle(keeper)

    assert score(keeper) == 0.9
    assert {event.kind for event in box.told("refused")} == {"detector", "embedder"}


def test_a_card_of_no_end_beside_the_running_model_hides_no_other(box: Box) -> None:
    _endless_card(box.detector("hostile", score=0.1))

    keeper = box.keeper()

    assert score(keeper) == 0.9


def test_a_refused_model_is_taken_once_it_is_mended(box: Box) -> None:
    keeper = box.keeper()
    path = box.detector("late", score=0.5)
    whole = path.read_bytes()
    _cut(path)
    box.use("detector", "late")
    settle(keeper)

    path.write_bytes(whole)
    settle(keeper)

    assert score(keeper) == 0.5


def test_other_golden_values_are_refused(box: Box) -> None:
    keeper = box.keeper()
    box.detector("liar", score=0.5, golden={"values": (0.1,) * 16, "tolerance": 1e-4})

    box.use("detector", "liar")
    settle(keeper)

    assert score(keeper) == 0.9
    assert "golden output is off by" in box.told("refused")[0].text


def test_a_new_space_runs_beside_the_old_one_until_the_overlap_ends(box: Box) -> None:
    keeper = box.keeper()
    box.embedder("new", space_id="space-b", seed=2)

    box.use("embedder", "new")
    settle(keeper)
    during = [embedder.space_id for embedder in keeper.embedders()]
    box.clock.now += 3599.0
    keeper.look()
    shortly_before = [embedder.space_id for embedder in keeper.embedders()]
    box.clock.now += 2.0
    keeper.look()
    after = [embedder.space_id for embedder in keeper.embedders()]

    assert during == shortly_before == ["space-b", "space-a"]
    assert after == ["space-b"]
    assert [event.what for event in box.events] == ["bridge", "taken", "bridge_ended"]


def test_both_embedders_of_a_bridge_embed(box: Box) -> None:
    keeper = box.keeper()
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")
    settle(keeper)

    rows = {embedder.space_id: embedder.embed([CROP])[0] for embedder in keeper.embedders()}

    assert set(rows) == {"space-a", "space-b"}
    assert not np.allclose(rows["space-a"], rows["space-b"])


def test_a_variant_of_the_same_space_needs_no_bridge(box: Box) -> None:
    keeper = box.keeper()
    box.embedder("fast", space_id="space-a", seed=1, variant_id="int8")

    box.use("embedder", "fast")
    settle(keeper)

    assert keeper.variants == {"space-a": "int8"}


def test_rolling_back_during_a_bridge_makes_the_old_embedder_the_main_one(box: Box) -> None:
    keeper = box.keeper()
    old = keeper.embedders()[0]
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")
    settle(keeper)

    undone = read_pointer(box.models).rolled_back("embedder")
    assert undone is not None
    write_pointer(box.models, undone)
    settle(keeper)

    assert keeper.embedders()[0] is old
    assert [embedder.space_id for embedder in keeper.embedders()] == ["space-a", "space-b"]


def test_a_bridge_goes_on_after_a_restart(box: Box) -> None:
    keeper = box.keeper()
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")
    settle(keeper)

    box.clock.now += 1800.0
    restarted = box.keeper()
    both = list(restarted.variants)
    box.clock.now += 1801.0
    restarted.look()

    assert both == ["space-b", "space-a"]
    assert list(restarted.variants) == ["space-b"]


def test_a_model_changed_while_the_box_was_off_starts_a_bridge(box: Box) -> None:
    box.keeper()
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")

    restarted = box.keeper()

    assert list(restarted.variants) == ["space-b", "space-a"]


def test_a_bridge_whose_old_model_is_gone_is_said(box: Box) -> None:
    box.keeper()
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")
    (box.models / "e.onnx").unlink()

    restarted = box.keeper()

    assert list(restarted.variants) == ["space-b"]
    assert "no bridge from the old embedder's space space-a" in box.told("refused")[0].text


def test_no_overlap_ends_the_old_embedder_at_once(box: Box) -> None:
    keeper = box.keeper(embed=EmbedConfig(overlap_s=0.0))
    box.embedder("new", space_id="space-b", seed=2)

    box.use("embedder", "new")
    settle(keeper)

    assert list(keeper.variants) == ["space-b"]


def test_what_may_not_be_used_commercially_is_refused_where_that_was_demanded(box: Box) -> None:
    box.embedder("research", space_id="space-r", seed=3, commercial_use=False)
    keeper = box.keeper(require_commercial=True)

    box.use("embedder", "research")
    settle(keeper)

    assert list(keeper.variants) == ["space-a"]
    assert keeper.refused == {"licence": 1}
    with pytest.raises(LicenceRefused):
        box.keeper(require_commercial=True)


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_start_with_a_broken_choice_takes_the_choice_before_it_and_says_so(
    box: Box, harm: str
) -> None:
    chosen = box.embedder("f", space_id="space-b", seed=2)
    box.use("embedder", "f")
    if harm == "cut":
        chosen.write_bytes(chosen.read_bytes()[:100])
    else:
        chosen.unlink()

    keeper = box.keeper()

    assert [e.space_id for e in keeper.embedders()] == ["space-a"]
    assert keeper.why("embedder") == "e was chosen before"
    assert [(event.kind, "e stands in" in event.text) for event in box.told("refused")] == [
        ("embedder", True)
    ]
    assert sum(keeper.refused.values()) == 1


def test_a_broken_choice_that_is_mended_is_taken_again(box: Box) -> None:
    chosen = box.embedder("f", space_id="space-b", seed=2)
    box.use("embedder", "f")
    whole = chosen.read_bytes()
    chosen.write_bytes(whole[:100])
    keeper = box.keeper()

    chosen.write_bytes(whole)
    settle(keeper)

    assert keeper.embedders()[0].space_id == "space-b"


def test_nothing_stands_in_for_a_model_asked_for_by_name(box: Box) -> None:
    (box.models / "e.onnx").write_bytes(b"cut")

    with pytest.raises(ModelError):
        box.keeper(embed=EmbedConfig(model="e"))


def test_a_start_without_a_model_is_refused(box: Box) -> None:
    shutil.rmtree(box.models)

    with pytest.raises(ModelNotFound):
        box.keeper()


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
