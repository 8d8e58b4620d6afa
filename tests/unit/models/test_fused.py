"""The kernels of our own against torch's operators."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models import fused
from models.fused import Kernels, NoKernelsError
from models.osnet import Architecture, Normalisation, OSNet


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels.build(tmp_path_factory.mktemp("cache"))


def test_the_kernels_leave_the_arithmetic_of_the_process_alone(kernels: Kernels) -> None:
    smallest = float.fromhex("0x1p-1022")

    assert kernels.library is not None
    assert smallest / 2 > 0


@pytest.mark.parametrize("normalisation", ["plain", "ibn", "ain"])
@pytest.mark.parametrize("width", [0.25, 0.5])
def test_a_step_with_the_kernels_is_a_step_of_torch(
    kernels: Kernels, normalisation: Normalisation, width: float
) -> None:
    torch.manual_seed(1)
    arch = Architecture(width=width, normalisation=normalisation, neck=True)
    own = OSNet(arch, classes=10).train()
    reference = copy.deepcopy(own).double()
    images = torch.randn(8, 3, 64, 32)
    people = torch.arange(8) % 4

    before, embedding, logits = fused.heads(own, images, kernels)
    expected = reference.heads(images.double())

    assert logits is not None
    assert expected[2] is not None
    assert torch.allclose(before.double(), expected[0], atol=1e-3, rtol=1e-3)
    assert torch.allclose(embedding.double(), expected[1], atol=2e-2, rtol=1e-2)
    F.cross_entropy(10 * logits, people).backward()  # type: ignore[no-untyped-call]
    F.cross_entropy(10 * expected[2], people).backward()  # type: ignore[no-untyped-call]
    largest = max(float(p.grad.norm()) for p in reference.parameters() if p.grad is not None)
    for (name, parameter), wanted in zip(
        own.named_parameters(), reference.parameters(), strict=True
    ):
        assert parameter.grad is not None, name
        assert wanted.grad is not None, name
        away = float((parameter.grad.double() - wanted.grad).norm())
        # many layers of float32 away from float64; a wrong kernel is away by as much as itself
        assert away < 5e-2 * float(wanted.grad.norm()) + 2e-3 * largest, name
    for (name, kept), wanted_kept in zip(own.named_buffers(), reference.buffers(), strict=True):
        assert torch.allclose(kept.double(), wanted_kept.double(), atol=1e-3, rtol=1e-3), name


@pytest.mark.parametrize("channels", fused.SIZES)
def test_every_size_of_a_lite_layer_has_the_gradients_of_torch(
    kernels: Kernels, channels: int
) -> None:
    generator = torch.Generator().manual_seed(channels)
    x, point, taps = (
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((2, channels, 5, 7), (channels, channels, 1, 1), (channels, 1, 3, 3))
    )

    out = kernels.lite(x, point, taps)
    wanted = F.conv2d(F.conv2d(x, point), taps, padding=1, groups=channels)

    assert torch.allclose(out, wanted, atol=1e-3)
    weights = torch.randn(out.shape, generator=generator)
    own = torch.autograd.grad((out * weights).sum(), (x, point, taps))
    torchs = torch.autograd.grad((wanted * weights).sum(), (x, point, taps))
    for gradient, expected in zip(own, torchs, strict=True):
        assert torch.allclose(gradient, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "arch",
    [
        Architecture(width=0.25, fusion="add"),
        Architecture(width=0.25, lite="full"),
        Architecture(width=0.25, small_input=True),
    ],
)
def test_the_papers_ablations_are_left_to_torch(arch: Architecture) -> None:
    assert not fused.supported(OSNet(arch))


def test_a_machine_without_a_compiler_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(NoKernelsError, match=r"install g\+\+"):
        Kernels.build(tmp_path)


def test_a_compiler_that_fails_leaves_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))

    with pytest.raises(NoKernelsError, match="no such flag"):
        Kernels.build(tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_what_was_compiled_once_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Kernels.build(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled twice")

    monkeypatch.setattr(subprocess, "run", refuse)
    Kernels.build(tmp_path)
