"""Do the commands say what they were given and cannot use, before anything is written or run?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edge.models_dir import find_model
from models.cli import app
from models.data.pack import load_packs
from models.places import onnx_target
from tests.unit.edge.tiny_models import (
    constant_detector,
    detector_card,
    embedder_card,
    mean_embedder,
    yolox_rows,
)
from tests.unit.models.drawn_people import market

HOSTILE = "GPL [/b] [red]x"  # to rich a closing tag without its opening one


def ran(*command: str | Path) -> Result:
    return CliRunner().invoke(app, [str(part) for part in command])


def detector(path: Path, licence: str = "MIT") -> Path:
    rows = yolox_rows([(16, 30, 16, 40, 0.9)], raw=True)
    constant_detector(path, {"output": rows})
    detector_card(path, licence=licence)
    return path


def test_brackets_in_names_and_licences_are_text(tmp_path: Path) -> None:
    folder = tmp_path / "a[/x]"
    folder.mkdir(parents=True)
    path = detector(folder / "d.onnx", HOSTILE)

    listed = ran("list", "--models-dir", folder)
    checked = ran("check", path, "--seconds", "0")

    assert (listed.exit_code, checked.exit_code) == (0, 0)
    assert HOSTILE in listed.stdout
    assert HOSTILE in checked.stdout


@pytest.mark.parametrize(
    ("protocol", "flags", "told"),
    [
        ("coco-person", ("--flip",), "--flip"),
        ("coco-person", ("--rerank",), "--rerank"),
        ("coco-person", ("--metric", "euclidean"), "--metric"),
        ("coco-person", ("--page", "x.html"), "--page"),
        ("coco-person", ("--trained-on-this",), "--trained-on-this"),
        ("coco-person", ("--threads", "-1"), "--threads"),
        ("market1501", ("--threads", "65"), "--threads"),
        ("market1501", ("--held-out",), "--held-out"),
    ],
)
def test_flags_that_a_protocol_has_no_use_for_are_refused(
    protocol: str, flags: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    path = detector(tmp_path / "d.onnx")

    result = ran("evaluate", path, "--data", tmp_path, "--protocol", protocol, *flags)

    assert result.exit_code == 2
    assert f"Invalid value for {told}" in result.stderr.replace("'", "")


@pytest.mark.parametrize("name", ["y.toml", "y", "sp ace.onnx", "y.ONNX", ".onnx", "folder.onnx"])
def test_an_export_that_no_box_would_find_is_refused(
    name: str, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.onnx").mkdir()

    result = ran("export", exported.with_name("last.pth"), tmp_path / name)

    assert result.exit_code == 2
    assert "NAME.onnx" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


def test_the_folder_of_an_export_is_made(tmp_path: Path) -> None:
    onnx_target(tmp_path / "no" / "such" / "x.onnx")

    assert (tmp_path / "no" / "such").is_dir()


def packed(out: Path, data: Path, *flags: str) -> Result:
    return ran("pack", out, "--data", market(data, train=1, test=1, shots=1),
               "--protocol", "market1501", *flags)  # fmt: skip


def test_the_folder_of_a_pack_is_made(tmp_path: Path) -> None:
    out = tmp_path / "no" / "such" / "x.npz"

    assert packed(out, tmp_path / "set").exit_code == 0
    assert load_packs([out]).sources == ("market1501:train",)


@pytest.mark.parametrize(
    ("out", "flags", "told"),
    [
        ("set", (), "is a folder"),
        ("/proc/x.npz", (), "/proc/x.npz: No such file or directory; check the path"),
        ("set/query/0002_c1s1_000003_00.jpg/x.npz", (), "cannot be made: File exists"),
        ("x.npz", ("--max-mb", "inf"), "Invalid value for --max-mb"),
        ("x.npz", ("--max-mb", "nan"), "Invalid value for --max-mb"),
        ("x.npz", ("--max-mb", "0.001"), "the limit is 0.001 MB"),
        ("x.npz", ("--height", "20000"), "more than WebP holds, 16383 a side"),
    ],
)
def test_a_pack_that_cannot_be_written_as_asked_is_refused(
    out: str, flags: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    result = packed(tmp_path / out, tmp_path / "set", *flags)

    assert result.exit_code == 2, result.output
    assert told in " ".join(result.stderr.replace("'", "").replace("│", " ").split())
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("flag", ["--licence", "--made-by", "--trained-on"])
def test_a_card_is_given_no_empty_line(flag: str, exported: Path, tmp_path: Path) -> None:
    result = ran("export", exported.with_name("last.pth"), tmp_path / "x.onnx", flag, " ")

    assert result.exit_code == 2
    assert f"Invalid value for {flag}" in result.stderr.replace("'", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [("--height", "7"), ("--width", "-5"), ("--height", "5000")])
def test_a_size_that_no_card_can_say_is_refused(
    option: tuple[str, str], exported: Path, tmp_path: Path
) -> None:
    result = ran("export", exported.with_name("last.pth"), tmp_path / "x.onnx", *option)

    assert result.exit_code == 2
    assert "16 to 4096 px" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"root:x:0:0\n", b"", b"\x80\x02c", b"(((((", b"\x00" * 50])
def test_what_is_no_checkpoint_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(content)

    result = ran("export", path, tmp_path / "x.onnx")

    assert result.exit_code == 3
    assert "is not a whole checkpoint" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "flags",
    [
        ("--licence", "MIT"),
        ("--default",),
        ("--width", "416"),
        ("--notes", "x"),
        ("--made-by", "me"),
        ("--commercial-use",),
    ],
)
def test_what_an_export_of_ultralytics_would_leave_out_is_refused(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    result = ran("export", "--yolo", tmp_path / "a.pt", tmp_path / "a.onnx", *flags)

    assert result.exit_code == 2
    assert f"Invalid value for {flags[0]}" in result.stderr.replace("'", "")


def test_a_side_that_ultralytics_would_round_is_refused(tmp_path: Path) -> None:
    result = ran("export", "--yolo", tmp_path / "a.pt", tmp_path / "a.onnx", "--height", "400")

    assert result.exit_code == 2
    assert "no multiple of 32" in result.stderr


@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [
        (("quantize", "m.onnx", "--data", "d", "--protocol", "coco-person"), "--crops", "-4"),
        (("train", "--config", "r.toml"), "--threads", "-1"),
        (("train", "--config", "r.toml"), "--workers", "-1"),
        (("train", "--config", "r.toml"), "--steps", "0"),
        (("train", "--config", "r.toml"), "--evaluate-every", "0"),
        (("pack", "x.npz", "--data", "d", "--protocol", "market1501"), "--height", "0"),
        (("check", "m.onnx"), "--seconds", "-1"),
        (("pull", "yolox-nano"), "--timeout-s", "0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    command: tuple[str, ...], flag: str, value: str
) -> None:
    result = ran(*command, flag, value)

    assert result.exit_code == 2
    assert f"Invalid value for {flag}" in result.stderr.replace("'", "")


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe\x00")

    result = ran("train", "--config", tmp_path / "recipe.toml")

    assert result.exit_code == 2
    assert "give a recipe" in " ".join(result.stderr.split())


def test_a_choice_or_its_undoing_needs_a_folder_that_exists(tmp_path: Path) -> None:
    there = tmp_path / "typo"

    undone = ran("rollback", "--models-dir", there)
    chosen = ran("use", "detector_person_416", "--models-dir", there)

    assert (undone.exit_code, chosen.exit_code) == (2, 2)
    assert f"there is no folder {there}" in undone.stderr
    assert f"there is no folder {there}" in chosen.stderr


def test_the_list_says_why_there_is_no_default(tmp_path: Path) -> None:
    detector(tmp_path / "d.onnx")
    at = ("--models-dir", tmp_path)
    ran("use", "d", *at)
    (tmp_path / "d.onnx").unlink()

    gone = json.loads(ran("list", *at, "--json").stdout)["no_default"]
    (tmp_path / "current.toml").write_bytes(b"\xff")
    broken = json.loads(ran("list", *at, "--json").stdout)["no_default"]
    for_people = ran("list", *at)

    assert len(gone) == 1 and gone[0].startswith("model d: no detector of that name")
    assert len(broken) == 1 and "current.toml: cannot be read" in broken[0]
    assert "delete it, then choose again" in " ".join(for_people.stdout.split())


def test_what_nothing_is_rolled_back_to_is_said(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        embedder_card(mean_embedder(tmp_path / f"{name}.onnx", seed=seed), space_id=f"space-{name}")
    at = ("--models-dir", tmp_path)

    never = ran("rollback", *at)
    for name in ("a", "b") * 6:
        assert ran("use", name, *at).exit_code == 0
    undone = [ran("rollback", *at) for _ in range(10)]
    of_other = ran("rollback", "detector", *at)

    assert "no choice was made there" in never.stderr
    assert [one.exit_code for one in undone] == [0] * 9 + [2]
    assert "a is the oldest embedder that is remembered" in undone[-1].stderr
    assert "no detector was chosen there" in of_other.stderr


def test_when_every_choice_is_undone_default_is_named(tmp_path: Path) -> None:
    detector(tmp_path / "d.onnx")
    at = ("--models-dir", tmp_path)
    ran("use", "d", *at)
    ran("rollback", *at)

    again = ran("rollback", *at)

    assert again.exit_code == 2
    assert "every choice of the detector is undone, default is in use" in again.stderr


def test_a_rollback_to_a_damaged_model_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        embedder_card(mean_embedder(tmp_path / f"{name}.onnx", seed=seed), space_id=f"space-{name}")
    at = ("--models-dir", tmp_path)
    for name in ("a", "b"):
        ran("use", name, *at)
    (tmp_path / "a.onnx").write_bytes((tmp_path / "a.onnx").read_bytes()[:-5])

    undone = ran("rollback", *at)

    assert undone.exit_code == 3
    assert "cut short" in undone.stderr
    assert find_model("default", "embedder", tmp_path).name == "b"
