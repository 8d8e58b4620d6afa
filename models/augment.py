"""Random changes of training images, a whole batch at once, on the device that holds them.

Promise: the result depends on images and the table of uniform random numbers alone; `uniforms`
makes that table from (seed, step), so a run repeats and resumes exactly, on any device.
Colours are changed on RGB in 0..1, before ImageNet's mean and deviation are removed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.imagenet import MEAN, STD
from models.recipe import Augment

COLUMNS = 24
ERASE_AREA = (0.02, 0.4)  # arXiv 1708.04896, section 4.2
ERASE_RATIO = (0.3, 1 / 0.3)
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def uniforms(seed: int, step: int, batch: int) -> Tensor:
    """(batch, COLUMNS) float32 in [0, 1), fixed by seed and step."""
    generator = torch.Generator().manual_seed((seed << 32) + step)
    return torch.rand(batch, COLUMNS, generator=generator)


def normalise(images: Tensor) -> Tensor:
    """(n, 3, h, w) RGB in 0..1 → ImageNet's mean and deviation removed."""
    mean = images.new_tensor(MEAN).view(1, 3, 1, 1)
    return (images - mean) / images.new_tensor(STD).view(1, 3, 1, 1)


def augment(images: Tensor, random: Tensor, how: Augment) -> Tensor:
    """Change and normalise a batch.

    Args:
        images: (n, 3, h, w) float32, RGB in 0..1.
        random: (n, COLUMNS) of `uniforms`, on the same device.

    Returns:
        (n, 3, h, w) float32 for the network. Where a shift shows what is outside the image, and
        where a rectangle was erased, the value is 0, ImageNet's mean.
    """
    column = iter(random.unbind(1))
    x = images
    if how.blur:
        x = _blur(x, next(column), next(column), how.blur)
    if how.jitter or how.hue_deg or how.grey:
        x = _colour(x, [next(column) for _ in range(6)], how)
    if how.cast:
        x = _cast(x, random[:, -2:], how.cast)
    x = normalise(x)
    x = _move(x, [next(column) for _ in range(5)], how)
    if how.erase:
        x = _erase(x, [next(column) for _ in range(5)], how.erase)
    return x


def _signed(uniform: Tensor) -> Tensor:
    return uniform.mul(2).sub(1)


def _blur(x: Tensor, chance: Tensor, amount: Tensor, probability: float) -> Tensor:
    small = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    if small.shape != x.shape:
        small = F.interpolate(small, size=x.shape[2:], mode="bilinear")
    weight = torch.where(chance < probability, amount, torch.zeros_like(amount))
    return torch.lerp(x, small, weight.view(-1, 1, 1, 1))


def _colour(x: Tensor, random: list[Tensor], how: Augment) -> Tensor:
    """One 3x3 matrix and one offset per image hold saturation, hue, brightness and contrast."""
    n = len(x)
    weights = x.new_tensor(GREY)
    brightness, contrast, saturation, gamma = (1 + how.jitter * _signed(r) for r in random[:4])
    saturation = torch.where(random[5] < how.grey, torch.zeros_like(saturation), saturation)
    identity = torch.eye(3, device=x.device).expand(n, 3, 3)
    to_grey = weights.expand(3, 3).expand(n, 3, 3)
    mix = to_grey + saturation.view(n, 1, 1) * (identity - to_grey)
    if how.hue_deg:
        mix = mix @ _hue(_signed(random[4]) * math.radians(how.hue_deg))
    scale = (brightness * contrast).view(n, 1, 1)
    centre = x.mean((2, 3)) @ weights  # contrast turns around the image's mean grey
    offset = (brightness * (1 - contrast) * centre).view(n, 1, 1)
    flat = (scale * mix) @ x.flatten(2) + offset
    return flat.clamp(1e-4, 1).pow(gamma.view(n, 1, 1)).view_as(x)


def _cast(x: Tensor, random: Tensor, most: float) -> Tensor:
    red, blue = (1 + most * _signed(random)).unbind(1)
    gains = torch.stack([red, torch.ones_like(red), blue], 1)
    return (x * gains.view(-1, 3, 1, 1)).clamp(0, 1)


def _hue(angle: Tensor) -> Tensor:
    """(n, 3, 3): rotation of RGB about the grey axis (Rodrigues' formula)."""
    cosine, sine = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    third, root = 1 / 3, math.sqrt(1 / 3)
    cross = angle.new_tensor([[0, -root, root], [root, 0, -root], [-root, root, 0]])
    identity = torch.eye(3, device=angle.device)
    return cosine * identity + sine * cross + (1 - cosine) * third


def _move(x: Tensor, random: list[Tensor], how: Augment) -> Tensor:
    """Mirror, shift, scale and rotate in one resampling."""
    n, _, height, width = x.shape
    mirror = torch.where(random[0] < how.flip, -1.0, 1.0)
    if not (how.shift or how.zoom or how.rotate_deg):
        return torch.where(mirror.view(n, 1, 1, 1) < 0, x.flip(3), x)
    zoom = 1 + how.zoom * _signed(random[1])
    angle = math.radians(how.rotate_deg) * _signed(random[2])
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    aspect = height / width
    theta = torch.stack(
        [
            torch.stack([cosine * mirror, -sine * aspect, 2 * how.shift * _signed(random[3])], 1),
            torch.stack([sine * mirror / aspect, cosine, 2 * how.shift * _signed(random[4])], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 3, height, width], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _erase(x: Tensor, random: list[Tensor], probability: float) -> Tensor:
    n, _, height, width = x.shape
    chance, area, ratio, top, left = random
    area = (ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * area) * height * width
    low, high = math.log(ERASE_RATIO[0]), math.log(ERASE_RATIO[1])
    ratio = (low + (high - low) * ratio).exp()
    tall = (area * ratio).sqrt().clamp(max=height - 1).view(n, 1, 1)
    wide = (area / ratio).sqrt().clamp(max=width - 1).view(n, 1, 1)
    top, left = top.view(n, 1, 1) * (height - tall), left.view(n, 1, 1) * (width - wide)
    rows = torch.arange(height, device=x.device).view(1, height, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, width)
    inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    inside &= (chance < probability).view(n, 1, 1)
    return x.masked_fill(inside.unsqueeze(1), 0.0)
