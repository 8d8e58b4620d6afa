"""Do the random changes of training images do what they say, fixed by their random numbers?"""

from __future__ import annotations

import torch

from models.augment import COLUMNS, augment, normalise, uniforms
from models.recipe import Augment

MANY = Augment(erase=0.5, jitter=0.3, hue_deg=10, grey=0.2, blur=0.5, rotate_deg=5)


def test_augmentation_is_fixed_by_its_random_numbers() -> None:
    images = torch.rand(4, 3, 32, 16, generator=torch.Generator().manual_seed(1))
    how = MANY

    one = augment(images, uniforms(3, 17, 4), how)

    assert torch.equal(one, augment(images, uniforms(3, 17, 4), how))
    assert not torch.equal(one, augment(images, uniforms(3, 18, 4), how))
    assert torch.isfinite(one).all()


def test_everything_off_only_normalises() -> None:
    images = torch.rand(3, 3, 16, 8, generator=torch.Generator().manual_seed(2))
    off = Augment(flip=0, shift=0, zoom=0)

    found = augment(images, uniforms(1, 1, 3), off)

    torch.testing.assert_close(found, normalise(images))


def test_flip_mirrors_and_erase_removes_a_rectangle() -> None:
    images = torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(3))
    random = uniforms(1, 1, 2)

    mirrored = augment(images, random, Augment(flip=1, shift=0, zoom=0))
    resampled = augment(images, random, Augment(flip=1, shift=0, zoom=1e-9))
    erased = augment(images, random, Augment(flip=0, shift=0, zoom=0, erase=1))

    torch.testing.assert_close(mirrored, normalise(images).flip(3))
    torch.testing.assert_close(resampled, mirrored, atol=1e-4, rtol=0)
    gone = (erased == 0).all(1)
    share = gone.float().mean((1, 2))
    assert ((share > 0.01) & (share < 0.5)).all()
    rows, columns = gone[0].any(1).sum(), gone[0].any(0).sum()
    assert gone[0].sum() == rows * columns


def test_no_hue_and_no_jitter_leave_colours_alone() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(4)) * 0.9 + 0.05
    grey = augment(images, uniforms(1, 1, 2), Augment(flip=0, shift=0, zoom=0, grey=1.0))
    same = augment(images, uniforms(1, 1, 2), Augment(flip=0, shift=0, zoom=0, hue_deg=1e-6))

    torch.testing.assert_close(same, normalise(images), atol=1e-4, rtol=1e-4)
    back = grey * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    back = back + torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    torch.testing.assert_close(back[:, 0], back[:, 1], atol=1e-5, rtol=0)


def test_a_cast_changes_red_and_blue_of_grey_and_leaves_green() -> None:
    grey = torch.full((64, 3, 8, 8), 0.5)
    still = Augment(flip=0, shift=0, zoom=0, cast=0.1)

    found = augment(grey, uniforms(1, 1, 64), still) - normalise(grey)

    deviation = torch.tensor([0.229, 0.224, 0.225])
    change = found[:, :, 0, 0] * deviation / 0.5  # relative, by image and channel
    assert change[:, 1].abs().max() < 1e-6
    for channel in (0, 2):
        assert 0.08 < change[:, channel].abs().max() <= 0.1 + 1e-6
    assert abs(float(torch.corrcoef(change[:, [0, 2]].T)[0, 1])) < 0.4  # each by itself


def test_random_numbers_are_enough_for_every_change() -> None:
    everything = Augment(
        erase=1,
        jitter=0.2,
        hue_deg=5,
        grey=0.5,
        cast=0.1,
        blur=1,
        rotate_deg=3,
        shift=0.1,
        zoom=0.1,
    )

    assert uniforms(0, 0, 2).shape == (2, COLUMNS)
    augment(torch.rand(2, 3, 16, 8), uniforms(0, 0, 2), everything)
