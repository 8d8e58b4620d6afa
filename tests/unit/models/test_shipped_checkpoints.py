"""The committed OSNet checkpoints, from which recipes and adaptation start, say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import checkpoints

FOLDER = Path(__file__).resolve().parents[3] / "models" / "weights" / "checkpoints"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("osnet*.pth")), ids=lambda path: path.stem)
def test_a_committed_checkpoint_names_its_training_people_and_its_input(path: Path) -> None:
    contents = checkpoints.read(path)

    assert contents["trained_on"], "without it, evaluate would judge people it was trained on"
    assert (contents["input"]["height"], contents["input"]["width"]) in (
        (128, 64),
        (192, 96),
        (256, 128),
    )
    assert path.stat().st_size < 3_000_000
