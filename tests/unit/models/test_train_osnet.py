"""The training loop on a tiny set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from models import checkpoints
from models.data.errors import DataError
from models.osnet import Architecture
from models.recipe import Augment, Losses, Optimise, RecipeError, Stage
from models.train import Diverged, Run, learning_rate
from tests.unit.models.tiny_run import TINY


def test_rate_rises_then_falls_to_zero() -> None:
    how = Optimise(learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(step, 100, how) for step in range(100)]

    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0, abs=1e-3)
    assert rates[-1] < 0.01
    stepped = dataclasses.replace(how, schedule="steps", milestones=(0.5, 0.75))
    assert [learning_rate(s, 100, stepped) for s in (20, 60, 90)] == pytest.approx([1, 0.1, 0.01])


def test_training_resumes_bit_for_bit(packs: Path, tmp_path: Path) -> None:
    straight = Run(TINY, packs=packs, folder=tmp_path / "straight")
    while not straight.finished:
        straight.advance()

    stopped = Run(TINY, packs=packs, folder=tmp_path / "stopped")
    for _ in range(stopped.steps // 2 + 1):
        stopped.advance()
    stopped.save()
    resumed = Run(TINY, packs=packs, folder=tmp_path / "stopped")
    taken_up = resumed.step
    while not resumed.finished:
        resumed.advance()

    assert 0 < taken_up < straight.steps
    one, other = straight.averaged().state_dict(), resumed.averaged().state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    live, taken = straight.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(live[key], taken[key]) for key in live)


def test_a_run_learns_its_people_and_leaves_log_and_curve(packs: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        TINY,
        stages=(Stage(10, 32, 16),),
        architecture=Architecture(width=0.25, neck=True),
        augment=Augment(),
        losses=Losses(smoothing=0),
        optimise=dataclasses.replace(TINY.optimise, learning_rate=4e-3),
    )
    run = Run(recipe, packs=packs, folder=tmp_path)

    run.train(evaluate_every=5)

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert lines[-1]["classes"] < 0.7 * lines[0]["classes"]
    assert "map" in lines[-1]
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_a_run_stops_in_time_and_says_where(packs: Path, tmp_path: Path) -> None:
    run = Run(TINY, packs=packs, folder=tmp_path)

    run.train(stop_after_s=0)

    assert not run.finished
    assert checkpoints.read(tmp_path / "last.pth")["step"] == 0


def test_a_run_that_went_astray_ends_and_keeps_its_last_sound_checkpoint(
    packs: Path, tmp_path: Path
) -> None:
    wild = dataclasses.replace(
        TINY, optimise=Optimise(people=4, images=4, optimiser="sgd", learning_rate=100.0,
                                warmup_steps=0, ema=0)
    )  # fmt: skip
    wild = dataclasses.replace(wild, stages=(Stage(20, 32, 16),))
    run = Run(wild, packs=packs, folder=tmp_path)
    run.save()

    with pytest.raises(Diverged, match=r"went astray \(.*last\.pth is of a step before\)"):
        run.train()

    state = checkpoints.load(tmp_path / "last.pth").state_dict()
    assert all(value.isfinite().all() for value in state.values())


def test_weights_that_are_no_numbers_are_not_saved(packs: Path, tmp_path: Path) -> None:
    run = Run(TINY, packs=packs, folder=tmp_path)
    run.save()
    before = (tmp_path / "last.pth").read_bytes()
    next(iter(run._average.values())).fill_(float("inf"))

    with pytest.raises(Diverged, match="holds no numbers at step 0"):
        run.save()

    assert (tmp_path / "last.pth").read_bytes() == before


def test_a_log_whose_last_line_was_cut_is_taken_up(packs: Path, tmp_path: Path) -> None:
    whole = dataclasses.replace(TINY, data=dataclasses.replace(
        TINY.data, evaluate_query=(), evaluate_gallery=()))  # fmt: skip
    Run(whole, packs=packs, folder=tmp_path).train()
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text(lines[0] + "\n" + lines[1][:10])

    Run(whole, packs=packs, folder=tmp_path)

    assert log.read_text() == lines[0] + "\n"


def test_a_narrow_student_learns_from_a_wide_teacher(packs: Path, tmp_path: Path) -> None:
    wide = dataclasses.replace(TINY, architecture=Architecture(width=0.5, neck=True))
    Run(wide, packs=packs, folder=tmp_path / "teacher").save()
    recipe = dataclasses.replace(
        TINY,
        name="student",
        architecture=Architecture(width=0.25, neck=True),
        teacher="../teacher/last.pth",
        losses=Losses(distil_logits=1.0, distil_relations=1.0),
    )

    told = Run(recipe, packs=packs, folder=tmp_path / "student").advance()

    assert told["distil_logits"] > 0
    assert told["distil_relations"] > 0


def test_triplets_join_at_their_epoch(packs: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, losses=Losses(triplet_from_epoch=1))
    run = Run(recipe, packs=packs, folder=tmp_path)

    names = [set(run.advance()) for _ in range(run.steps)]

    half = run.steps // 2
    assert all("triplet" not in told for told in names[:half])
    assert all("triplet" in told for told in names[half:])


@pytest.mark.parametrize(
    "optimise",
    [
        Optimise(people=4, images=2, optimiser="sgd", learning_rate=0.01, ema=0),
        Optimise(people=4, images=2, precision="bfloat16"),
        Optimise(people=4, images=2, schedule="steps"),
    ],
    ids=["sgd", "bfloat16", "steps"],
)
def test_every_switch_trains(packs: Path, tmp_path: Path, optimise: Optimise) -> None:
    recipe = dataclasses.replace(TINY, optimise=optimise, losses=Losses(triplet=0))
    run = Run(recipe, packs=packs, folder=tmp_path)

    before = run.network.conv1.conv.weight.detach().clone()
    told = run.advance()

    assert "triplet" not in told
    assert all(torch.isfinite(torch.tensor(value)) for value in told.values())
    assert not torch.equal(before, run.network.conv1.conv.weight)


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--device nonsense cannot be used"):
        Run(TINY, packs=tmp_path / "nowhere", folder=tmp_path, device="nonsense")


def test_epochs_that_are_done_again_stand_in_the_log_once(packs: Path, tmp_path: Path) -> None:
    run = Run(TINY, packs=packs, folder=tmp_path)
    run.save()
    before = (tmp_path / "last.pth").read_bytes()
    run.train()
    (tmp_path / "last.pth").write_bytes(before)  # as after a crash before the next save

    Run(TINY, packs=packs, folder=tmp_path).train()

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]


@pytest.mark.parametrize(
    ("query", "named"),
    [("market1501:train", "nobody of evaluate_query"), ("cuhk03:query", "cuhk03:query")],
    ids=["nobody of it is in the gallery", "no pack holds it"],
)
def test_a_set_that_cannot_be_measured_on_is_refused_before_the_first_step(
    query: str, named: str, packs: Path, tmp_path: Path
) -> None:
    data = dataclasses.replace(TINY.data, evaluate_query=(query,))

    with pytest.raises(DataError, match=named):
        Run(dataclasses.replace(TINY, data=data), packs=packs, folder=tmp_path)
