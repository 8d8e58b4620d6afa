"""OSNet's training step on a CPU, with its small layers in kernels of our own.

Promise: `heads(network, images, kernels)` gives what `network.heads(images)` gives in training
mode, running statistics and gradients included, to rounding (the tests compare both); weights stay
in the network. OSNet's layers have few channels, so torch spends its time on passes over memory:
one layer is four operators forward and eight backward. Here pointwise and depthwise convolution are
one pass, normalisation, sum and ReLU another, and the gated sum of the streams a third.

`Kernels.build()` compiles `kernels.cpp` once per machine into the user's cache and raises
`NoKernelsError` where there is no C++ compiler or the architecture is one of the paper's ablations;
the caller then trains with torch's operators and says so.
Threads: one; the kernels do not share their work.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from models.osnet import AggregationGate, ConvBNReLU, Linear1x1, Lite3x3, OmniScaleBlock, OSNet

SIZES = (16, 24, 32, 48, 64, 96, 128)  # channels that kernels.cpp is compiled for
MOST_CHANNELS = 512
# Not -ffast-math: a library linked with it turns denormal numbers off for the whole process.
FAST = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math")
FLAGS = ("-O3", "-march=native", *FAST, "-fPIC", "-shared", "-std=c++17")
COMPILE_TIMEOUT_S = 180


class NoKernelsError(Exception):
    """The kernels cannot be had here; the message says why and what would help."""


class Kernels:
    """The compiled kernels; each method is differentiable."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    @classmethod
    def build(cls, cache: Path | None = None) -> Kernels:
        """Compile, or take up what an earlier run compiled.

        Args:
            cache: folder for the library; by default the user's cache folder.
        """
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            raise NoKernelsError("no C++ compiler (g++ or clang++) was found; install g++")
        source = resources.files("models.fused").joinpath("kernels.cpp").read_bytes()
        if cache is None:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            cache = Path(home) / "edge-reid"
        key = hashlib.sha256(source + " ".join(FLAGS).encode() + _processor().encode()).hexdigest()[
            :16
        ]
        built = cache / f"osnet-kernels-{key}.so"
        if not built.exists():
            _compile(compiler, source, built)
        return cls(ctypes.CDLL(str(built)))

    def lite(self, x: Tensor, point: Tensor, taps: Tensor) -> Tensor:
        """Pointwise (c, c, 1, 1), then depthwise (c, 1, 3, 3), on (n, c, h, w)."""
        out: Tensor = _Lite.apply(x, point, taps, self.library)  # type: ignore[no-untyped-call]
        return out

    def normalise(
        self, x: Tensor, norm: nn.Module, *, relu: bool, add: Tensor | None = None
    ) -> Tensor:
        """`norm` of (n, c, h, w), plus `add`, then ReLU; updates running statistics.

        Args:
            norm: BatchNorm2d or InstanceNorm2d with weight and bias, in training mode.
        """
        assert isinstance(norm, nn.BatchNorm2d | nn.InstanceNorm2d)
        x = x.contiguous(memory_format=torch.channels_last)
        groups = len(x) if isinstance(norm, nn.InstanceNorm2d) else 1
        rows = x.numel() // x.shape[1] // groups
        mean, scale = x.new_empty(2, groups, x.shape[1]).unbind()
        self.library.reid_moments(
            _at(x), _at(mean), _at(scale), *_sizes(groups, rows, x.shape[1]),
            ctypes.c_float(norm.eps),
        )  # fmt: skip
        if norm.track_running_stats and norm.running_mean is not None:
            assert norm.running_var is not None
            assert norm.num_batches_tracked is not None
            variance = (scale[0].pow(-2) - norm.eps) * (rows / max(rows - 1, 1))
            momentum = 0.1 if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean[0], momentum)
            norm.running_var.lerp_(variance, momentum)
            norm.num_batches_tracked.add_(1)
        out: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, norm.bias, add, mean, scale, relu, self.library
        )
        return out

    def gated_sum(self, streams: Sequence[Tensor], gate: AggregationGate) -> Tensor:
        """Σ_t G(s_t) ⊙ s_t of equation 3, all streams (n, c, h, w)."""
        parameters = (gate.fc1.weight, gate.fc1.bias, gate.fc2.weight, gate.fc2.bias)
        out: Tensor = _GatedSum.apply(  # type: ignore[no-untyped-call]
            self.library, *parameters, *streams
        )
        return out


def supported(network: OSNet) -> bool:
    """Whether `heads` can train this architecture: the paper's network, not its ablations."""
    arch = network.arch
    middle = [c // 4 for c in arch.channels[1:]]
    return (
        arch.lite == "pointwise_first"
        and arch.fusion == "unified"
        and not arch.small_input
        and all(c in SIZES for c in middle)
        and max(arch.channels) <= MOST_CHANNELS
    )


def kernels_for(network: OSNet, device: torch.device) -> Kernels | None:
    """The kernels where they can train this network here (float32); else None.

    Where only a compiler is missing, that is said.
    """
    if device.type != "cpu" or torch.get_num_threads() > 1 or not supported(network):
        return None
    try:
        return Kernels.build()
    except NoKernelsError as error:
        tqdm.write(f"training with torch's own operators, about twice as slow: {error}")
        return None


def heads(network: OSNet, x: Tensor, kernels: Kernels) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `OSNet.heads` gives, in training mode.

    Args:
        x: (n, 3, h, w) float32.
    """
    x = network.maxpool(_conv_norm(network.conv1, x, kernels))
    for stage in (network.conv2, network.conv3, network.conv4):
        for layer in stage:
            if isinstance(layer, OmniScaleBlock):
                x = _block(layer, x, kernels)
            else:
                assert isinstance(layer, nn.Sequential)
                x = layer[1](_conv_norm(layer[0], x, kernels))
    x = _conv_norm(network.conv5, x, kernels)
    before: Tensor = network.fc(x.mean((2, 3)))
    embedding = before if network.neck is None else network.neck(before)
    return before, embedding, None if network.classifier is None else network.classifier(embedding)


def _conv_norm(layer: nn.Module, x: Tensor, kernels: Kernels) -> Tensor:
    assert isinstance(layer, ConvBNReLU)
    return kernels.normalise(layer.conv(x), layer.bn, relu=layer.relu is not None)


def _block(block: OmniScaleBlock, x: Tensor, kernels: Kernels) -> Tensor:
    first = _conv_norm(block.conv1, x, kernels)
    streams = [_stream(getattr(block, name), first, kernels) for name in block.stream_names]
    assert block.gate is not None
    joined = kernels.gated_sum(streams, block.gate)
    identity = x
    if block.downsample is not None:
        identity = kernels.normalise(block.downsample.conv(x), _norm(block.downsample), relu=False)
    out = block.conv3.conv(joined)
    norm = block.norm_inside or _norm(block.conv3)
    if block.IN is None:
        return kernels.normalise(out, norm, relu=True, add=identity)
    return kernels.normalise(
        kernels.normalise(out, norm, relu=False) + identity, block.IN, relu=True
    )


def _norm(layer: Linear1x1) -> nn.Module:
    assert layer.bn is not None
    return layer.bn


def _stream(stream: nn.Module, x: Tensor, kernels: Kernels) -> Tensor:
    for layer in [stream] if isinstance(stream, Lite3x3) else stream.children():
        assert isinstance(layer, Lite3x3)
        assert isinstance(layer.conv1, nn.Conv2d)
        assert isinstance(layer.conv2, nn.Conv2d)
        x = kernels.lite(x, layer.conv1.weight, layer.conv2.weight)
        x = kernels.normalise(x, layer.bn, relu=True)
    return x


class _Lite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, point: Tensor, taps: Tensor, library: ctypes.CDLL) -> Tensor:
        n, c, h, w = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        by_input = point.view(c, c).t().contiguous()
        by_tap = taps.view(c, 9).t().contiguous()
        out = torch.empty_like(x)
        library.reid_lite_forward(_at(x), _at(by_input), _at(by_tap), _at(out), *_sizes(n, h, w, c))
        ctx.save_for_backward(x, by_input, by_tap)
        ctx.library = library
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, by_input, by_tap = ctx.saved_tensors
        n, c, h, w = x.shape
        g = g.contiguous(memory_format=torch.channels_last)
        g_x = torch.empty_like(x)
        g_point, g_taps = torch.zeros_like(by_input), torch.zeros_like(by_tap)
        ctx.library.reid_lite_backward(
            _at(x), _at(by_input), _at(by_tap), _at(g), _at(g_x), _at(g_point), _at(g_taps),
            *_sizes(n, h, w, c),
        )  # fmt: skip
        return g_x, g_point.t().reshape(c, c, 1, 1), g_taps.t().reshape(c, 1, 3, 3), None


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        add: Tensor | None,
        mean: Tensor,
        scale: Tensor,
        relu: bool,
        library: ctypes.CDLL,
    ) -> Tensor:
        groups, c = mean.shape
        rows = x.numel() // c // groups
        if add is not None:
            add = add.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(x)
        library.reid_normalise(
            _at(x), _at(mean), _at(scale), _at(weight), _at(bias), _at(add), _at(out),
            *_sizes(groups, rows, c), ctypes.c_int(relu),
        )  # fmt: skip
        kept = out if relu and add is not None else None
        ctx.save_for_backward(x, weight, bias, mean, scale, kept)
        ctx.relu, ctx.added, ctx.library = relu, add is not None, library
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, scale, out = ctx.saved_tensors
        groups, c = mean.shape
        g = g.contiguous(memory_format=torch.channels_last)
        g_x = torch.empty_like(x)
        # without a ReLU the gradient passes to what was added as it is
        g_add = torch.empty_like(x) if ctx.added and ctx.relu else None
        g_weight, g_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        ctx.library.reid_normalise_backward(
            _at(x), _at(mean), _at(scale), _at(weight), _at(bias), _at(out), _at(g), _at(g_x),
            _at(g_add), _at(g_weight), _at(g_bias), *_sizes(groups, x.numel() // c // groups, c),
            ctypes.c_int(ctx.relu),
        )  # fmt: skip
        added = (g_add if ctx.relu else g) if ctx.added else None
        return g_x, g_weight, g_bias, added, None, None, None, None


class _GatedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, *tensors: Tensor) -> Tensor:
        parameters, streams = tensors[:4], tensors[4:]
        streams = tuple(s.contiguous(memory_format=torch.channels_last) for s in streams)
        n, c, h, w = streams[0].shape
        means = torch.stack([s.mean((2, 3)) for s in streams])
        gates = _gate(means, *parameters)
        out = torch.empty_like(streams[0])
        library.reid_gated_sum(
            _each(streams), _each(gates), _at(out), *_sizes(len(streams), n, h * w, c)
        )
        ctx.save_for_backward(means, gates, *parameters, *streams)
        ctx.library = library
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        means, gates, *rest = ctx.saved_tensors
        parameters, streams = rest[:4], rest[4:]
        n, c, h, w = streams[0].shape
        sizes = _sizes(len(streams), n, h * w, c)
        g = g.contiguous(memory_format=torch.channels_last)
        g_gates = torch.empty_like(gates)
        ctx.library.reid_gates_backward(_each(streams), _at(g), _each(g_gates), *sizes)
        with torch.enable_grad():  # the gate itself is small: torch differentiates it again
            inputs = [means.detach().requires_grad_()]
            inputs += [p.detach().requires_grad_() for p in parameters]
            g_means, *g_parameters = torch.autograd.grad(_gate(*inputs), inputs, g_gates)
        g_means = g_means.div_(h * w)
        g_streams = [torch.empty_like(s) for s in streams]
        ctx.library.reid_streams_backward(
            _each(gates), _each(g_means), _at(g), _each(g_streams), *sizes
        )
        return None, *g_parameters, *g_streams


def _gate(means: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """G of equation 4 on the streams' means (T, n, c)."""
    hidden = F.relu(F.linear(means, w1.flatten(1), b1))
    return torch.sigmoid(F.linear(hidden, w2.flatten(1), b2)).contiguous()


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _each(tensors: Sequence[Tensor] | Tensor) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


def _sizes(*values: int) -> tuple[ctypes.c_int64, ...]:
    return tuple(ctypes.c_int64(value) for value in values)


def _processor() -> str:
    """What code compiled with -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: str, source: bytes, built: Path) -> None:
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        code, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        code.write_bytes(source)
        done = subprocess.run(
            [compiler, *FLAGS, str(code), "-o", str(library)],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise NoKernelsError(f"{compiler} failed: {done.stderr.strip()[-400:]}")
        library.replace(built)
