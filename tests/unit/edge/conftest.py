"""Fixtures of the box's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import models_dir
from tests.unit.edge.model_box import Box


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """Folders in which no packaged weights are found beside the box's own models."""
    packaged = models_dir.packaged_dir
    monkeypatch.setattr(
        models_dir,
        "packaged_dir",
        lambda name="weights": None if name == "weights" else packaged(name),
    )
    return Box(tmp_path)
