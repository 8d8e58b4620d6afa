"""Is the mean of two checkpoints their mean, and does it say whom both have seen?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer

from models import checkpoints
from models.average import average, main
from models.osnet import Architecture, OSNet

SMALL = Architecture(width=0.25)


def _saved(path: Path, seed: int, source: str, architecture: Architecture = SMALL) -> OSNet:
    torch.manual_seed(seed)
    network = OSNet(architecture)
    checkpoints.save(path, network, name="net", trained_on=[source], input={"height": 64})
    return network


def test_every_weight_lies_in_the_middle_and_both_sets_are_named(tmp_path: Path) -> None:
    before = _saved(tmp_path / "before.pth", 1, "market1501:train")
    after = _saved(tmp_path / "after.pth", 2, "rendered:train")

    average(tmp_path / "before.pth", tmp_path / "after.pth", tmp_path / "out.pth")

    found = checkpoints.load(tmp_path / "out.pth").state_dict()
    for name, value in after.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(found[name], (before.state_dict()[name] + value) / 2)
    contents = checkpoints.read(tmp_path / "out.pth")
    assert contents["trained_on"] == ["market1501:train", "rendered:train"]
    assert contents["input"] == {"height": 64}


def test_different_networks_have_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _saved(tmp_path / "before.pth", 1, "a:train")
    _saved(tmp_path / "after.pth", 2, "a:train", Architecture(width=0.5))

    with pytest.raises(typer.Exit) as ended:
        main(tmp_path / "before.pth", tmp_path / "after.pth", tmp_path / "out.pth")

    assert ended.value.exit_code == 2
    assert "different networks" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()
