"""The training loop on a tiny set."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from models import checkpoints
from models.cli import app
from models.data.errors import DataError
from models.data.pack import write_pack
from models.data.readers import open_dataset
from models.osnet import Architecture, OSNet
from models.recipe import (
    Augment,
    DataPart,
    Losses,
    Optimise,
    Recipe,
    RecipeError,
    Stage,
)
from models.train import Diverged, Run, learning_rate
from tests.unit.models.drawn_people import market


def _packed(folder: Path, shots: int) -> Path:
    """A folder with tiny.npz: six drawn people to train on, three to judge by."""
    dataset = open_dataset("market1501", market(folder / "set", train=6, test=3, shots=shots))
    parts = ["train", "query", "gallery"]
    write_pack(dataset, parts, folder / "tiny.npz", size=(32, 16), quality=90)
    return folder


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _packed(tmp_path_factory.mktemp("packs"), shots=4)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many other people of a set of the same name."""
    return _packed(tmp_path_factory.mktemp("others"), shots=5)


TINY = Recipe(
    kind="osnet",
    name="tiny",
    data=DataPart(
        packs=("tiny.npz",),
        sources=("market1501:train",),
        evaluate_query=("market1501:query",),
        evaluate_gallery=("market1501:gallery",),
    ),
    stages=(Stage(1, 32, 16), Stage(1, 48, 24)),
    architecture=Architecture(width=0.25, normalisation="ain", neck=True),
    augment=Augment(erase=0.5, jitter=0.3, hue_deg=10, grey=0.2, blur=0.5, rotate_deg=5),
    optimise=Optimise(people=4, images=4, warmup_steps=2, learning_rate=1e-3),
)


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


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"name": "other"}, "name"),
        ({"seed": 2}, "seed"),
        ({"stages": (Stage(1, 32, 16), Stage(1, 64, 32))}, "stages"),
        ({"optimise": dataclasses.replace(TINY.optimise, optimiser="sgd")}, "optimise.optimiser"),
    ],
)
def test_another_recipes_checkpoint_is_not_taken_up(
    changed: dict[str, Any], named: str, packs: Path, tmp_path: Path
) -> None:
    Run(TINY, packs=packs, folder=tmp_path).save()

    with pytest.raises(RecipeError, match=rf"is of another run: {named} .*take another --out"):
        Run(dataclasses.replace(TINY, **changed), packs=packs, folder=tmp_path)


def test_a_checkpoint_of_other_people_is_not_taken_up(
    packs: Path, others: Path, tmp_path: Path
) -> None:
    Run(TINY, packs=packs, folder=tmp_path).save()

    with pytest.raises(RecipeError, match=r"is of another run: data\.packs differ"):
        Run(TINY, packs=others, folder=tmp_path)


def test_a_checkpoint_whose_teacher_was_left_out_is_not_taken_up(
    packs: Path, tmp_path: Path
) -> None:
    Run(TINY, packs=packs, folder=tmp_path / "teacher").save()
    taught = dataclasses.replace(
        TINY, teacher="../teacher/last.pth", losses=Losses(distil_relations=1.0)
    )
    Run(taught, packs=packs, folder=tmp_path / "student").save()

    with pytest.raises(RecipeError, match="teacher differ"):
        Run(dataclasses.replace(taught, teacher="", losses=TINY.losses),
            packs=packs, folder=tmp_path / "student")  # fmt: skip


def test_what_is_measured_may_change_when_a_run_goes_on(packs: Path, tmp_path: Path) -> None:
    Run(TINY, packs=packs, folder=tmp_path).save()
    data = dataclasses.replace(TINY.data, evaluate_query=(), evaluate_gallery=())

    assert Run(dataclasses.replace(TINY, data=data), packs=packs, folder=tmp_path).step == 0


def test_a_checkpoint_that_does_not_say_of_which_run_it_is_is_not_taken_up(
    packs: Path, tmp_path: Path
) -> None:
    network = OSNet(TINY.architecture, classes=6)
    checkpoints.save(tmp_path / "last.pth", network, name="tiny", step=0, steps=4)

    with pytest.raises(RecipeError, match="does not say of which run it is"):
        Run(TINY, packs=packs, folder=tmp_path)


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


def test_queries_that_nobody_in_the_gallery_answers_are_refused_before_the_first_step(
    packs: Path, tmp_path: Path
) -> None:
    data = dataclasses.replace(TINY.data, evaluate_query=("market1501:train",))

    with pytest.raises(DataError, match="nobody of evaluate_query"):
        Run(dataclasses.replace(TINY, data=data), packs=packs, folder=tmp_path)


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


def test_a_teacher_of_other_people_is_refused(packs: Path, tmp_path: Path) -> None:
    data = dataclasses.replace(TINY.data, sources=("market1501:train", "market1501:gallery"))
    Run(dataclasses.replace(TINY, data=data), packs=packs, folder=tmp_path / "teacher").save()
    recipe = dataclasses.replace(
        TINY, name="s", teacher="../teacher/last.pth", losses=Losses(distil_logits=1.0)
    )

    with pytest.raises(RecipeError, match="knows other people"):
        Run(recipe, packs=packs, folder=tmp_path / "student")


def test_a_teacher_of_as_many_other_people_is_refused(
    packs: Path, others: Path, tmp_path: Path
) -> None:
    Run(TINY, packs=others, folder=tmp_path / "teacher").save()
    recipe = dataclasses.replace(
        TINY, name="s", teacher="../teacher/last.pth", losses=Losses(distil_logits=1.0)
    )

    with pytest.raises(RecipeError, match="knows other people"):
        Run(recipe, packs=packs, folder=tmp_path / "student")


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


def test_weights_hand_on_what_they_were_trained_on(packs: Path, tmp_path: Path) -> None:
    few = dataclasses.replace(TINY, optimise=dataclasses.replace(TINY.optimise, people=2))
    for name, sources in (
        ("first", ("market1501:gallery",)),
        ("teacher", ("market1501:query", "market1501:gallery")),
    ):
        data = dataclasses.replace(TINY.data, sources=sources)
        Run(dataclasses.replace(few, data=data), packs=packs, folder=tmp_path / name).save()
    recipe = dataclasses.replace(
        few,
        init="../first/last.pth",
        teacher="../teacher/last.pth",
        losses=Losses(distil_relations=1.0),
    )

    Run(recipe, packs=packs, folder=tmp_path / "second").save()

    assert checkpoints.read(tmp_path / "second" / "last.pth")["trained_on"] == [
        "market1501:train",
        "market1501:gallery",
        "market1501:query",
    ]


def test_a_set_that_came_in_two_packs_is_named_once(packs: Path, tmp_path: Path) -> None:
    for name in ("one.npz", "other.npz"):
        (tmp_path / name).write_bytes((packs / "tiny.npz").read_bytes())
    data = DataPart(packs=("one.npz", "other.npz"))

    run = Run(dataclasses.replace(TINY, data=data), packs=tmp_path, folder=tmp_path / "run")
    run.save()

    assert run.classes == 2 * (6 + 3)  # people of two packs are never the same
    assert checkpoints.read(tmp_path / "run" / "last.pth")["trained_on"] == [
        "market1501:train",
        "market1501:query",
        "market1501:gallery",
    ]


def test_a_start_that_does_not_say_whom_it_saw_is_named(packs: Path, tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "bare.pth", OSNet(TINY.architecture))

    Run(dataclasses.replace(TINY, init="../bare.pth"), packs=packs, folder=tmp_path / "run").save()

    assert checkpoints.read(tmp_path / "run" / "last.pth")["trained_on"] == [
        "market1501:train",
        "bare.pth: people not known",
    ]


def test_a_start_of_another_architecture_is_refused_with_its_key(
    packs: Path, tmp_path: Path
) -> None:
    checkpoints.save(tmp_path / "plain.pth", OSNet(Architecture(width=0.25)))
    recipe = dataclasses.replace(TINY, init="../plain.pth")

    with pytest.raises(checkpoints.CheckpointError, match=r"plain\.pth lacks"):
        Run(recipe, packs=packs, folder=tmp_path / "run")


def test_an_unknown_set_to_measure_on_is_refused_before_the_first_step(
    packs: Path, tmp_path: Path
) -> None:
    data = dataclasses.replace(TINY.data, evaluate_query=("cuhk03:query",))

    with pytest.raises(DataError, match="cuhk03:query"):
        Run(dataclasses.replace(TINY, data=data), packs=packs, folder=tmp_path)


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
