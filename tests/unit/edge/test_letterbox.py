"""Is a picture put into the model's input as its card says, and are boxes brought back from it?"""

from __future__ import annotations

import numpy as np
import pytest

from edge.preprocess import Preprocessor, place
from reid.card import InputSpec


def spec(fit: str, **changes: object) -> InputSpec:
    fields = {"height": 64, "width": 64, "colour": "bgr", "range": 255, "fit": fit}
    return InputSpec.model_validate({**fields, **changes})


@pytest.mark.parametrize("fit", ["letterbox_top_left", "letterbox_centre", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(48, 96), (96, 48), (64, 64), (33, 77), (1, 500)])
def test_boxes_come_back_to_where_they_were(fit: str, height: int, width: int) -> None:
    placement, _, _ = place(height, width, spec(fit))
    boxes = np.array([[0, 0, width, height], [1, 0, width / 2, height / 2]], np.float32)
    scale = np.array([placement.scale_x, placement.scale_y] * 2, np.float32)
    shift = np.array([placement.left, placement.top] * 2, np.float32)

    back = placement.to_frame(boxes * scale + shift)

    np.testing.assert_allclose(back, boxes, atol=1e-3)


def test_boxes_are_clipped_to_the_frame() -> None:
    placement, _, _ = place(48, 96, spec("letterbox_centre"))

    back = placement.to_frame(np.array([[-50, -50, 500, 500]], np.float32))

    np.testing.assert_array_equal(back, [[0, 0, 96, 48]])


def test_top_left_letterbox_pads_right_and_below() -> None:
    prepare = Preprocessor(spec("letterbox_top_left"))
    image = np.full((32, 64, 3), 200, np.uint8)

    prepare(image)

    assert (prepare.input[0, :, :32] == 200).all()
    assert (prepare.input[0, :, 32:] == 114).all()


def test_centred_letterbox_pads_evenly() -> None:
    prepare = Preprocessor(spec("letterbox_centre"))
    image = np.full((32, 64, 3), 200, np.uint8)

    prepare(image)

    assert (prepare.input[0, :, 16:48] == 200).all()
    assert (prepare.input[0, :, :16] == 114).all()
    assert (prepare.input[0, :, 48:] == 114).all()


def test_a_frame_of_another_size_leaves_nothing_of_the_last_one() -> None:
    prepare = Preprocessor(spec("letterbox_top_left"))
    prepare(np.full((64, 64, 3), 250, np.uint8))

    prepare(np.full((64, 32, 3), 10, np.uint8))

    assert (prepare.input[0, :, :, :32] == 10).all()
    assert (prepare.input[0, :, :, 32:] == 114).all()


@pytest.mark.parametrize("colour", ["bgr", "rgb"])
def test_pixels_become_normalised_planes_in_the_models_order(colour: str) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    prepare = Preprocessor(spec("stretch", colour=colour, range=1, mean=mean, std=std))
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    prepare(image)

    ordered = image if colour == "bgr" else image[:, :, ::-1]
    expected = (ordered / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(prepare.input[0], expected.transpose(2, 0, 1), atol=1e-6)


def test_the_input_buffer_is_kept_from_frame_to_frame() -> None:
    prepare = Preprocessor(spec("letterbox_centre"))
    before = prepare.input

    prepare(np.zeros((30, 50, 3), np.uint8))
    prepare(np.zeros((50, 30, 3), np.uint8))

    assert prepare.input is before


def test_a_picture_that_is_a_view_of_a_larger_one_is_read_right() -> None:
    prepare = Preprocessor(spec("stretch"))
    large = np.random.default_rng(2).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    view = large[20:84, 30:94]

    prepare(view)

    np.testing.assert_array_equal(prepare.input[0], view.transpose(2, 0, 1))
