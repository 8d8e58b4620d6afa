"""Does a new space bridge from the old, and for how long?"""

from __future__ import annotations

import numpy as np

from edge.config import EmbedConfig
from edge.model_pointer import read_pointer, write_pointer
from tests.unit.edge.model_box import Box, settle

CROP = np.full((40, 20, 3), 90, np.uint8)


def test_a_new_space_runs_beside_the_old_one_until_the_overlap_ends(box: Box) -> None:
    keeper = box.keeper()
    box.embedder("new", space_id="space-b", seed=2)

    box.use("embedder", "new")
    settle(keeper)
    during = [embedder.space_id for embedder in keeper.embedders()]
    box.clock.now += 3599.0
    keeper.look()
    shortly_before = [embedder.space_id for embedder in keeper.embedders()]
    box.clock.now += 2.0
    keeper.look()
    after = [embedder.space_id for embedder in keeper.embedders()]

    assert during == shortly_before == ["space-b", "space-a"]
    assert after == ["space-b"]
    assert [event.what for event in box.events] == ["bridge", "taken", "bridge_ended"]


def test_both_embedders_of_a_bridge_embed(box: Box) -> None:
    keeper = box.keeper()
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")
    settle(keeper)

    rows = {embedder.space_id: embedder.embed([CROP])[0] for embedder in keeper.embedders()}

    assert set(rows) == {"space-a", "space-b"}
    assert not np.allclose(rows["space-a"], rows["space-b"])


def test_a_variant_of_the_same_space_needs_no_bridge(box: Box) -> None:
    keeper = box.keeper()
    box.embedder("fast", space_id="space-a", seed=1, variant_id="int8")

    box.use("embedder", "fast")
    settle(keeper)

    assert keeper.variants == {"space-a": "int8"}


def test_rolling_back_during_a_bridge_makes_the_old_embedder_the_main_one(box: Box) -> None:
    keeper = box.keeper()
    old = keeper.embedders()[0]
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")
    settle(keeper)

    undone = read_pointer(box.models).rolled_back("embedder")
    assert undone is not None
    write_pointer(box.models, undone)
    settle(keeper)

    assert keeper.embedders()[0] is old
    assert [embedder.space_id for embedder in keeper.embedders()] == ["space-a", "space-b"]


def test_a_bridge_goes_on_after_a_restart(box: Box) -> None:
    keeper = box.keeper()
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")
    settle(keeper)

    box.clock.now += 1800.0
    restarted = box.keeper()
    both = list(restarted.variants)
    box.clock.now += 1801.0
    restarted.look()

    assert both == ["space-b", "space-a"]
    assert list(restarted.variants) == ["space-b"]


def test_a_model_changed_while_the_box_was_off_starts_a_bridge(box: Box) -> None:
    box.keeper()
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")

    restarted = box.keeper()

    assert list(restarted.variants) == ["space-b", "space-a"]


def test_a_bridge_whose_old_model_is_gone_is_said(box: Box) -> None:
    box.keeper()
    box.embedder("new", space_id="space-b", seed=2)
    box.use("embedder", "new")
    (box.models / "e.onnx").unlink()

    restarted = box.keeper()

    assert list(restarted.variants) == ["space-b"]
    assert "no bridge from the old embedder's space space-a" in box.told("refused")[0].text


def test_no_overlap_ends_the_old_embedder_at_once(box: Box) -> None:
    keeper = box.keeper(embed=EmbedConfig(overlap_s=0.0))
    box.embedder("new", space_id="space-b", seed=2)

    box.use("embedder", "new")
    settle(keeper)

    assert list(keeper.variants) == ["space-b"]
