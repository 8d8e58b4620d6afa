"""Is a card read strictly, written back the same, and held against its file?"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from reid.card import (
    Card,
    Golden,
    ModelFile,
    card_text,
    parse_card,
    read_card,
    verify_licence,
    write_card,
)
from reid.golden import golden_image, golden_values, verify_golden
from reid.model_errors import CardInvalid, CardMismatch, LicenceRefused, ModelNotFound

EMBEDDER = """\
kind = "embedder"
name = "osnet-x0.25"
file = "osnet.onnx"
sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
bytes = 5
licence = "Apache-2.0"
commercial_use = false
made_by = "edge-reid"
training_data = ["market1501 train"]
space_id = "osnet-x0.25-a"
variant_id = "float32"
dimension = 512

[input]
height = 256
width = 128
colour = "rgb"
range = 1
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
fit = "stretch"

[golden]
formula = "blocks-1"
seed = 1
values = [0.5, 0.25]
tolerance = 0.001

[[metrics]]
protocol = "market1501 single query"
date = 2026-11-21

[metrics.values]
rank1 = 91.5
map = 77.4

[[runtimes]]
runtime = "openvino"
precision = "bf16"
variant_id = "bf16-openvino"
tolerance = 0.02

[runtimes.agreement]
reference = "float32"
cosine_mean = 0.999
cosine_min = 0.99
"""


def card(**changes: object) -> Card:
    fields = parse_card(EMBEDDER, "a card").model_dump()
    return Card.model_validate({**fields, **changes})


def without(line: str) -> str:
    return "\n".join(row for row in EMBEDDER.splitlines() if not row.startswith(line))


def test_a_card_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = parse_card(EMBEDDER, "a card")

    write_card(written, tmp_path / "osnet.toml")

    assert read_card(tmp_path / "osnet.toml") == written
    assert list(tmp_path.iterdir()) == [tmp_path / "osnet.toml"]


def test_the_written_form_does_not_change() -> None:
    assert card_text(parse_card(EMBEDDER, "a card")) == EMBEDDER


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kind = ", "is not TOML"),
        (EMBEDDER.replace('kind = "embedder"', 'kind = "cook"'), "kind: Input should be"),
        (EMBEDDER.replace("dimension = 512", "dimensions = 512"), "dimensions: Extra inputs"),
        (without("space_id"), "an embedder's card needs space_id"),
        (without("licence"), "licence: Field required"),
        (EMBEDDER.replace("2cf24d", "2CF24D"), "sha256: String should match"),
        (EMBEDDER.replace("0.229", "0.0"), "std must be above 0"),
        (EMBEDDER.replace('"osnet.onnx"', '"../../etc/passwd"'), "file: String should match"),
        (EMBEDDER.replace("[0.5, 0.25]", "[nan]"), "golden.values.0: Input should be a finite"),
        (
            EMBEDDER.replace("dimension = 512", 'dimension = 512\nfamily = "yolox"'),
            "not for a card",
        ),
    ],
)
def test_a_wrong_card_is_refused_with_the_field(text: str, reason: str) -> None:
    with pytest.raises(CardInvalid, match=reason) as refused:
        parse_card(text, "cards/osnet.toml")

    assert "cards/osnet.toml" in str(refused.value)


def test_a_card_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(CardInvalid, match="not UTF-8"):
        read_card(tmp_path / "a.toml")


def test_a_card_as_large_as_a_model_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"#" * 100_000)

    with pytest.raises(CardInvalid, match="has 100000 bytes"):
        read_card(tmp_path / "a.toml")


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"a\.toml: cannot be read"):
        read_card(tmp_path / "a.toml")


def test_the_file_of_the_card_is_read(tmp_path: Path) -> None:
    path = tmp_path / "osnet.onnx"
    path.write_bytes(b"hello")

    assert ModelFile(path, card()).read() == b"hello"


@pytest.mark.parametrize(
    ("content", "field", "text"),
    [(b"hell", "bytes", "cut short: 4 bytes, its card says 5"), (b"jello", "sha256", "sha256 is")],
)
def test_another_file_than_the_cards_is_refused(
    content: bytes, field: str, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "osnet.onnx"
    path.write_bytes(content)

    with pytest.raises(CardMismatch, match=text) as refused:
        ModelFile(path, card()).read()

    assert refused.value.field == field


def test_commercial_use_is_demanded_and_refused_by_name() -> None:
    model = ModelFile(Path("osnet.onnx"), card())

    verify_licence(model, require_commercial=False)
    with pytest.raises(LicenceRefused, match="does not allow commercial use"):
        verify_licence(model, require_commercial=True)
    with pytest.raises(LicenceRefused, match="has no card"):
        verify_licence(ModelFile(Path("x.onnx"), None), require_commercial=True)
    verify_licence(ModelFile(Path("x.onnx"), card(commercial_use=True)), require_commercial=True)


def test_the_licence_line_says_who_and_whether_for_money() -> None:
    line = card().licence_line()

    assert line == "embedder osnet-x0.25: Apache-2.0, NO commercial use, by edge-reid"


def test_the_golden_picture_never_changes() -> None:
    picture = golden_image(256, 128, seed=1)

    digest = hashlib.sha256(picture.tobytes()).hexdigest()
    assert digest == "d3874e1bd654ae5c8ac188db403688efd2791ba4d2c252b231ccb4751ec9c79d"
    assert picture.std() > 30  # it is no grey area
    assert (golden_image(256, 128, seed=2) != picture).mean() > 0.9


def test_golden_values_of_a_detector_feel_every_output() -> None:
    first = [np.zeros((1, 40, 6), np.float32), np.zeros((1, 40), np.int64)]
    second = [output.copy() for output in first]
    second[1][0, 39] = 3

    assert golden_values("detector", first).shape == (16,)
    assert (golden_values("detector", first) != golden_values("detector", second)).any()


@pytest.mark.parametrize("value", [0.52, float("nan")])
def test_golden_values_beyond_the_tolerance_are_refused(value: float) -> None:
    golden = Golden(values=(0.5, 0.25), tolerance=0.01)

    verify_golden("m.onnx", golden, np.array([0.505, 0.25], np.float32))
    with pytest.raises(CardMismatch, match="golden output is off by"):
        verify_golden("m.onnx", golden, np.array([value, 0.25], np.float32))
    with pytest.raises(CardMismatch, match="1 golden values, its card has 2"):
        verify_golden("m.onnx", golden, np.array([0.5], np.float32))


def test_golden_values_above_one_are_compared_by_their_share() -> None:
    golden = Golden(values=(400.0,), tolerance=0.01)

    verify_golden("m.onnx", golden, np.array([402.0], np.float32))
    with pytest.raises(CardMismatch):
        verify_golden("m.onnx", golden, np.array([405.0], np.float32))
