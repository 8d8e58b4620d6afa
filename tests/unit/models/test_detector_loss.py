"""Do the right cells answer for the right people, and is the loss sane at its borders?"""

from __future__ import annotations

import torch
from torch import Tensor

from models.detector import boxes_of, cells
from models.detector_augment import IGNORE, NOTHING, PERSON
from models.detector_loss import assign, iou_and_giou, label_loss, teacher_loss

GRID = cells(128, 128)


def rows_predicting(box: list[float], logit: float) -> Tensor:
    """Every cell predicts the same box with the same score."""
    target = torch.tensor(box)
    distances = torch.cat([GRID[:, :2] - target[:2], target[2:] - GRID[:, :2]], 1)
    logs = (distances / GRID[:, 2:3]).clamp(min=1e-2).log()
    return torch.cat([torch.full((len(GRID), 1), logit), logs], 1)[None]


def labels(*rows: list[float]) -> Tensor:
    return torch.tensor([list(rows)], dtype=torch.float32)


def test_cells_inside_the_person_answer_and_no_other() -> None:
    rows = rows_predicting([32, 16, 64, 112], 0.0)

    targets = assign(
        rows[..., 0],
        boxes_of(rows[..., 1:], GRID),
        labels([32, 16, 64, 112]),
        torch.tensor([[PERSON]]),
        GRID,
    )

    chosen = targets.score[0] > 0
    x, y = GRID[chosen, 0], GRID[chosen, 1]
    assert 0 < int(chosen.sum()) <= 10
    assert bool(((x > 32) & (x < 64) & (y > 16) & (y < 112)).all())


def test_a_person_smaller_than_a_cell_still_gets_a_cell() -> None:
    rows = torch.zeros(1, len(GRID), 5)

    targets = assign(
        rows[..., 0],
        boxes_of(rows[..., 1:], GRID),
        labels([61, 58, 63, 63]),
        torch.tensor([[PERSON]]),
        GRID,
    )

    assert int((targets.score > 0).sum()) > 0


def test_a_cell_shared_by_two_people_answers_for_the_one_it_overlaps_more() -> None:
    rows = rows_predicting([32, 16, 64, 112], 0.0)

    targets = assign(
        rows[..., 0],
        boxes_of(rows[..., 1:], GRID),
        labels([32, 16, 64, 112], [40, 16, 90, 112]),
        torch.tensor([[PERSON, PERSON]]),
        GRID,
    )

    strongest = int(targets.score[0].argmax())
    assert targets.boxes[0, strongest].tolist() == [32, 16, 64, 112]


def test_regions_to_ignore_cost_nothing_and_background_does() -> None:
    shouting = torch.zeros(1, len(GRID), 5)
    shouting[..., 0] = 5.0
    everywhere = labels([0, 0, 128, 128])

    ignored, _ = label_loss(shouting, everywhere, torch.tensor([[IGNORE]]), GRID)
    counted, _ = label_loss(shouting, everywhere, torch.tensor([[NOTHING]]), GRID)

    assert float(ignored) == 0.0
    assert float(counted) > 100.0


def test_a_picture_without_people_gives_a_finite_loss_and_gradient() -> None:
    rows = torch.zeros(1, len(GRID), 5, requires_grad=True)

    score, box = label_loss(rows, torch.zeros(1, 1, 4), torch.tensor([[NOTHING]]), GRID)
    (score + box).backward()

    assert float(box.detach()) == 0.0
    assert rows.grad is not None
    assert bool(torch.isfinite(rows.grad).all())


def test_the_teachers_own_answer_costs_no_box_and_the_least_score() -> None:
    rows = rows_predicting([32, 16, 64, 112], 0.0)
    boxes = boxes_of(rows[..., 1:], GRID)
    scores = torch.zeros(1, len(GRID))
    scores[0, 5] = 1.0
    sure = rows.clone()
    sure[..., 0] = torch.where(scores > 0, 12.0, -12.0)

    agreeing = teacher_loss(sure, scores, boxes, GRID)
    elsewhere = teacher_loss(sure, scores, boxes + 40.0, GRID)

    assert float(agreeing) < 0.05
    assert float(elsewhere) > 1.0


def test_generalised_iou_of_separate_boxes_is_negative() -> None:
    iou, giou = iou_and_giou(
        torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([30.0, 0.0, 40.0, 10.0])
    )

    assert float(iou) == 0.0
    assert abs(float(giou) - (200 / 400 - 1)) < 1e-5
