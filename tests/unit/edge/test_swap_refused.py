"""Is a bad model refused, said and counted, and does the one before it stay?"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.config import EmbedConfig
from reid.model_errors import LicenceRefused, ModelError, ModelNotFound
from tests.unit.edge.model_box import Box, score, settle


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _other_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 0xFF
    path.write_bytes(content)


def _broken_card(path: Path) -> None:
    path.with_suffix(".toml").write_text("kind = 1")


def _endless_card(path: Path) -> None:
    path.with_suffix(".toml").write_text("x = " + "[" * 20_000)


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_cut, "card_mismatch"),
        (_other_bytes, "card_mismatch"),
        (_broken_card, "card_invalid"),
        (_endless_card, "card_invalid"),
        (_gone, "not_found"),
    ],
)
def test_a_bad_model_is_refused_counted_and_the_old_one_stays(
    damage: Callable[[Path], None], code: str, box: Box
) -> None:
    keeper = box.keeper()
    path = box.detector("bad", score=0.5)
    damage(path)

    box.use("detector", "bad")
    settle(keeper)

    assert score(keeper) == 0.9
    assert keeper.refused == {code: 1}
    (refused,) = box.told("refused")
    assert refused.text.endswith("d stays")


@pytest.mark.parametrize(
    "text",
    ["x = " + "[" * 20_000, "#" * 100_000, 'detector = ["' + "a" * 5_000 + '"]'],
    ids=["endless", "long", "long name"],
)
def test_a_pointer_that_nobody_meant_is_refused_and_the_models_stay(text: str, box: Box) -> None:
    keeper = box.keeper()

    (box.models / "current.toml").write_text(text)
    settle(keeper)

    assert score(keeper) == 0.9
    assert {event.kind for event in box.told("refused")} == {"detector", "embedder"}


def test_a_card_of_no_end_beside_the_running_model_hides_no_other(box: Box) -> None:
    _endless_card(box.detector("hostile", score=0.1))

    keeper = box.keeper()

    assert score(keeper) == 0.9


def test_a_refused_model_is_taken_once_it_is_mended(box: Box) -> None:
    keeper = box.keeper()
    path = box.detector("late", score=0.5)
    whole = path.read_bytes()
    _cut(path)
    box.use("detector", "late")
    settle(keeper)

    path.write_bytes(whole)
    settle(keeper)

    assert score(keeper) == 0.5


def test_other_golden_values_are_refused(box: Box) -> None:
    keeper = box.keeper()
    box.detector("liar", score=0.5, golden={"values": (0.1,) * 16, "tolerance": 1e-4})

    box.use("detector", "liar")
    settle(keeper)

    assert score(keeper) == 0.9
    assert "golden output is off by" in box.told("refused")[0].text


def test_what_may_not_be_used_commercially_is_refused_where_that_was_demanded(box: Box) -> None:
    box.embedder("research", space_id="space-r", seed=3, commercial_use=False)
    keeper = box.keeper(require_commercial=True)

    box.use("embedder", "research")
    settle(keeper)

    assert list(keeper.variants) == ["space-a"]
    assert keeper.refused == {"licence": 1}
    with pytest.raises(LicenceRefused):
        box.keeper(require_commercial=True)


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_start_with_a_broken_choice_takes_the_choice_before_it_and_says_so(
    box: Box, harm: str
) -> None:
    chosen = box.embedder("f", space_id="space-b", seed=2)
    box.use("embedder", "f")
    if harm == "cut":
        chosen.write_bytes(chosen.read_bytes()[:100])
    else:
        chosen.unlink()

    keeper = box.keeper()

    assert [e.space_id for e in keeper.embedders()] == ["space-a"]
    assert keeper.why("embedder") == "e was chosen before"
    assert [(event.kind, "e stands in" in event.text) for event in box.told("refused")] == [
        ("embedder", True)
    ]
    assert sum(keeper.refused.values()) == 1


def test_a_broken_choice_that_is_mended_is_taken_again(box: Box) -> None:
    chosen = box.embedder("f", space_id="space-b", seed=2)
    box.use("embedder", "f")
    whole = chosen.read_bytes()
    chosen.write_bytes(whole[:100])
    keeper = box.keeper()

    chosen.write_bytes(whole)
    settle(keeper)

    assert keeper.embedders()[0].space_id == "space-b"


def test_nothing_stands_in_for_a_model_asked_for_by_name(box: Box) -> None:
    (box.models / "e.onnx").write_bytes(b"cut")

    with pytest.raises(ModelError):
        box.keeper(embed=EmbedConfig(model="e"))


def test_a_start_without_a_model_is_refused(box: Box) -> None:
    shutil.rmtree(box.models)

    with pytest.raises(ModelNotFound):
        box.keeper()
