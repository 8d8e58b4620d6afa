"""The network against torchreid 0.2.5 and the published weights."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

from models import checkpoints
from models.osnet import Architecture, OSNet
from tests.conftest import skip_or_fail

PUBLISHED = ("osnet_x0_25_market1501.pth", "osnet_x0_25_msmt17.pth")


def _torchreid(name: str) -> ModuleType:
    folder = os.environ.get("REID_TORCHREID")
    if not folder:
        skip_or_fail("REID_TORCHREID does not name torchreid's source; see requirements-torchreid")
    found = sorted(Path(str(folder)).rglob(f"models/{name}.py"))
    spec = importlib.util.spec_from_file_location(f"torchreid_{name}", found[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _trained_statistics(network: torch.nn.Module) -> None:
    """Values that a wrong mapping of norms could not hide behind."""
    generator = torch.Generator().manual_seed(7)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and ("bn" in name or "IN" in name or name.startswith("fc.1")):
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + noise)


@pytest.mark.shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_load_key_for_key(shared_dir: Path, name: str) -> None:
    path = shared_dir / "models" / name

    network = checkpoints.load(path, heads=True)

    published = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    assert own.keys() == published.keys()
    assert all(torch.equal(own[key], published[key]) for key in own)


@pytest.mark.shared
@pytest.mark.reference
@pytest.mark.parametrize("name", PUBLISHED)
def test_outputs_equal_torchreids_on_published_weights(shared_dir: Path, name: str) -> None:
    path = shared_dir / "models" / name
    state = torch.load(path, map_location="cpu", weights_only=True)
    classes = len(state["classifier.weight"])
    theirs = _torchreid("osnet").osnet_x0_25(num_classes=classes, pretrained=False).eval()
    theirs.load_state_dict(state)
    ours = checkpoints.load(path)
    images = torch.randn(3, 3, 256, 128, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        difference = (ours(images) - theirs(images)).abs().max()

    assert difference < 1e-5


@pytest.mark.parametrize(
    ("module", "builder", "width", "normalisation"),
    [
        ("osnet", "osnet_x1_0", 1.0, "plain"),
        ("osnet", "osnet_ibn_x1_0", 1.0, "ibn"),
        ("osnet_ain", "osnet_ain_x0_25", 0.25, "ain"),
    ],
)
@pytest.mark.reference
def test_variants_equal_torchreids(
    module: str, builder: str, width: float, normalisation: str, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    theirs = getattr(_torchreid(module), builder)(num_classes=5, pretrained=False).eval()
    _trained_statistics(theirs)
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, path)
    images = torch.randn(2, 3, 256, 128)

    ours = checkpoints.load(path)
    with torch.inference_mode():
        wanted, found = theirs(images), ours(images)

    assert ours.arch == Architecture(width=width, normalisation=normalisation)  # type: ignore[arg-type]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_dropped_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    state = OSNet(Architecture(width=0.25), classes=4).state_dict()
    del state["conv3.1.gate.fc1.weight"]
    torch.save(state, tmp_path / "cut.pth")

    with pytest.raises(checkpoints.CheckpointError, match=r"lacks conv3\.1\.gate\.fc1\.weight"):
        checkpoints.load(tmp_path / "cut.pth")


def test_a_stranger_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    state = OSNet(Architecture(width=0.25)).state_dict()
    state["conv9.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "more.pth")

    with pytest.raises(checkpoints.CheckpointError, match=r"has left over conv9\.weight"):
        checkpoints.load(tmp_path / "more.pth")


@pytest.mark.parametrize("kept", [0.5, 0.005, 0.0])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "whole.pth"
    torch.save(OSNet(Architecture(width=0.25)).state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])

    with pytest.raises(checkpoints.CheckpointError, match="not a whole checkpoint"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    ("name", "say"), [("m.onnx", r"exported model.*\.pth"), ("m.pth", "not a whole checkpoint")]
)
def test_a_file_of_another_kind_is_refused_without_advice_to_trust_it(
    tmp_path: Path, name: str, say: str
) -> None:
    (tmp_path / name).write_bytes(b"\x08\x07\x12\x07pytorch" * 50)

    with pytest.raises(checkpoints.CheckpointError, match=say) as refused:
        checkpoints.load(tmp_path / name)

    assert "weights_only" not in str(refused.value)


def test_a_detectors_checkpoint_says_which_command_exports_it(tmp_path: Path) -> None:
    torch.save({"shape": {"stem": 16}, "weights": {}, "recipe": "d"}, tmp_path / "detector.pt")

    with pytest.raises(checkpoints.CheckpointError, match="detector's; edge-models export"):
        checkpoints.load(tmp_path / "detector.pt")


def test_a_checkpoint_that_is_no_osnet_is_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")

    with pytest.raises(checkpoints.CheckpointError, match="no OSNet"):
        checkpoints.load(tmp_path / "other.pth")


def test_own_checkpoints_come_back_with_their_architecture(tmp_path: Path) -> None:
    network = OSNet(Architecture(width=0.25, normalisation="ain", neck=True), classes=3)
    checkpoints.save(tmp_path / "own.pth", network, step=4)

    loaded = checkpoints.load(tmp_path / "own.pth", heads=True)

    assert loaded.arch == network.arch
    images = torch.randn(1, 3, 64, 32)
    torch.testing.assert_close(loaded(images), network.eval()(images))


def test_own_checkpoints_come_back_with_both_heads(tmp_path: Path) -> None:
    network = OSNet(Architecture(width=0.25), classes=3, attributes=26).eval()
    checkpoints.save(tmp_path / "own.pth", network)
    images = torch.randn(1, 3, 64, 32)

    bare = checkpoints.load(tmp_path / "own.pth")
    whole = checkpoints.load(tmp_path / "own.pth", heads=True)

    torch.testing.assert_close(bare(images), network(images))
    torch.testing.assert_close(whole.attribute_logits(images), network.attribute_logits(images))


ARCHITECTURE = {"width": 0.25}


@pytest.mark.parametrize(
    ("contents", "say"),
    [
        ({"architecture": ARCHITECTURE}, "expected a state dict"),
        ({"architecture": ARCHITECTURE, "model": [1]}, "expected a state dict"),
        ({"architecture": ARCHITECTURE, "model": {"classifier.weight": 1}}, "is no tensor"),
        ({"architecture": ARCHITECTURE, "model": {"classifier.weight": torch.ones(())}}, "lacks"),
        ({"architecture": 3, "model": {}}, "expected a table"),
        ({"architecture": {"width": 0.01}, "model": {}}, "width is 0.01"),
        ({"state_dict": [1, 2]}, "expected a state dict"),
        ({"conv1.conv.weight": torch.zeros(1000, 3, 7, 7)}, "width is 15.625"),
        ({"conv1.conv.weight": torch.zeros(16, 3, 7)}, "no OSNet"),
    ],
)
def test_a_checkpoint_of_another_make_is_refused_by_name(
    tmp_path: Path, contents: dict[str, object], say: str
) -> None:
    torch.save(contents, tmp_path / "other.pth")

    with pytest.raises(checkpoints.CheckpointError, match=rf"other\.pth.*{say}"):
        checkpoints.load(tmp_path / "other.pth")


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex"])
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    state = OSNet(Architecture(width=0.25)).state_dict()
    weight = state["conv3.1.gate.fc1.weight"]
    state["conv3.1.gate.fc1.weight"] = {
        "sparse": weight.to_sparse(), "meta": weight.to("meta"), "complex": weight.cfloat(),
    }[kind]  # fmt: skip
    torch.save(state, tmp_path / "odd.pth")

    with pytest.raises(
        checkpoints.CheckpointError, match=r"no plain numbers in conv3\.1\.gate\.fc1\.weight"
    ):
        checkpoints.load(tmp_path / "odd.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    state = OSNet(Architecture(width=0.25)).state_dict()
    state["conv3.1.gate.fc1.weight"][0] = value
    torch.save(state, tmp_path / "burst.pth")

    with pytest.raises(
        checkpoints.CheckpointError, match=r"conv3\.1\.gate\.fc1\.weight has values"
    ):
        checkpoints.load(tmp_path / "burst.pth")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(checkpoints.CheckpointError, match="cannot be read"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    "given", [[1], {"height": "a", "width": 32}, {"height": 64}, {"height": -4, "width": 0}]
)
def test_an_input_size_that_is_none_is_refused(tmp_path: Path, given: object) -> None:
    with pytest.raises(checkpoints.CheckpointError, match="input"):
        checkpoints.input_size({"input": given}, tmp_path / "own.pth")


def test_a_published_checkpoint_says_neither_input_nor_people(tmp_path: Path) -> None:
    assert checkpoints.input_size({}, tmp_path) is None
    assert checkpoints.trained_on({}, tmp_path) == ()
    with pytest.raises(checkpoints.CheckpointError, match="trained_on"):
        checkpoints.trained_on({"trained_on": 3}, tmp_path)
