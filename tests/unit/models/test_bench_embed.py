"""Does the comparison of runtimes refuse what it cannot load, before it renders anything?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import bench_embed


@pytest.mark.parametrize("contents", [None, {"input": [1]}, {"weights": torch.zeros(1)}])
def test_a_checkpoint_that_cannot_be_used_is_named(
    contents: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nope.pth"
    if contents is not None:
        torch.save(contents, path)

    code = bench_embed.main(["--checkpoint", str(path)])

    assert code == 2
    assert str(path) in capsys.readouterr().err
