"""The rendered street: the same on every call, and its truth is what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.sources.scene import SceneError, SceneParams, SynthScene, write_truth, write_video

SMALL = SceneParams(people=6, width=384, height=288, seed=3)


@pytest.fixture(scope="module")
def scene() -> SynthScene:
    return SynthScene(SMALL)


def test_a_frame_is_the_same_in_any_order_and_in_another_scene(scene: SynthScene) -> None:
    first = scene.frame(1, 40)
    scene.frame(2, 7)
    scene.frame(1, 3)

    again = scene.frame(1, 40)
    elsewhere = SynthScene(SMALL).frame(1, 40)

    assert np.array_equal(first, again)
    assert np.array_equal(first, elsewhere)


def test_truth_does_not_depend_on_which_frames_were_drawn(scene: SynthScene) -> None:
    before = scene.truth(2, 33)
    scene.frame(2, 90)

    assert scene.truth(2, 33) == before
    assert SynthScene(SMALL).truth(2, 33) == before


def test_another_seed_is_another_street() -> None:
    one = SynthScene(SceneParams(people=0, width=192, height=144, seed=1)).frame(1, 0)
    other = SynthScene(SceneParams(people=0, width=192, height=144, seed=2)).frame(1, 0)

    assert np.abs(one.astype(int) - other).mean() > 10


def test_boxes_hold_the_pixels_that_a_person_changes() -> None:
    def street(people: int) -> SynthScene:
        return SynthScene(
            SceneParams(people=people, width=384, height=288, seed=5, light="overcast")
        )

    alone, empty = street(1), street(0)
    overlaps = []
    for index in range(0, 3000, 50):
        truth = alone.truth(1, index)
        if not truth or truth[0].visible < 0.95:
            continue
        # both frames have the same noise; under a grey sky a shadow changes little
        change = np.abs(alone.frame(1, index).astype(int) - empty.frame(1, index)).max(axis=2)
        rows, columns = np.nonzero(change > 18)
        drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        box = np.array(truth[0].clipped(384, 288))
        assert (drawn[:2] >= box[:2] - 5).all()
        assert (drawn[2:] <= box[2:] + 5).all()
        sides = np.minimum(box[2:], drawn[2:]) - np.maximum(box[:2], drawn[:2])
        both = float(np.prod(np.clip(sides, 0, None)))
        either = float(np.prod(box[2:] - box[:2]) + np.prod(drawn[2:] - drawn[:2])) - both
        overlaps.append(both / either)

    assert len(overlaps) >= 5
    assert np.median(overlaps) > 0.8  # clothes as grey as the street leave some frames lower


def test_people_hidden_by_others_and_furniture_are_less_visible(scene: SynthScene) -> None:
    shares = [one.visible for k in range(0, 2000, 50) for one in scene.truth(1, k)]

    assert min(shares) < 0.2
    assert max(shares) == pytest.approx(1.0, abs=0.02)
    assert all(0.0 <= share <= 1.0 for share in shares)


def test_a_person_is_seen_by_both_cameras() -> None:
    scene = SynthScene(SceneParams(people=8, seed=1, width=384, height=288))
    seen = [
        {
            one.person
            for index in range(0, 3000, 100)
            for one in scene.truth(camera, index)
            if one.visible > 0.6
        }
        for camera in (1, 2)
    ]

    assert len(seen[0] & seen[1]) >= 6


@pytest.mark.parametrize("seed", [1, 2])
def test_most_people_in_view_are_60_to_250_pixels_high(seed: int) -> None:
    scene = SynthScene(SceneParams(people=8, seed=seed, width=384, height=288))
    heights = [
        2 * (one.box[3] - one.box[1])  # the range is meant at a width of 768
        for camera in (1, 2)
        for index in range(0, 3000, 100)
        for one in scene.truth(camera, index)
        if one.visible > 0.9
    ]

    fitting = [60 <= height <= 250 for height in heights]

    assert len(heights) > 50
    assert np.mean(fitting) > 0.97


def test_the_light_changes_with_time() -> None:
    scene = SynthScene(SceneParams(people=0, width=192, height=144))

    means = [float(scene.frame(1, index).mean()) for index in range(0, 1500, 100)]

    assert max(means) / min(means) > 1.1


def test_night_is_darker_and_infrared_has_no_colour() -> None:
    def spread(light: str) -> tuple[float, float]:
        params = SceneParams(people=0, width=192, height=144, light=light)
        frame = SynthScene(params).frame(1, 0).astype(float)
        smooth = frame.reshape(18, 8, 24, 8, 3).mean(axis=(1, 3))  # noise averages out
        return float(frame.mean()), float(np.ptp(smooth, axis=2).max())

    assert spread("night")[0] < 0.6 * spread("day")[0]
    assert spread("grey")[1] < 10 < spread("day")[1]


def test_truth_is_written_as_motchallenge(scene: SynthScene, tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"

    write_truth(path, scene, 1, 12)

    rows = [line.split(",") for line in path.read_text().splitlines()]
    expected = [(k + 1, one) for k in range(12) for one in scene.truth(1, k)]
    assert len(rows) == len(expected) > 0
    for row, (frame, one) in zip(rows, expected, strict=True):
        assert (int(row[0]), int(row[1]), row[7]) == (frame, one.person, "1")
        assert float(row[2]) == pytest.approx(one.box[0], abs=0.01)
        assert float(row[5]) == pytest.approx(one.box[3] - one.box[1], abs=0.011)
        assert float(row[8]) == pytest.approx(one.visible, abs=0.001)


def test_a_video_holds_the_frames(scene: SynthScene, tmp_path: Path) -> None:
    import av

    path = tmp_path / "street.mp4"

    write_video(path, scene, 1, 20)

    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        rate = stream.average_rate
        pictures = [one.to_ndarray(format="bgr24") for one in film.decode(stream)]
    assert rate == 15
    assert len(pictures) == 20
    for index in (0, 19):
        assert np.abs(pictures[index].astype(int) - scene.frame(1, index)).mean() < 6


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("synth://street?people=-1", "people=-1"),
        ("synth://street?cameras=2&camera=3", "camera=3"),
        ("synth://street?colour=red", "known keys are cameras"),
        ("synth://street?seed=one", "it is a number"),
        ("synth://street?seed=1&seed=2", "given twice"),
        ("synth://street?light=noon", "one of day"),
        ("synth://street?view=top", "one of wall"),
        ("synth://street?pace=2", "1 (real time) or 0"),
        ("synth://harbour", "synth://street"),
    ],
)
def test_wrong_parameters_are_refused_with_their_name(url: str, names: str) -> None:
    with pytest.raises(SceneError) as caught:
        SceneParams.parse(url)

    assert names in str(caught.value)


def test_cameras_and_frames_that_do_not_exist_are_refused(scene: SynthScene) -> None:
    with pytest.raises(SceneError, match=r"cameras 1\.\.2"):
        scene.frame(3, 0)
    with pytest.raises(SceneError, match="count from 0"):
        scene.truth(1, -1)


def test_the_town_repeats_so_that_memory_is_bounded(scene: SynthScene) -> None:
    first, later = scene.truth(1, 5), scene.truth(1, 5 + 1200 * 15)

    assert [one.person for one in first] == [one.person for one in later]
    for one, other in zip(first, later, strict=True):
        assert one.box == pytest.approx(other.box, abs=1e-6)


def test_views_differ_in_how_far_the_cameras_look_down() -> None:
    def slimness(view: str) -> float:
        scene = SynthScene(SceneParams(people=20, width=384, height=288, seed=4, view=view))
        boxes = [one.box for index in range(0, 3000, 250) for one in scene.truth(1, index)]
        return float(np.median([(y2 - y1) / (x2 - x1) for x1, y1, x2, y2 in boxes]))

    assert slimness("low") > slimness("steep") * 1.1  # seen from above people are shorter
