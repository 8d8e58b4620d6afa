"""Are the detector's figures what their definitions say?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.detector_metrics import average_precision

NOBODY = np.zeros((0, 4), np.float32)
ANN, BEN = [10.0, 10.0, 30.0, 60.0], [100.0, 10.0, 140.0, 130.0]


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_finding_everybody_and_nothing_else_is_perfect() -> None:
    quality = average_precision([(boxes(ANN, BEN), scores(0.9, 0.8))], [(boxes(ANN, BEN), NOBODY)])

    assert (quality.ap50, quality.recall, quality.people) == (1.0, 1.0, 2)
    assert quality.threshold == pytest.approx(0.8)


def test_a_second_box_on_the_same_person_is_a_mistake() -> None:
    quality = average_precision([(boxes(ANN, ANN), scores(0.9, 0.8))], [(boxes(ANN, BEN), NOBODY)])

    assert quality.recall == 0.5
    assert quality.ap50 == pytest.approx(51 / 101)  # recalls 0, 0.01 … 0.5 at precision 1


def test_what_lies_in_a_region_to_ignore_counts_neither_way() -> None:
    quality = average_precision([(boxes(BEN, ANN), scores(0.9, 0.8))], [(boxes(ANN), boxes(BEN))])

    assert (quality.ap50, quality.recall) == (1.0, 1.0)


def test_recall_is_taken_where_precision_is_still_nine_tenths() -> None:
    # nine hits, then a mistake (9 of 10: still 0.9), then a second one, then the last hit
    people = boxes(*([[100.0 * i, 0, 100.0 * i + 40, 100] for i in range(10)]))
    wrong = boxes([0, 500, 40, 600], [100, 500, 140, 600])
    found = np.concatenate([people[:9], wrong, people[9:]])
    confidence = np.linspace(0.9, 0.1, 12).astype(np.float32)

    quality = average_precision([(found, confidence)], [(people, NOBODY)])

    assert quality.recall == pytest.approx(0.9)
    assert quality.threshold == pytest.approx(confidence[9])


def test_a_band_of_heights_counts_only_its_own_people_and_mistakes() -> None:
    wrong_small = [200.0, 10.0, 210.0, 30.0]
    found = [(boxes(ANN, wrong_small), scores(0.9, 0.95))]
    truth = [(boxes(ANN, BEN), NOBODY)]

    middle = average_precision(found, truth, heights=(32, 96))
    large = average_precision(found, truth, heights=(96, np.inf))
    small = average_precision(found, truth, heights=(0, 32))

    assert (middle.ap50, middle.people) == (1.0, 1)
    assert (large.ap50, large.recall, large.people) == (0.0, 0.0, 1)
    assert (small.people, math.isnan(small.ap50)) == (0, True)


def test_the_stronger_detection_gets_the_person_and_the_overlap_decides_whom() -> None:
    near_ann = [12.0, 10.0, 32.0, 60.0]
    quality = average_precision([(boxes(near_ann, ANN), scores(0.9, 0.8))], [(boxes(ANN), NOBODY)])

    assert quality.recall == 1.0
    assert quality.threshold == pytest.approx(0.9)
