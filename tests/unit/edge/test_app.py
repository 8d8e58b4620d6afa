"""What is watched where no public sample clip can be had."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

import edge.sources.sample
from edge import app
from edge.config import Config


def test_the_rendered_street_takes_the_place_of_a_clip_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(edge.sources.sample, "fetch_sample", lambda folder, progress: None)
    monkeypatch.setattr(app, "_STREET_FRAMES", 3)

    sources = app.sources_of(Config(data_dir=tmp_path / "data"), sample=True)

    assert [source.name for source in sources] == ["street-1", "street-2"]
    assert sources[0].start_time == sources[1].start_time is not None
    for source in sources:
        with av.open(source.url) as clip:
            assert sum(1 for _ in clip.decode(video=0)) == 3
