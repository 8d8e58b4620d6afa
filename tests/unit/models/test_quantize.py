"""`edge-models quantize` on drawn people, from the command line down to the card."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from edge.backends import processor_name
from models import int8, quantize
from models.cli import app
from models.data.readers import open_dataset
from models.evaluate import (
    open_model,
)
from models.int8 import layer_groups
from models.quantize import VariantRefused, admit_bf16
from reid.card import card_path, read_card
from reid.model_errors import ModelUnreadable
from tests.conftest import skip_or_fail
from tests.unit.models.conftest import evaluated
from tests.unit.models.drawn_people import figure, write

TRIED = re.compile(r"(u8s8-reduced|u8u8|s8s8) ([01]\.\d{4})")


def test_gates_stem_and_fc_are_told_apart(place: Path) -> None:
    groups = layer_groups(onnx.load(place / "net.onnx"))

    assert groups.keys() == {"gates", "stem", "fc", "depthwise"}
    assert len(groups["fc"]) == 1
    # 10 Lite layers in each of the 6 blocks
    assert len(groups["depthwise"]) == 60


@pytest.mark.parametrize(("variant", "count"), [("cuhk03", 6), ("market", 1)])
def test_normalisations_that_do_not_fold_are_found(variant: str, count: int) -> None:
    """AIN: one in the stem, four in the residuals, and the neck; the paper's network: the neck."""
    weights = Path(__file__).parents[3] / "models" / "weights" / f"osnet_x0_25_{variant}.onnx"
    network = onnx.load(weights)

    names = int8.normalisations(network)

    assert len(names) == count
    assert not {name for group in layer_groups(network).values() for name in group} & set(names)


@pytest.mark.parametrize(
    ("scheme", "kind", "largest"),
    [("s8s8", np.int8, 127), ("u8s8-reduced", np.int8, 64), ("u8u8", np.uint8, 255)],
)
def test_every_scheme_stores_its_own_kind_of_weights(
    place: Path, tmp_path: Path, scheme: int8.Scheme, kind: type, largest: int
) -> None:
    inputs = int8._inputs(open_model(place / "net.onnx").embedder, [figure(1, 1, 0)], "pictures")

    int8._quantize_file(place / "net.onnx", tmp_path / "q.onnx", scheme, inputs, [])

    network = onnx.load(tmp_path / "q.onnx")
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in network.graph.initializer}
    weights = [stored[n.input[0]] for n in network.graph.node if n.op_type == "DequantizeLinear"
               and n.input[0] in stored and stored[n.input[0]].ndim == 4]  # fmt: skip
    assert len(weights) > 60
    assert {weight.dtype.type for weight in weights} == {kind}
    # a depthwise kernel's scale is its own channel's, so that its largest value is always used
    assert 0.9 * largest <= max(int(np.abs(weight).max()) for weight in weights) <= largest


@pytest.fixture(scope="module")
def quantized(place: Path) -> quantize.Report:
    dataset = open_dataset("market1501", place / "set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "MAX_MAP_LOSS", 100.0)  # random weights: only the way is tested
        patch.setattr(int8, "GOOD_COSINE", 0.5)
        return quantize.quantize(
            place / "net.onnx",
            place / "net-int8.onnx",
            calibration=dataset,
            judge=dataset,
            crops=16,
        )


def test_int8_is_judged_and_recorded(place: Path, quantized: quantize.Report) -> None:
    card, parent = read_card(place / "net-int8.toml"), read_card(place / "net.toml")

    assert card.space_id == parent.space_id
    assert card.variant_id == "int8-s8s8"
    assert card.parent == parent.name
    assert card.agreement is not None
    assert card.agreement.cosine_mean == pytest.approx(quantized.cosine_mean, abs=1e-4)
    assert set(card.agreement.across) == {"rank1", "map"}
    assert "calibrated on 16 crops of market1501" in card.notes
    measured = card.metrics[0]
    assert {"rank1", "map", "float_batch_1_ms", "variant_batch_8_ms"} <= measured.values.keys()
    assert measured.values["float_map"] == pytest.approx(quantized.before.map, abs=0.01)
    assert processor_name() in measured.protocol
    assert (place / "net-int8.onnx").stat().st_size < (place / "net.onnx").stat().st_size
    assert evaluated(place, model="net-int8.onnx")["map"] == pytest.approx(quantized.after.map)


def _copied(place: Path, folder: Path) -> Path:
    for suffix in (".onnx", ".toml"):
        (folder / "net").with_suffix(suffix).write_bytes(
            (place / "net").with_suffix(suffix).read_bytes()
        )
    return folder / "net.onnx"


def _quantize(place: Path, *more: str | Path) -> Result:
    judged = ["--data", str(place / "set"), "--protocol", "market1501"]
    return CliRunner().invoke(app, ["quantize", *map(str, more), *judged])


def test_a_variant_is_never_written_over_its_float_model(place: Path, tmp_path: Path) -> None:
    model = _copied(place, tmp_path)
    before = model.read_bytes()

    result = _quantize(place, model, "--out", tmp_path / ".." / tmp_path.name / "net.onnx")

    assert result.exit_code == 2
    assert "is the float model itself" in result.stderr
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    "flag",
    [
        ("--out", "x.onnx"),
        ("--scheme", "u8u8"),
        ("--crops", "4"),
        ("--calibration", "set"),
        ("--calibration-protocol", "folder"),
    ],
)
def test_bf16_takes_no_flag_of_int8(
    place: Path, monkeypatch: pytest.MonkeyPatch, flag: tuple[str, str]
) -> None:
    monkeypatch.chdir(place)

    result = _quantize(place, "net.onnx", "--bf16", *flag)

    assert result.exit_code == 2
    assert f"Invalid value for {flag[0]}" in result.stderr.replace("'", "")


def test_a_reader_without_a_set_to_calibrate_on_is_refused(place: Path) -> None:
    result = _quantize(place, place / "net.onnx", "--calibration-protocol", "nonsense")

    assert result.exit_code == 2
    assert "Invalid value for --calibration-protocol" in result.stderr.replace("'", "")


@pytest.mark.parametrize("flags", [(), ("--bf16",)], ids=["int8", "bf16"])
def test_a_set_without_queries_is_refused_before_anything_is_embedded(
    flags: tuple[str, ...], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "open_model", lambda path: pytest.fail("was opened"))
    write(tmp_path / "train" / "1_c1.jpg", figure(1, 1, 0))
    command = ["quantize", str(place / "net.onnx"), *flags, "--protocol", "folder", "--data"]

    result = CliRunner().invoke(app, [*command, str(tmp_path)])

    assert result.exit_code == 2
    assert "has no query part to judge by" in result.stderr


def test_a_recipe_where_the_variants_card_belongs_stays(place: Path, tmp_path: Path) -> None:
    model = _copied(place, tmp_path)
    recipe = tmp_path / "net-int8.toml"
    recipe.write_text('kind = "osnet"\n')

    result = _quantize(place, model)

    assert result.exit_code == 3
    assert "net-int8.toml: lies where the card of net-int8.onnx belongs" in result.stderr
    assert recipe.read_text() == 'kind = "osnet"\n'


def test_a_model_without_card_gets_no_variant(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "have_bf16", lambda: True)
    bare = tmp_path / "bare.onnx"
    bare.write_bytes((place / "net.onnx").read_bytes())

    results = [_quantize(place, bare), _quantize(place, bare, "--bf16")]

    assert [result.exit_code for result in results] == [3, 3]
    assert all("--write-card" in result.stderr for result in results)
    assert [path.name for path in tmp_path.iterdir()] == ["bare.onnx"]


def test_what_is_int8_already_is_not_quantised_again(
    place: Path, quantized: quantize.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "have_bf16", lambda: True)
    dataset = open_dataset("market1501", place / "set")

    with pytest.raises(ModelUnreadable, match="int8 already"):
        quantize.quantize(
            place / "net-int8.onnx", place / "twice.onnx", calibration=dataset, judge=dataset
        )
    with pytest.raises(ModelUnreadable, match="int8 already"):
        admit_bf16(place / "net-int8.onnx", judge=dataset)


def test_a_checkpoint_must_be_exported_before_it_is_quantised(place: Path) -> None:
    dataset = open_dataset("market1501", place / "set")

    with pytest.raises(ModelUnreadable, match="edge-models export"):
        quantize.quantize(
            place / "net.pth", place / "never.onnx", calibration=dataset, judge=dataset
        )


def test_a_loss_above_the_limit_is_refused_and_nothing_is_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset("market1501", place / "set")
    target = tmp_path / "bad.onnx"
    monkeypatch.setattr(quantize, "MAX_MAP_LOSS", -100.0)  # even a gain is too little
    monkeypatch.setattr(int8, "GOOD_COSINE", 0.0)

    with pytest.raises(VariantRefused, match="mAP"):
        quantize.quantize(place / "net.onnx", target, calibration=dataset, judge=dataset, crops=4)

    assert not target.exists()
    assert not card_path(target).exists()


def test_bf16_is_admitted_on_the_card_by_measurement(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("openvino") is None:
        skip_or_fail("openvino is not installed")
    model = _copied(place, tmp_path)
    dataset = open_dataset("market1501", place / "set")
    monkeypatch.setattr(quantize, "MAX_MAP_LOSS", 100.0)
    monkeypatch.setattr(quantize, "have_bf16", lambda: True)  # float elsewhere: the way is tested

    report = admit_bf16(model, judge=dataset)

    card = read_card(card_path(model))
    assert [entry.variant_id for entry in card.runtimes] == ["bfloat16-openvino"]
    assert card.runtimes[0].agreement is not None
    assert report.cosine_mean > 0.9


def test_a_processor_without_bfloat16_admits_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO would compute in float there, agree with it, and the card would call it bfloat16."""
    model = _copied(place, tmp_path)
    before = card_path(model).read_bytes()
    monkeypatch.setattr(quantize, "have_openvino", lambda: True)
    monkeypatch.setattr(quantize, "have_bf16", lambda: False)

    with pytest.raises(ModelUnreadable, match="float would be measured"):
        admit_bf16(model, judge=open_dataset("market1501", place / "set"))

    assert card_path(model).read_bytes() == before


def test_bf16_that_loses_too_much_leaves_the_card_alone(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("openvino") is None:
        skip_or_fail("openvino is not installed")
    model = _copied(place, tmp_path)
    before = card_path(model).read_bytes()
    dataset = open_dataset("market1501", place / "set")
    monkeypatch.setattr(quantize, "MAX_MAP_LOSS", -100.0)
    monkeypatch.setattr(quantize, "have_bf16", lambda: True)  # float elsewhere: the way is tested

    with pytest.raises(VariantRefused):
        admit_bf16(model, judge=dataset)

    assert card_path(model).read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "schemes"),
    [
        ({"avx2", "avx512_vnni"}, ("s8s8",)),
        ({"fp", "asimd", "asimddp"}, ("s8s8",)),
        ({"avx2", "fma"}, ("u8s8-reduced", "u8u8")),
    ],
    ids=["VNNI", "ARM", "AVX2"],
)
def test_without_dot_products_the_schemes_that_do_not_saturate_are_tried(
    flags: set[str], schemes: tuple[str, ...]
) -> None:
    assert int8.schemes_for(flags) == schemes


def test_the_scheme_nearest_to_float_is_taken_and_all_stand_on_the_card(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset("market1501", place / "set")
    monkeypatch.setattr(quantize, "MAX_MAP_LOSS", 100.0)
    monkeypatch.setattr(int8, "GOOD_COSINE", 0.0)  # no layer back in float: one file a scheme
    monkeypatch.setattr(quantize, "processor_flags", lambda: frozenset({"avx2"}))

    report = quantize.quantize(
        place / "net.onnx", tmp_path / "q.onnx", calibration=dataset, judge=dataset, crops=8
    )

    card = read_card(tmp_path / "q.toml")
    tried = {name: float(cosine) for name, cosine in TRIED.findall(card.notes)}
    assert tried.keys() == {"u8s8-reduced", "u8u8"}
    assert tried[report.scheme] == max(tried.values())
    assert card.variant_id == f"int8-{report.scheme}"


def test_layers_are_given_back_best_first_until_the_cosine_is_good() -> None:
    gains = {"gates": 0.3, "stem": 0.1, "fc": 0.05}
    asked: list[tuple[str, ...]] = []

    def attempt(kept: tuple[str, ...]) -> tuple[float, bytes]:
        asked.append(kept)
        return 0.6 + sum(gains[name] for name in kept), "+".join(kept).encode()

    kept, cosine, content = int8._choose(tuple(gains), attempt)

    assert kept == ("gates", "stem")
    assert cosine == pytest.approx(1.0)
    assert content == b"gates+stem"
    assert asked[0] == ()
