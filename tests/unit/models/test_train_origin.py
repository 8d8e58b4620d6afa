"""Is a checkpoint taken up by its own run alone, and does it name whom its weights have seen?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from models import checkpoints
from models.osnet import Architecture, OSNet
from models.recipe import DataPart, Losses, RecipeError, Stage
from models.train import Run
from tests.unit.models.tiny_run import TINY


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
