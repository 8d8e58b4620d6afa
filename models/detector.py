"""The person detector: a small anchor-free network for fixed cameras, one class.

Promise: from a batch of letterboxed pictures to one row for each of the cells of three grids
(strides 8, 16, 32): a box and how sure the network is that a person fills it. Fully
convolutional: any input size whose sides are multiples of 32. At most 1 M parameters and 1.1 G
multiply-adds at 416 x 416 (`count_cost` counts them, a test holds them).

The picture of it:

    3 ─stem─ /2 ─down─ /4 Csp ─down─ /8 Csp ─down─ /16 Csp ─down─ /32 Csp+pool     backbone
                               │            │             │
                               P3 ◀──up──── P4 ◀──up───── P5                       top-down
                               P3 ──down──▶ P4 ──down───▶ P5                       bottom-up
                               └─ head: 3x3, then 1x1 to (score, l, t, r, b) of each cell

Why plain 3x3 convolutions and ReLU where networks of this size use depth-wise ones and SiLU: on
the processors of the boxes a dense convolution runs near the peak of the vector units and ReLU is
fused into it, a depth-wise one waits for memory (docs/detector.md has the measurement).

Sources: cross-stage partial blocks: Wang et al., arXiv:1911.11929; pyramid with a way back up:
Liu et al., arXiv:1803.01534; anchor-free distances from a cell: Tian et al., FCOS,
arXiv:1904.01355; the layout of the exported rows: Ge et al., YOLOX, arXiv:2107.08430.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)
# Distances leave the network as logarithms of strides; exp(±6) strides cover any picture, and
# the bound keeps half-precision training from overflowing.
_MAX_LOG_DISTANCE = 6.0
# A fresh detector says "no person" with this probability's complement (RetinaNet, section 4.1).
_PRIOR = 0.01


@dataclass(frozen=True)
class DetectorShape:
    """Widths and depths of the network.

    Attributes:
        stem: channels at stride 2.
        widths: channels at strides 4, 8, 16, 32.
        depths: bottlenecks of the block at each of those strides.
        neck: channels of the pyramid.
        head: channels of the head.
    """

    stem: int = 16
    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
    neck: int = 64
    head: int = 64

    def as_dict(self) -> dict[str, int | list[int]]:
        """Plain values, for a checkpoint."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.ReLU(inplace=True),
        )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, optionally with a way around them."""

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBlock(channels, channels, 3), ConvBlock(channels, channels, 3)
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.body(x)
        return x + changed if self.residual else changed


class Csp(nn.Module):
    """Half of the channels pass by, half run through bottlenecks; every stage is kept and mixed."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, residual: bool = True) -> None:
        super().__init__()
        half = self.kept_by = outputs // 2
        self.enter = ConvBlock(inputs, 2 * half)
        self.stages = nn.ModuleList(Bottleneck(half, residual=residual) for _ in range(depth))
        self.mix = ConvBlock((2 + depth) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        entered: Tensor = self.enter(x)
        # torch.chunk would export the arithmetic of its sizes too
        kept = list(torch.split(entered, self.kept_by, dim=1))
        for stage in self.stages:
            kept.append(stage(kept[-1]))
        mixed: Tensor = self.mix(torch.cat(kept, dim=1))
        return mixed


class PyramidPool(nn.Module):
    """Maxima over 5, 9 and 13 cells beside the input: the last stage sees the whole picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvBlock(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.mix = ConvBlock(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.enter(x)]
        for _ in range(3):
            kept.append(self.pool(kept[-1]))
        mixed: Tensor = self.mix(torch.cat(kept, dim=1))
        return mixed


class Backbone(nn.Module):
    """Features at strides 8, 16 and 32."""

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        w4, w8, w16, w32 = shape.widths
        d4, d8, d16, d32 = shape.depths
        self.to4 = nn.Sequential(
            ConvBlock(3, shape.stem, 3, 2), ConvBlock(shape.stem, w4, 3, 2), Csp(w4, w4, d4)
        )
        self.to8 = nn.Sequential(ConvBlock(w4, w8, 3, 2), Csp(w8, w8, d8))
        self.to16 = nn.Sequential(ConvBlock(w8, w16, 3, 2), Csp(w16, w16, d16))
        self.to32 = nn.Sequential(ConvBlock(w16, w32, 3, 2), Csp(w32, w32, d32), PyramidPool(w32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at8 = self.to8(self.to4(x))
        at16 = self.to16(at8)
        return at8, at16, self.to32(at16)


class Pyramid(nn.Module):
    """Top-down, then bottom-up; every level leaves with the same width."""

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        _, w8, w16, w32 = shape.widths
        n = shape.neck
        self.enter = nn.ModuleList(ConvBlock(w, n) for w in (w8, w16, w32))
        self.top_down = nn.ModuleList(Csp(2 * n, n, 1, residual=False) for _ in range(2))
        self.down = nn.ModuleList(ConvBlock(n, n, 3, 2) for _ in range(2))
        self.bottom_up = nn.ModuleList(Csp(2 * n, n, 1, residual=False) for _ in range(2))

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        p3, p4, p5 = (enter(x) for enter, x in zip(self.enter, features, strict=True))
        p4 = self.top_down[0](torch.cat([F.interpolate(p5, scale_factor=2.0), p4], dim=1))
        p3 = self.top_down[1](torch.cat([F.interpolate(p4, scale_factor=2.0), p3], dim=1))
        p4 = self.bottom_up[0](torch.cat([self.down[0](p3), p4], dim=1))
        p5 = self.bottom_up[1](torch.cat([self.down[1](p4), p5], dim=1))
        return p3, p4, p5


class Head(nn.Module):
    """One level's answers: a score's logit and the logarithms of four distances, per cell.

    While training a second 1x1 answers what the teacher would say; it runs in training
    only and shapes the features (`fold_teacher` mixes it into the first for the export).
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.body = ConvBlock(inputs, channels, 3)
        self.answer = nn.Conv2d(channels, 5, 1)
        self.imitate = nn.Conv2d(channels, 5, 1)
        for layer in (self.answer, self.imitate):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            layer.bias.data[0] = math.log(_PRIOR / (1.0 - _PRIOR))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.body(x)
        return self.answer(x), self.imitate(x) if self.training else None


def cells(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Centres and strides of all cells, finest level first, row by row.

    Args:
        height, width: of the input, pixels, multiples of 32.
    Returns:
        (n, 3) float32: x, y in pixels of the input, stride.
    """
    levels = []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(height // stride, device=device),
            torch.arange(width // stride, device=device),
            indexing="ij",
        )
        xy = (torch.stack([x, y], dim=-1).reshape(-1, 2).float() + 0.5) * stride
        levels.append(torch.cat([xy, torch.full_like(xy[:, :1], stride)], dim=1))
    return torch.cat(levels)


def boxes_of(log_distances: Tensor, grid: Tensor) -> Tensor:
    """Boxes from the distances of a cell's centre to its four sides.

    Args:
        log_distances: (b, n, 4) logarithms of left, top, right, bottom in strides.
        grid: (n, 3) of `cells`.
    Returns:
        (b, n, 4) float32, x1 y1 x2 y2 in pixels of the input, not clipped.
    """
    bounded = log_distances.float().clamp(-_MAX_LOG_DISTANCE, _MAX_LOG_DISTANCE)
    distances = bounded.exp() * grid[:, 2:3]
    return torch.cat([grid[:, :2] - distances[..., :2], grid[:, :2] + distances[..., 2:]], dim=-1)


class Detector(nn.Module):
    """The whole network.

    `forward` takes (b, 3, h, w) float, BGR 0..255, and gives the rows of all cells, (b, n, 5):
    logit of the score, then four logarithms of distances; while training a second tensor of the
    same form follows, which imitates the teacher.
    """

    def __init__(self, shape: DetectorShape | None = None) -> None:
        super().__init__()
        self.shape = shape or DetectorShape()
        self.backbone = Backbone(self.shape)
        self.pyramid = Pyramid(self.shape)
        self.heads = nn.ModuleList(Head(self.shape.neck, self.shape.head) for _ in STRIDES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        levels = self.pyramid(self.backbone(images * (1.0 / 128.0) - 1.0))
        answers, imitations = [], []
        for head, level in zip(self.heads, levels, strict=True):
            answer, imitation = head(level)
            answers.append(answer.flatten(2))
            if imitation is not None:
                imitations.append(imitation.flatten(2))
        rows = torch.cat(answers, dim=2).transpose(1, 2)
        if not imitations:
            return rows, None
        return rows, torch.cat(imitations, dim=2).transpose(1, 2)

    def fold_teacher(self, score_share: float, box_share: float = 0.0) -> None:
        """Mix the imitating answer into the first: shares in 0..1 of its logit and its distances.

        Both are 1x1 convolutions of the same features, so the mix costs nothing at inference.
        """
        for head in self.heads:
            assert isinstance(head, Head)
            for own, other in zip(head.answer.parameters(), head.imitate.parameters(), strict=True):
                own.data[:1].lerp_(other.data[:1], score_share)
                own.data[1:].lerp_(other.data[1:], box_share)


class ExportedDetector(nn.Module):
    """What the ONNX file computes: (1, 3, h, w) → (1, n, 6) in the decoded YOLOX layout.

    A row is centre x, centre y, width, height in pixels of the input, the score, and 1.0 (the
    probability of the only class, given that there is an object).
    """

    grid: Tensor

    def __init__(self, detector: Detector, height: int, width: int) -> None:
        super().__init__()
        self.detector = detector.eval()
        self.register_buffer("grid", cells(height, width))

    def forward(self, images: Tensor) -> Tensor:
        rows, _ = self.detector(images)
        boxes = boxes_of(rows[..., 1:], self.grid)
        low, high = boxes[..., :2], boxes[..., 2:]
        score = rows[..., :1].sigmoid()
        return torch.cat([(low + high) * 0.5, high - low, score, torch.ones_like(score)], dim=-1)


@dataclass(frozen=True)
class Cost:
    """What one picture costs.

    Attributes:
        parameters: of the exported network.
        multiply_adds: of its convolutions, at the size asked for.
    """

    parameters: int
    multiply_adds: int


def count_cost(detector: Detector, height: int = 416, width: int = 416) -> Cost:
    """Count parameters and multiply-adds of the exported network (convolutions; rest is < 1 %)."""
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        per_output = layer.weight[0].numel()
        total += per_output * output.shape[1] * output.shape[2] * output.shape[3]

    convolutions = [m for m in detector.modules() if isinstance(m, nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in convolutions]
    was_training = detector.training
    device = next(detector.parameters()).device
    try:
        with torch.no_grad():
            detector.eval()(torch.zeros(1, 3, height, width, device=device))
    finally:
        for hook in hooks:
            hook.remove()
        detector.train(was_training)
    imitating = sum(p.numel() for n, p in detector.named_parameters() if ".imitate." in n)
    return Cost(sum(p.numel() for p in detector.parameters()) - imitating, total)
