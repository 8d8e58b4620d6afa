"""The weights that are packaged: what `default` means with them."""

from __future__ import annotations

from edge.models_dir import find_default, variants_of


def test_our_int8_detector_may_stand_in_for_the_default_where_it_is_faster() -> None:
    default = find_default("detector", None)

    assert [model.name for model in variants_of(default, None)] == [f"{default.name}_int8"]
