"""OSNet, the omni-scale network for person re-identification, readable beside its paper.

Promise: `OSNet(Architecture(...))` is the network of Zhou, Yang, Cavallaro and Xiang,
"Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019 (arXiv 1905.00953), and its
IBN and AIN variants (arXiv 1910.06827), with the paper's ablations as switches. Parameter names are
those of torchreid's `osnet.py`, so that published weights load key for key (`models/checkpoints`).

Shapes, at width 1.0 and the usual input (n, 3, 256, 128):

    conv1 7x7/2, max pool 3x3/2   (n,  64, 64, 32)
    conv2 2 blocks, transition    (n, 256, 32, 16)
    conv3 2 blocks, transition    (n, 384, 16,  8)
    conv4 2 blocks                (n, 512, 16,  8)
    conv5 1x1                     (n, 512, 16,  8)
    global average pool, fc       (n, 512)            the embedding

Departure, marked where it stands: `neck`, a batch normalisation after the embedding ("BNNeck",
Luo et al., arXiv 1903.07071), which our own recipes use and published weights do not have.

Threads: none of its own; as any torch module, one thread at a time may train it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

Fusion = Literal["unified", "add", "concat", "separate", "streamwise", "fixed"]
Lite = Literal["pointwise_first", "depthwise_first", "full"]
Normalisation = Literal["plain", "ibn", "ain"]

FULL_CHANNELS = (64, 256, 384, 512)  # stem, conv2, conv3, conv4 at width 1.0; table 1
LEAST_WIDTH = 1 / 64  # leaves one channel of the stem, and of a block's bottleneck
EMBEDDING_SIZE = 512  # table 1, for every width
GATE_REDUCTION = 16  # section 3.2: of the gate's hidden layer
STREAM_NAMES = "abcd"
AIN_BLOCKS = (
    (True, True),
    (False, True),
    (True, False),
)  # arXiv 1910.06827, the architecture found


@dataclass(frozen=True)
class Architecture:
    """What makes one OSNet differ from another.

    Attributes:
        width: β of section 3.3, multiplies every number of channels but the embedding's.
        normalisation: "plain"; "ibn" adds instance normalisation to the stem and after both
            blocks of conv2; "ain" puts it inside the residual where a search found it to pay.
        streams: T of section 3.2, 1..4; stream t stacks t Lite 3x3 layers (eq. 2).
        equal_depth: every stream has as many layers as the deepest (table 5, "same depth").
        fusion: how streams are joined: one aggregation gate shared by all streams (eq. 3), or the
            ablations of table 5.
        lite: pointwise → depthwise (section 3.1), the other order, or a full 3x3 convolution.
        neck: batch normalisation after the embedding. Ours, not the paper's.
        small_input: 3x3/1 stem without pooling, for 32x32 pictures (section 4.3, CIFAR).
    """

    width: float = 1.0
    normalisation: Normalisation = "plain"
    streams: int = 4
    equal_depth: bool = False
    fusion: Fusion = "unified"
    lite: Lite = "pointwise_first"
    neck: bool = False
    small_input: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.streams <= len(STREAM_NAMES):
            raise ValueError(f"streams is {self.streams}; the paper's T goes from 1 to 4")
        if not LEAST_WIDTH <= self.width <= 4:
            raise ValueError(f"width is {self.width}; expected {LEAST_WIDTH} to 4")

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of stem, conv2, conv3, conv4."""
        stem, conv2, conv3, conv4 = (int(self.width * full) for full in FULL_CHANNELS)
        return stem, conv2, conv3, conv4

    def last_map(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of conv4's and conv5's maps, of an input of so many pixels."""
        stem = 1 if self.small_input else 4
        return -(-height // stem) // 4, -(-width // stem) // 4

    def takes(self, height: int, width: int) -> bool:
        """Whether AIN's last layers have more than one cell to normalise over."""
        return self.normalisation != "ain" or math.prod(self.last_map(height, width)) > 1

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of Lite layers of each stream; stream t sees (2t+1)x(2t+1) pixels."""
        if self.equal_depth:
            return (self.streams,) * self.streams
        return tuple(range(1, self.streams + 1))


class ConvBNReLU(nn.Module):
    """Convolution, batch (or instance) normalisation, ReLU: (n, c, h, w) → (n, c', h', w').

    Stem, 1x1 layers and transitions of table 1; instance normalisation in the stem of IBN and AIN
    (arXiv 1910.06827).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        relu: bool = True,
        instance_norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        norm = nn.InstanceNorm2d(out_channels, affine=True) if instance_norm else None
        self.bn: nn.Module = norm or nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True) if relu else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.relu is None else self.relu(x)


class Linear1x1(nn.Module):
    """1x1 convolution without activation: (n, c, h, w) → (n, c', h, w).

    Ends a block before the residual sum (section 3.2, figure 4); without normalisation where AIN
    normalises after it.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)


class Lite3x3(nn.Module):
    """Factorised 3x3 convolution, batch normalisation, ReLU; section 3.1, figure 3b.

    The paper's order is pointwise (1x1, linear), then depthwise 3x3: (n, c, h, w) → the same.
    Multiply-adds per pixel: c² + 9c instead of the 9c² of a full convolution.
    """

    def __init__(self, channels: int, lite: Lite) -> None:
        super().__init__()

        def pointwise() -> nn.Module:
            return nn.Conv2d(channels, channels, 1, bias=False)

        def depthwise() -> nn.Module:
            return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)

        if lite == "full":
            self.conv1: nn.Module = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.conv2: nn.Module | None = None
        elif lite == "pointwise_first":
            self.conv1, self.conv2 = pointwise(), depthwise()
        else:
            self.conv1, self.conv2 = depthwise(), pointwise()
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.conv2 is not None:
            x = self.conv2(x)
        out: Tensor = self.relu(self.bn(x))
        return out


class AggregationGate(nn.Module):
    """G of equation 3: (n, c, h, w) → weights in (0, 1), (n, c, 1, 1), or (n, 1, 1, 1).

    Global average pool, a bottleneck of c/16 with ReLU, sigmoid; section 3.2. One instance serves
    all streams of a block, so its size does not grow with T and its gradient sums over streams
    (equation 4).
    """

    def __init__(self, channels: int, *, outputs: int | None = None) -> None:
        super().__init__()
        hidden = max(channels // GATE_REDUCTION, 1)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(hidden, outputs or channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc2(self.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class OmniScaleBlock(nn.Module):
    """Omni-scale residual block: T streams of growing receptive field, gated; figure 4.

    (n, in_channels, h, w) → (n, out_channels, h, w); equations 1 to 3:
    y = relu(x + W3 · Σ_t G(s_t) ⊙ s_t), where s_t is t Lite layers on W1 · x.

    Args:
        arch: the switches.
        norm_inside: AIN's block: instance normalisation inside the residual.
        norm_after: IBN's block: instance normalisation after the residual sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        arch: Architecture,
        *,
        norm_inside: bool = False,
        norm_after: bool = False,
    ) -> None:
        super().__init__()
        middle = out_channels // 4  # bottleneck of section 3.2
        self.fusion = arch.fusion
        self.conv1 = ConvBNReLU(in_channels, middle)
        self.stream_names = [f"conv2{STREAM_NAMES[t]}" for t in range(arch.streams)]
        for name, depth in zip(self.stream_names, arch.depths, strict=True):
            layers = [Lite3x3(middle, arch.lite) for _ in range(depth)]
            # a stream of one layer is that layer itself in published weights
            self.add_module(name, layers[0] if depth == 1 else nn.Sequential(*layers))
        self._add_gates(middle, arch.streams)
        joined = middle * arch.streams if arch.fusion == "concat" else middle
        self.conv3 = Linear1x1(joined, out_channels, norm=not norm_inside)
        self.norm_inside = nn.InstanceNorm2d(out_channels, affine=True) if norm_inside else None
        self.downsample: Linear1x1 | None = None
        if in_channels != out_channels:
            self.downsample = Linear1x1(in_channels, out_channels)
        self.IN = nn.InstanceNorm2d(out_channels, affine=True) if norm_after else None

    def _add_gates(self, middle: int, streams: int) -> None:
        self.gate: AggregationGate | None = None
        self.gates: nn.ModuleList | None = None
        self.fixed_gates: nn.Parameter | None = None
        if self.fusion == "unified":
            self.gate = AggregationGate(middle)
        elif self.fusion == "streamwise":
            self.gate = AggregationGate(middle, outputs=1)
        elif self.fusion == "separate":
            self.gates = nn.ModuleList(AggregationGate(middle) for _ in range(streams))
        elif self.fusion == "fixed":
            self.fixed_gates = nn.Parameter(torch.zeros(streams, middle, 1, 1))

    def stream_outputs(self, x: Tensor) -> list[Tensor]:
        """The T streams s_t of equation 2 before gating, each (n, middle, h, w)."""
        x = self.conv1(x)
        return [cast(Callable[[Tensor], Tensor], getattr(self, n))(x) for n in self.stream_names]

    def gate_values(self, streams: list[Tensor]) -> list[Tensor]:
        """What each stream is multiplied by, each broadcastable to (n, middle, h, w).

        G(s_t) of equation 3, or what table 5 compares it with; ones where streams are not gated.
        """
        if self.gate is not None:
            return [self.gate(stream) for stream in streams]
        if self.gates is not None:
            return [gate(stream) for gate, stream in zip(self.gates, streams, strict=True)]
        if self.fixed_gates is not None:
            return list(torch.sigmoid(self.fixed_gates))
        return [torch.ones_like(stream[:, :1, :1, :1]) for stream in streams]

    def forward(self, x: Tensor) -> Tensor:
        streams = self.stream_outputs(x)
        if self.fusion == "concat":
            joined = torch.cat(streams, 1)
        elif self.fusion == "add":
            joined = sum(streams[1:], streams[0])
        else:
            gated = [s * g for s, g in zip(streams, self.gate_values(streams), strict=True)]
            joined = sum(gated[1:], gated[0])
        out = self.conv3(joined)
        if self.norm_inside is not None:
            out = self.norm_inside(out)
        out = out + (x if self.downsample is None else self.downsample(x))
        if self.IN is not None:
            out = self.IN(out)
        return torch.relu(out)


class OSNet(nn.Module):
    """The network of table 1, ending in an embedding, with optional heads on top.

    Args:
        arch: the switches.
        classes: size of the identity classifier, or 0 for none (a box needs none).
        attributes: size of the multi-label head (section 4.2, PA-100K), or 0 for none.

    In evaluation mode `forward` gives the embedding (n, 512), not normalised; `normalize` it and
    compare by inner product. Heads are asked for by `heads`.
    Source: table 1, sections 3.2, 3.3 and 4.
    """

    def __init__(self, arch: Architecture, classes: int = 0, attributes: int = 0) -> None:
        super().__init__()
        self.arch = arch
        stem, *stages = arch.channels
        self.conv1 = ConvBNReLU(
            3,
            stem,
            kernel=3 if arch.small_input else 7,
            stride=1 if arch.small_input else 2,
            instance_norm=arch.normalisation != "plain",
        )
        self.maxpool: nn.Module = (
            nn.Identity() if arch.small_input else nn.MaxPool2d(3, stride=2, padding=1)
        )
        self.conv2 = self._stage(0, stem, stages[0], reduce=True)
        self.conv3 = self._stage(1, stages[0], stages[1], reduce=True)
        self.conv4 = self._stage(2, stages[1], stages[2], reduce=False)
        self.conv5 = ConvBNReLU(stages[2], stages[2])
        self.fc = nn.Sequential(
            nn.Linear(stages[2], EMBEDDING_SIZE), nn.BatchNorm1d(EMBEDDING_SIZE), nn.ReLU()
        )
        self.neck = nn.BatchNorm1d(EMBEDDING_SIZE) if arch.neck else None
        self.classifier = (
            nn.Linear(EMBEDDING_SIZE, classes, bias=not arch.neck) if classes else None
        )
        self.attributes = nn.Linear(EMBEDDING_SIZE, attributes) if attributes else None
        self.apply(_initialise)

    def _stage(self, index: int, in_channels: int, channels: int, *, reduce: bool) -> nn.Sequential:
        inside = AIN_BLOCKS[index] if self.arch.normalisation == "ain" else (False, False)
        after = self.arch.normalisation == "ibn" and index == 0
        layers: list[nn.Module] = [
            OmniScaleBlock(
                in_channels if block == 0 else channels,
                channels,
                self.arch,
                norm_inside=inside[block],
                norm_after=after,
            )
            for block in range(2)
        ]
        if reduce:
            layers.append(nn.Sequential(ConvBNReLU(channels, channels), nn.AvgPool2d(2, stride=2)))
        return nn.Sequential(*layers)

    def features(self, x: Tensor) -> Tensor:
        """conv1 to conv5 of table 1: (n, 3, h, w) → (n, 512·width, h/16, w/16), not pooled."""
        x = self.maxpool(self.conv1(x))
        out: Tensor = self.conv5(self.conv4(self.conv3(self.conv2(x))))
        return out

    def pooled(self, x: Tensor) -> Tensor:
        """Pooling and fc of table 1: (n, 3, h, w) → (n, 512), before the neck, not negative."""
        out: Tensor = self.fc(self.features(x).mean((2, 3)))
        return out

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the training losses need, of images (n, 3, h, w).

        Returns:
            fc's output (n, 512), the embedding (n, 512), and class logits (n, classes) or None.
        """
        before = self.pooled(x)
        embedding = before if self.neck is None else self.neck(before)
        return before, embedding, None if self.classifier is None else self.classifier(embedding)

    def attribute_logits(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) → (n, attributes) logits, one independent label each (section 4.2).

        Raises:
            ValueError: the network was built without that head.
        """
        if self.attributes is None:
            raise ValueError("this OSNet was built without an attribute head (attributes=0)")
        out: Tensor = self.attributes(self.pooled(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (n, 512) of images (n, 3, h, w), RGB, ImageNet mean and deviation removed."""
        before = self.pooled(x)
        return before if self.neck is None else self.neck(before)


def _initialise(module: nn.Module) -> None:
    """He initialisation for convolutions, small normal weights for linear layers, as torchreid."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def input_size(scale: float = 1.0) -> tuple[int, int]:
    """Height and width of the input at γ of section 3.3; 1.0 is 256 by 128."""
    return round(256 * scale), round(128 * scale)


def count_parameters(model: OSNet) -> int:
    """Number of learned values of the network without its heads, as table 1 counts them."""
    heads = ("classifier.", "attributes.", "neck.")
    return sum(p.numel() for n, p in model.named_parameters() if not n.startswith(heads))


def count_multiply_adds(model: OSNet, height: int = 256, width: int = 128) -> int:
    """Multiply-adds of convolutions and linear layers for one image, without heads."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        weights = cast(Tensor, module.weight)
        total += weights[0].numel() * out[0].numel()

    hooks = [
        module.register_forward_hook(count)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name not in ("classifier", "attributes")
    ]
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            model.pooled(torch.zeros(1, 3, height, width))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return total
