"""`edge-models train` from the command line: pack, train, judge, stop, go astray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models import checkpoints
from models.cli import app
from tests.unit.models.drawn_people import market


def test_a_set_is_packed_trained_and_judged_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packs = tmp_path / ".pack" / "osnet"
    packs.mkdir(parents=True)
    data = market(tmp_path / "set", train=4, test=2, shots=2)
    recipe = tmp_path / "drawn.toml"
    recipe.write_text(
        'kind = "osnet"\nname = "drawn"\nstages = [{ epochs = 1, height = 32, width = 16 }]\n'
        '[data]\npacks = ["drawn.npz"]\n[architecture]\nwidth = 0.25\n'
        "[optimise]\npeople = 2\nimages = 2\n"
    )
    weights = tmp_path / "out" / "drawn" / "last.pth"
    judged = ["--data", str(data), "--protocol", "market1501"]
    calls = [
        ["pack", *judged, "--height", "32", str(packs / "drawn.npz")],
        ["train", "--config", str(recipe)],
        ["evaluate", str(weights), *judged, "--json"],
    ]

    results = [CliRunner().invoke(app, call) for call in calls]

    assert [result.exit_code for result in results] == [0, 0, 0], results[-1].output
    assert "done; weights in" in " ".join(results[1].output.split())
    assert json.loads(results[2].stdout.splitlines()[-1])["queries"] == 4
    assert checkpoints.read(weights)["trained_on"] == ["market1501:train"]


ENDLESS = """
kind = "osnet"
name = "endless"
stages = [{ epochs = 100000, height = 32, width = 16 }]
[data]
packs = ["tiny.npz"]
sources = ["market1501:train"]
[architecture]
width = 0.25
[optimise]
people = 4
images = 4
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_saves_first_and_says_that_it_goes_on(
    packs: Path, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = tmp_path / "endless.toml"
    recipe.write_text(ENDLESS)
    call = ["train", "--config", str(recipe), "--packs", str(packs), "--out", str(tmp_path / "run")]
    command = [sys.executable, "-c", "from models.cli import main; main()", *call]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        said = ""
        while "1/" not in said:  # the first step is done
            said += run.stderr.read(1)
        run.send_signal(number)
        said += run.communicate(timeout=60)[1]

    assert run.returncode == 130
    assert said.rstrip().endswith("stopped as asked; the same call goes on")
    assert int(torch.load(tmp_path / "run" / "last.pth", weights_only=False)["step"]) >= 1


def test_the_command_says_that_a_run_went_astray(packs: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "wild.toml"
    recipe.write_text(
        ENDLESS + 'optimiser = "sgd"\nlearning_rate = 100.0\nwarmup_steps = 0\nema = 0.0\n'
    )

    result = CliRunner().invoke(
        app, ["train", "--config", str(recipe), "--packs", str(packs), "--out", str(tmp_path / "r")]
    )

    assert result.exit_code == 3
    assert "the run went astray (nothing was saved); lower optimise.learning_rate" in " ".join(
        result.output.split()
    )
