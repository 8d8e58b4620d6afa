"""One camera's way from frame to tracklet, with real (small) networks on a film of our own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from edge.config import (
    DetectConfig,
    EmbedConfig,
    GateConfig,
    RuntimeConfig,
    ShotConfig,
    TrackConfig,
)
from edge.detect.detector import Detector, open_detector
from edge.embed import Embedder, open_embedder
from edge.inference import InferenceThread
from edge.models_dir import find_model
from edge.pipeline import CameraPipeline, FixedModels, Models, crops_of
from edge.shots import CropBudget
from edge.status import BoxStatus
from edge.types import CaptureTime, Detections, Floats, Frame, Image, TimeSource, Tracklet
from tests.support.standins import HEIGHT, TWO_WALKERS, WIDTH, film_frame, write_models
from tests.support.waiting import eventually

FRAMES = 40
FPS = 10


@dataclass
class Networks:
    """Detector and embedder, counted."""

    detector: Detector
    embedder: Embedder
    detected: int = 0
    embedded: int = 0

    @property
    def space_id(self) -> str:
        return self.embedder.space_id

    def detect(self, image: Image) -> Detections:
        self.detected += 1
        return self.detector.detect(image)

    def embed(self, crops: Sequence[Image]) -> Floats:
        self.embedded += len(crops)
        return self.embedder.embed(crops)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Embedder]:
    folder = write_models(tmp_path_factory.mktemp("models"))
    runtime = RuntimeConfig(threads=1, backend="onnxruntime")
    detector = open_detector(find_model("default", "detector", folder), runtime, DetectConfig())
    embedder = open_embedder(find_model("default", "embedder", folder), runtime, EmbedConfig())
    return detector, embedder


@pytest.fixture
def networks(opened: tuple[Detector, Embedder]) -> Networks:
    return Networks(*opened)


def frame(
    number: int, *, camera: str = "hall", corrupt: bool = False, image: Image | None = None
) -> Frame:
    nanos = 1_000_000_000 + number * 1_000_000_000 // FPS
    picture = film_frame(number, FRAMES, TWO_WALKERS) if image is None else image
    captured = CaptureTime(nanos, nanos, TimeSource.FILE, 0.0)
    return Frame(camera, number, picture, captured, corrupt)


def make(
    networks: Networks, *, models: Models | None = None, camera: str = "hall"
) -> tuple[CameraPipeline, BoxStatus]:
    status = BoxStatus([camera])
    pipeline = CameraPipeline(
        camera=camera,
        gate=GateConfig(),
        track=TrackConfig(),
        shots=ShotConfig(),
        models=models or FixedModels(networks, [networks]),
        budget=CropBudget(per_s=40.0),
        numbers=itertools.count(1),
        status=status,
    )
    return pipeline, status


def run(pipeline: CameraPipeline, frames: Sequence[Frame]) -> list[Tracklet]:
    told = [t for one in frames for t in pipeline.process(one).revisions]
    return [*told, *pipeline.finish()]


def test_two_walkers_become_two_tracklets_with_shots_and_a_path(networks: Networks) -> None:
    pipeline, status = make(networks)

    told = run(pipeline, [frame(i) for i in range(FRAMES)])

    finals = [tracklet for tracklet in told if tracklet.final]
    assert len(finals) == 2
    assert {t.number for t in told} == {t.number for t in finals}
    for tracklet in finals:
        assert 1 <= len(tracklet.shots) <= 4
        assert list(tracklet.shots[0].embeddings) == ["colours/1"]
        assert len(tracklet.path) <= 32
        assert tracklet.first_seen.unix_nanos == frame(0).captured.unix_nanos
        assert tracklet.seen_with == tuple(t.number for t in finals if t is not tracklet)
    assert status.counts["hall"].tracklets == 2
    assert status.counts["hall"].embeddings == networks.embedded


def test_damaged_frames_are_tracked_and_never_embedded(networks: Networks) -> None:
    pipeline, _ = make(networks)

    told = run(pipeline, [frame(i, corrupt=True) for i in range(FRAMES)])

    assert networks.detected == FRAMES
    assert networks.embedded == 0
    assert [t.shots for t in told if t.final] == [(), ()]


def test_frames_of_another_size_start_the_tracklets_afresh(networks: Networks) -> None:
    pipeline, _ = make(networks)
    first = [frame(i) for i in range(20)]
    larger = [
        frame(i, image=np.kron(film_frame(i, FRAMES, TWO_WALKERS), np.ones((2, 2, 1), np.uint8)))
        for i in range(20, FRAMES)
    ]

    told = run(pipeline, [*first, *larger])

    sizes = {(t.frame_width, t.frame_height) for t in told if t.final}
    assert sizes == {(WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT)}
    assert len({t.number for t in told if t.final}) == 4


def test_nothing_is_detected_while_nothing_moves(networks: Networks) -> None:
    pipeline, status = make(networks)
    still = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)

    run(pipeline, [frame(i, image=still) for i in range(200)])

    assert networks.detected < 60  # the gate starts open and holds for three seconds
    assert status.counts["hall"].frames_analysed == 200
    assert status.counts["hall"].frames_gated == 200 - networks.detected


def test_a_camera_that_falls_silent_ends_its_tracklets_in_time(networks: Networks) -> None:
    pipeline, _ = make(networks)
    for i in range(20):
        last = frame(i)
        pipeline.process(last)

    early = pipeline.idle(last.captured.seconds + 1.0)
    late = pipeline.idle(last.captured.seconds + 2.5)
    again = pipeline.idle(last.captured.seconds + 9.0)

    assert early == ()
    assert [t.final for t in late] == [True, True]
    assert again == ()


@dataclass
class Swapped:
    """Models whose main embedder changes its space."""

    networks: Networks
    spaces: list[Networks] = field(default_factory=list)

    def detector(self) -> Networks:
        return self.networks

    def embedders(self) -> Sequence[Networks]:
        return self.spaces


@dataclass
class OtherSpace(Networks):
    @property
    def space_id(self) -> str:
        return "other/1"


def test_a_second_embedder_gives_each_new_shot_a_vector_in_both_spaces(
    networks: Networks,
) -> None:
    models = Swapped(networks, [networks])
    pipeline, _ = make(networks, models=models)
    other = OtherSpace(networks.detector, networks.embedder)
    for i in range(15):
        pipeline.process(frame(i))

    models.spaces = [other, networks]
    told = run(pipeline, [frame(i) for i in range(15, FRAMES)])

    of_last = [shot.embeddings for t in told if t.final for shot in t.shots]
    assert {frozenset(spaces) for spaces in of_last} >= {frozenset({"other/1", "colours/1"})}
    assert len([t for t in told if t.final]) == 2, "the swap loses no tracklet"


def test_another_detector_between_two_frames_goes_on_with_the_tracklets(
    networks: Networks,
) -> None:
    models = Swapped(networks, [networks])
    pipeline, _ = make(networks, models=models)
    other = Networks(networks.detector, networks.embedder)

    before = [t for i in range(20) for t in pipeline.process(frame(i)).revisions]
    models.networks = other
    after = run(pipeline, [frame(i) for i in range(20, FRAMES)])

    finals = [t for t in [*before, *after] if t.final]
    assert (networks.detected, other.detected) == (20, FRAMES - 20)
    assert len(finals) == 2
    assert all(t.first_seen.unix_nanos == frame(0).captured.unix_nanos for t in finals)


def test_crops_have_at_least_one_pixel_and_stay_inside() -> None:
    image = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    boxes = np.array([[2.2, 3.1, 4.9, 6.0], [-5, -5, 0, 0], [11.9, 9.9, 40, 40]], np.float32)

    crops = crops_of(image, boxes)

    assert [crop.shape for crop in crops] == [(3, 3, 3), (1, 1, 3), (1, 1, 3)]
    assert np.array_equal(crops[0], image[3:6, 2:5])


class Feed:
    """Frames that are there at once."""

    live = False

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = list(frames)

    @property
    def done(self) -> bool:
        return not self._frames

    def take(self, timeout_s: float) -> Frame | None:
        return self._frames.pop(0) if self._frames else None


def test_cameras_take_turns(networks: Networks) -> None:
    order: list[str] = []
    names = ["a", "b", "c"]
    thread = InferenceThread(
        cameras={name: Feed([frame(i, camera=name) for i in range(4)]) for name in names},
        pipelines={name: make(networks, camera=name)[0] for name in names},
        emit=lambda tracklet, nanos: None,
        observe=lambda one, analysed: order.append(one.camera),
    )

    thread.start()
    thread.join(30)

    assert not thread.is_alive()
    assert order == names * 4


def test_a_fault_ends_the_thread_and_is_kept(networks: Networks) -> None:
    class Broken:
        def process(self, one: Frame) -> None:
            raise RuntimeError("planted")

    thread = InferenceThread(
        cameras={"hall": Feed([frame(0)])},
        pipelines={"hall": Broken()},  # type: ignore[dict-item]
        emit=lambda tracklet, nanos: None,
    )

    thread.start()
    thread.join(30)

    assert not thread.is_alive()
    assert isinstance(thread.fault, RuntimeError)


def test_what_lives_is_told_when_the_thread_is_stopped(networks: Networks) -> None:
    told: list[Tracklet] = []
    seen = threading.Event()

    class Endless(Feed):
        live = True
        done = False

        def take(self, timeout_s: float) -> Frame | None:
            return super().take(timeout_s)

    feed = Endless([frame(i) for i in range(20)])
    thread = InferenceThread(
        cameras={"hall": feed},
        pipelines={"hall": make(networks)[0]},
        emit=lambda tracklet, nanos: told.append(tracklet),
        observe=lambda one, analysed: seen.set() if one.index == 19 else None,
    )
    # A live camera's clock is the machine's; these frames are long past, and idle would end them.
    thread._pipelines["hall"].idle = lambda now_s: ()  # type: ignore[method-assign]

    thread.start()
    assert seen.wait(30)
    before = [t for t in told if t.final]
    thread.stop()
    thread.stop()
    thread.join(30)

    assert before == []
    assert len([t for t in told if t.final]) == 2


def test_a_camera_is_added_and_removed_while_others_run(networks: Networks) -> None:
    observed: list[str] = []

    class Endless(Feed):
        live = True
        done = False

    thread = InferenceThread(
        cameras={"a": Endless([])},
        pipelines={"a": make(networks, camera="a")[0]},
        emit=lambda tracklet, nanos: None,
        observe=lambda one, analysed: observed.append(one.camera),
    )
    thread.start()

    thread.add("b", Endless([frame(0, camera="b")]), make(networks, camera="b")[0])
    eventually(lambda: observed == ["b"], within_s=10, state=lambda: observed)
    removed = thread.remove("b").wait(10)
    thread.stop()
    thread.join(10)

    assert removed
    assert thread.fault is None
