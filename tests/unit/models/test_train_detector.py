"""Does a run end, resume and refuse as promised?"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from edge.config import DetectConfig, RuntimeConfig
from edge.detect.detector import open_detector
from edge.models_dir import model_at
from models.checkpoints import CheckpointError
from models.cli import app
from models.detector_data import write_coco, write_cutouts
from models.detector_export import ExportError
from models.detector_export import export_detector as export
from models.detector_recipe import Recipe, RecipeError, read_recipe
from models.detector_teacher import TeacherError, YoloxTeacher, suppress
from models.train_detector import load_detector, run
from reid.card import read_card
from tests.conftest import ROOT
from tests.unit.models.detector_pictures import boxed_picture

RECIPES = ROOT / "models" / "recipes"


def small_recipe(folder: Path, **changes: object) -> Path:
    """The shipped recipe with samples of 64 pixels."""
    text = (RECIPES / "detector.toml").read_text()
    for side, batch in ((256, 12), (416, 8)):
        text = text.replace(f"side = {side}\nbatch = {batch}", "side = 64\nbatch = 2")
    text = text.replace("validate_pictures = 160", "validate_pictures = 2")
    for key, value in changes.items():
        lines = [f"{key} = {value}" if x.startswith(f"{key} =") else x for x in text.splitlines()]
        text = "\n".join(lines)
    path = folder / "small.toml"
    path.write_text(text)
    return path


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    for name in ("train", "held_out"):
        write_coco(folder / f"{name}.tar", [boxed_picture(), boxed_picture((20, 20, 60, 150))])
    write_cutouts(folder / "people.tar", [np.full((128, 64, 4), 200, np.uint8)])
    return folder


def tiny_teacher(path: Path, *, channels: int = 6) -> Path:
    """A raw YOLOX layout: each stride one convolution that says xy 0.5, wh 0, sure of a person."""
    bias = np.array([0.5, 0.5, 0.0, 0.0, 1.0, 1.0][:channels], np.float32)
    nodes, weights, parts = [], [], []
    shape = numpy_helper.from_array(np.array([1, channels, -1], np.int64), "flat")
    for stride in (8, 16, 32):
        zeros = np.zeros((channels, 3, stride, stride), np.float32)
        weights += [
            numpy_helper.from_array(zeros, f"w{stride}"),
            numpy_helper.from_array(bias, f"b{stride}"),
        ]
        nodes += [
            helper.make_node(
                "Conv",
                ["images", f"w{stride}", f"b{stride}"],
                [f"c{stride}"],
                strides=[stride, stride],
                kernel_shape=[stride, stride],
            ),
            helper.make_node("Reshape", [f"c{stride}", "flat"], [f"r{stride}"]),
        ]
        parts.append(f"r{stride}")
    nodes += [
        helper.make_node("Concat", parts, ["all"], axis=2),
        helper.make_node("Transpose", ["all"], ["output"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 416, 416])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3549, channels])],
        [shape, *weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def entries(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_by_steps_ends_there_with_weights_log_and_curves(tmp_path: Path, pack: Path) -> None:
    out = tmp_path / "out"

    done = run(small_recipe(tmp_path), pack=pack, out=out, steps=3, progress=False)

    last = entries(out)[-1]
    assert (last["share"], last["samples"]) == (1.0, 6)
    assert (out / "curves.png").stat().st_size > 0
    assert load_detector(done)(torch.zeros(1, 3, 64, 64))[0].shape == (1, 84, 5)


def test_a_run_by_seconds_runs_its_schedule_out(tmp_path: Path, pack: Path) -> None:
    out = tmp_path / "out"

    run(small_recipe(tmp_path), pack=pack, out=out, seconds=1.0, progress=False)

    last = entries(out)[-1]
    recipe = read_recipe(tmp_path / "small.toml")
    assert last["share"] == 1.0
    assert last["rate"] == recipe.rate(1.0)


@pytest.mark.parametrize("how", ["by the clock", "when told"])
def test_a_stopped_run_goes_on_with_the_next_sample_and_ends_as_planned(
    tmp_path: Path, pack: Path, how: str
) -> None:
    out, recipe = tmp_path / "out", small_recipe(tmp_path)
    told = threading.Event()
    late = None
    if how == "when told":
        told.set()
    else:
        late = 0.0

    run(recipe, pack=pack, out=out, steps=4, stop_after_s=late, told_to_stop=told, progress=False)
    first = torch.load(out / "last.pt", weights_only=True)["state"]
    run(recipe, pack=pack, out=out, steps=4, resume=True, progress=False)
    second = torch.load(out / "last.pt", weights_only=True)["state"]

    assert (first["share"], first["samples"]) == (0.25, 2)
    assert (second["share"], second["samples"]) == (1.0, 8)


def test_the_same_seed_and_steps_give_the_same_weights(tmp_path: Path, pack: Path) -> None:
    recipe = small_recipe(tmp_path)

    paths = [
        run(recipe, pack=pack, out=tmp_path / name, steps=2, progress=False) for name in ("a", "b")
    ]

    one, other = (load_detector(path).state_dict() for path in paths)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_muon_moves_the_hidden_convolutions_and_adamw_the_rest(tmp_path: Path, pack: Path) -> None:
    out = tmp_path / "out"

    run(small_recipe(tmp_path, optimiser='"muon"'), pack=pack, out=out, steps=2, progress=False)

    saved = torch.load(out / "last.pt", weights_only=True)
    muon, adamw = (len(x["state"]) for x in saved["optimisers"])
    hidden = [
        name
        for name, value in saved["weights"].items()
        if value.ndim == 4 and value.shape[1] > 3 and ".answer" not in name and ".imit" not in name
    ]
    parameters = sum(1 for _ in load_detector(out / "detector.pt").parameters())
    untaught = 3 * 2  # without a teacher nothing pulls the imitating answers
    assert muon == len(hidden) > 40
    assert adamw == parameters - len(hidden) - untaught


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_that_was_cut_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, pack: Path, optimiser: str
) -> None:
    recipe = small_recipe(tmp_path, optimiser=f'"{optimiser}"')
    whole, halves = tmp_path / "whole", tmp_path / "halves"

    run(recipe, pack=pack, out=whole, steps=3, progress=False)
    run(recipe, pack=pack, out=halves, steps=3, stop_after_s=0.0, progress=False)
    run(recipe, pack=pack, out=halves, steps=3, resume=True, progress=False)

    one, other = (load_detector(x / "detector.pt").state_dict() for x in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_that_a_research_recipe_began_are_never_exported_as_open(
    tmp_path: Path, pack: Path
) -> None:
    research, after, alone = (tmp_path / name for name in ("research", "after", "alone"))
    begun = run(small_recipe(tmp_path), pack=pack, out=research, steps=1, progress=False)
    recipe = small_recipe(tmp_path, name='"detector_person_open"')
    run(
        recipe,
        pack=pack,
        out=after,
        steps=2,
        stop_after_s=0.0,
        start_from=begun,
        progress=False,
    )
    run(recipe, pack=pack, out=after, steps=2, resume=True, progress=False)
    run(recipe, pack=pack, out=alone, steps=1, progress=False)

    for folder in (research, after):
        with pytest.raises(ExportError, match="detector_person"):
            export(folder / "detector.pt", tmp_path / "weights" / "d.onnx", commercial_use=True)
    assert not (tmp_path / "weights").exists()
    cards = [
        export(folder / "detector.pt", tmp_path / "weights" / "d.onnx", height=64, width=96)
        for folder in (research, after, alone)
    ]

    assert [card.commercial_use for card in cards] == [False, False, True]
    assert read_card(tmp_path / "weights" / "d.toml") == cards[-1]


def test_the_command_trains_for_so_many_steps_from_weights_that_exist_and_exports_them(
    tmp_path: Path, pack: Path
) -> None:
    recipe, out = small_recipe(tmp_path), tmp_path / "out"
    begun = run(recipe, pack=pack, out=tmp_path / "first", steps=1, progress=False)
    given = ["--config", recipe, "--packs", pack, "--out", out, "--steps", 2, "--workers", 1]

    # In a process of its own: torch's loader leaves a handler of SIGCHLD behind, and signal frames
    # with a processor's AMX state overflow the small stack that such handlers get in this one.
    trained = subprocess.run(
        [
            sys.executable,
            "-c",
            "from models.cli import main; main()",
            "train",
            *map(str, given),
            "--start-from",
            str(begun),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    wide = ["--height", 64, "--width", 96, "--score-share", 0.25, "--logit-shift", 0.5]
    exported = said("export", out / "detector.pt", tmp_path / "street.onnx", *wide)
    research = said("export", out / "detector.pt", tmp_path / "b.onnx", "--commercial-use")
    resumable = said("export", out / "last.pt", tmp_path / "b.onnx")
    crooked = said("export", out / "detector.pt", tmp_path / "b.onnx", "--height", 100)

    assert (trained.returncode, entries(out)[-1]["samples"]) == (0, 4), trained.stderr
    assert "edge-models export" in trained.stderr
    assert (exported.exit_code, "street.onnx: 3" in exported.stdout) == (0, True)
    detector = open_detector(
        model_at(tmp_path / "street.onnx"),
        RuntimeConfig(threads=1, backend="onnxruntime"),
        DetectConfig(),
    )
    assert (detector.input.width, detector.input.height, detector.name) == (96, 64, "street")
    assert (research.exit_code, resumable.exit_code, crooked.exit_code) == (2, 3, 2)
    assert "for research only or not known" in research.stderr
    assert "detector.pt beside it" in " ".join(resumable.stderr.split())
    assert not (tmp_path / "b.onnx").exists()


def test_weights_that_are_none_of_a_detector_begin_no_run(tmp_path: Path, pack: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")

    with pytest.raises(CheckpointError, match="is no detector"):
        run(
            small_recipe(tmp_path),
            pack=pack,
            out=tmp_path / "out",
            steps=1,
            start_from=tmp_path / "other.pth",
        )


@pytest.mark.parametrize("flag", ["--seconds", "--steps", "--workers"])
def test_flags_of_detectors_are_refused_for_an_osnet(flag: str, tmp_path: Path) -> None:
    recipe = RECIPES / "osnet_x0_25.toml"

    done = said("train", "--config", recipe, "--packs", tmp_path, "--out", tmp_path, flag, 1)

    assert (done.exit_code, "for detectors only" in done.stderr) == (2, True)


def said(*command: object) -> Result:
    return CliRunner().invoke(app, [str(part) for part in command])


def test_a_teacher_is_learnt_from_and_its_loss_is_logged(tmp_path: Path, pack: Path) -> None:
    out = tmp_path / "out"

    run(
        small_recipe(tmp_path),
        pack=pack,
        out=out,
        steps=1,
        teacher=tiny_teacher(tmp_path / "teacher.onnx"),
        progress=False,
    )

    assert entries(out)[-1]["teacher"] > 0


def test_the_teachers_cells_are_decoded_as_yolox_has_them(tmp_path: Path) -> None:
    teacher = YoloxTeacher(tiny_teacher(tmp_path / "teacher.onnx"), 64)

    scores, boxes = teacher(np.zeros((64, 64, 3), np.uint8))

    assert scores.tolist() == [1.0] * 84
    assert boxes[0].tolist() == [0.0, 0.0, 8.0, 8.0]  # (0 + 0.5) · 8 ± 8 / 2
    assert boxes[-1].tolist() == [32.0, 32.0, 64.0, 64.0]


def test_a_file_that_is_no_yolox_cannot_teach(tmp_path: Path) -> None:
    other = tiny_teacher(tmp_path / "other.onnx", channels=5)

    with pytest.raises(TeacherError, match=r"output is \(1, 84, 5\)"):
        YoloxTeacher(other, 64)


def test_of_overlapping_detections_the_stronger_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10]], np.float32)

    kept, scores = suppress(boxes, np.array([0.9, 0.8, 0.7], np.float32), 0.5)

    assert scores.tolist() == pytest.approx([0.9, 0.7])
    assert kept[:, 0].tolist() == [0.0, 50.0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precision": '"int4"'}, "precision"),
        ({"optimiser": '"sgd"'}, "optimiser"),
        ({"kind": '"embedder"'}, "kind"),
        ({"until": 0.5}, "end at 1.0"),
        ({"ema_decay": "0.9\nspeed = 3"}, "speed"),
        ({"seed": "= 3"}, "small.toml"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_with_its_fault(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    path = small_recipe(tmp_path, **changes)

    with pytest.raises(RecipeError, match=says):
        read_recipe(path)


def test_a_missing_pack_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="detector_pack"):
        run(small_recipe(tmp_path), pack=tmp_path / "none", out=tmp_path / "out", steps=1)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", ["recipe", "pack", "teacher"])
def test_the_command_says_in_a_word_what_does_not_fit(
    tmp_path: Path, pack: Path, wrong: str
) -> None:
    given = {"recipe": small_recipe(tmp_path), "pack": pack, "teacher": tmp_path / "teacher.onnx"}
    given["teacher"].write_bytes(b"no model")
    if wrong == "recipe":
        given["recipe"].write_text('kind = "detector"')
    if wrong == "pack":
        (pack / "train.tar").unlink()
    command = ["train", "--config", given["recipe"], "--packs", pack, "--out", tmp_path / "out"]

    done = CliRunner().invoke(app, [*map(str, command), "--teacher", str(given["teacher"])])

    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    said = "".join(done.stderr.split())  # the terminal wraps long lines
    assert f"{given[wrong]}".replace(" ", "") in said


def test_steps_and_seconds_together_are_refused(tmp_path: Path, pack: Path) -> None:
    with pytest.raises(RecipeError, match="either"):
        run(small_recipe(tmp_path), pack=pack, out=tmp_path / "out", steps=1, seconds=1.0)


@pytest.mark.parametrize("name", ["detector.toml", "detector_open.toml"])
def test_the_shipped_recipes_read_and_warm_up_then_fall(name: str) -> None:
    recipe: Recipe = read_recipe(RECIPES / name)

    rates = [recipe.rate(share) for share in (0.0, recipe.warmup_share, 0.5, 1.0)]

    assert rates[0] < rates[1] == recipe.learning_rate
    assert rates[1] > rates[2] > rates[3] > 0
    assert recipe.phase(0.0).side < recipe.phase(0.99).side
