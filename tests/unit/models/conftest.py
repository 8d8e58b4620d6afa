"""Tests of the models run on one thread: on shared cores two threads wait for each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models import checkpoints
from models.cli import app
from models.osnet import Architecture, OSNet

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of random weights as ONNX with its card; `last.pth` lies beside it.

    One for all tests, since torch's exporter takes seconds: copy it before changing anything.
    """
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(5)
    network = OSNet(Architecture(width=0.25, neck=True), classes=2)
    network.train()
    for _ in range(3):  # norms that have seen data keep the ranges of int8 sensible
        network.heads(torch.randn(8, 3, 64, 32))
    checkpoints.save(
        folder / "last.pth",
        network,
        trained_on=["drawn:train"],
        input={"height": 64, "width": 32},
    )
    target = folder / "small.onnx"
    result = CliRunner().invoke(app, ["export", str(folder / "last.pth"), str(target)])
    assert result.exit_code == 0, result.output
    return target
