"""Which file does a name mean, and is it said why?"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import models_dir
from edge.model_pointer import POINTER, Pointer, read_pointer, write_pointer
from edge.models_dir import find_model, list_models, variants_of
from reid.model_errors import CardInvalid, CardMissing, ModelNotFound, WrongKind
from tests.unit.edge.tiny_models import (
    constant_detector,
    detector_card,
    embedder_card,
    mean_embedder,
    yolox_rows,
)


@pytest.fixture(autouse=True)
def _no_packaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packaged changes from release to release; these tests have folders of their own."""
    packaged = models_dir.packaged_dir
    monkeypatch.setattr(
        models_dir,
        "packaged_dir",
        lambda name="weights": None if name == "weights" else packaged(name),
    )


def embedder(folder: Path, name: str, seed: int = 0, **card: object) -> Path:
    path = mean_embedder(folder / f"{name}.onnx", seed=seed)
    embedder_card(path, **card)
    return path


def detector(folder: Path, name: str, **card: object) -> Path:
    path = constant_detector(folder / f"{name}.onnx", {"output": yolox_rows([], raw=True)})
    detector_card(path, **card)
    return path


def test_a_name_means_the_file_of_that_card(tmp_path: Path) -> None:
    path = embedder(tmp_path, "street")

    found = find_model("street", "embedder", tmp_path)

    assert (found.path, found.why) == (path, "the name street was asked for")


def test_a_path_means_that_file(tmp_path: Path) -> None:
    path = embedder(tmp_path, "street")

    found = find_model(str(path), "embedder", None)

    assert (found.path, found.name) == (path, "street")


def test_a_file_name_means_the_file_in_the_folder(tmp_path: Path) -> None:
    path = embedder(tmp_path, "street")

    assert find_model("street.onnx", "embedder", tmp_path).path == path


def test_a_detector_may_come_without_a_card_an_embedder_may_not(tmp_path: Path) -> None:
    bare = constant_detector(tmp_path / "d.onnx", {"output": yolox_rows([], raw=True)})
    vectors = mean_embedder(tmp_path / "e.onnx")

    assert find_model(str(bare), "detector", None).card is None
    with pytest.raises(CardMissing, match="--write-card"):
        find_model(str(vectors), "embedder", None)


def test_the_other_kind_is_refused(tmp_path: Path) -> None:
    embedder(tmp_path, "street")

    with pytest.raises(WrongKind, match="give the name of a detector here"):
        find_model("street", "detector", tmp_path)


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    embedder(tmp_path, "street")

    with pytest.raises(ModelNotFound, match=r"no embedder of that name in .*; it has street"):
        find_model("avenue", "embedder", tmp_path)


def test_default_is_the_card_that_says_so(tmp_path: Path) -> None:
    embedder(tmp_path, "a")
    path = embedder(tmp_path, "b", default=True)

    found = find_model("default", "embedder", tmp_path)

    assert found.path == path
    assert found.why == f"its card says default = true in {tmp_path}"


def test_default_is_what_the_operator_chose_before_all_else(tmp_path: Path) -> None:
    chosen = embedder(tmp_path, "a")
    embedder(tmp_path, "b", default=True)
    write_pointer(tmp_path, Pointer().using("embedder", "a"))

    found = find_model("default", "embedder", tmp_path)

    assert found.path == chosen
    assert "edge-models use chose a" in found.why


def test_where_commercial_use_is_required_the_default_is_one_that_allows_it(tmp_path: Path) -> None:
    embedder(tmp_path, "a", commercial_use=False)
    embedder(tmp_path, "b", commercial_use=False, default=True)

    none = find_model("default", "embedder", tmp_path, commercial=True)
    free = embedder(tmp_path, "c", commercial_use=True)
    found = find_model("default", "embedder", tmp_path, commercial=True)
    default = embedder(tmp_path, "d", commercial_use=True, default=True)

    assert none.name == "b", "whoever asks is told why this one is refused"
    assert found.path == free
    assert found.why == "its card allows commercial use, which no default's does"
    assert find_model("default", "embedder", tmp_path, commercial=True).path == default


def test_no_default_says_what_to_set(tmp_path: Path) -> None:
    embedder(tmp_path, "a")

    with pytest.raises(ModelNotFound, match=r"no default detector in .*EDGE_MODELS_DIR"):
        find_model("default", "detector", tmp_path)


def test_a_broken_card_is_raised_for_its_model_and_listed_for_others(tmp_path: Path) -> None:
    good = embedder(tmp_path, "good")
    bad = mean_embedder(tmp_path / "bad.onnx")
    bad.with_suffix(".toml").write_text("kind = 7")

    listing = list_models(tmp_path)

    assert [model.path for model in listing.models] == [good]
    assert len(listing.broken) == 1
    with pytest.raises(CardInvalid):
        find_model("bad", "embedder", tmp_path)


def test_variants_are_of_the_same_space_or_the_same_parent(tmp_path: Path) -> None:
    embedder(tmp_path, "float", seed=1, space_id="street")
    embedder(tmp_path, "small", seed=2, space_id="street", variant_id="int8")
    embedder(tmp_path, "other", seed=3, space_id="avenue", variant_id="int8")
    base = find_model("float", "embedder", tmp_path)

    assert [model.name for model in variants_of(base, tmp_path)] == ["small"]


def test_a_known_public_file_needs_no_card_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = embedder(tmp_path, "public")
    card = find_model("public", "embedder", tmp_path).card
    assert card is not None
    path.with_suffix(".toml").unlink()
    monkeypatch.setattr(models_dir, "known_cards", lambda: {card.sha256: card})
    models_dir._known_file.cache_clear()

    found = find_model("public", "embedder", tmp_path)

    assert found.card == card
    assert found.card_from == "the catalogue of known public files"
    models_dir._known_file.cache_clear()


def test_a_file_that_may_not_be_read_is_refused_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = embedder(tmp_path, "public")
    embedder(tmp_path, "street", seed=1)
    card = find_model("public", "embedder", tmp_path).card
    assert card is not None
    path.with_suffix(".toml").unlink()
    monkeypatch.setattr(models_dir, "known_cards", lambda: {card.sha256: card})
    models_dir._known_file.cache_clear()

    def refused(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:  # the tests may run as root, who may read everything
        patched.setattr(Path, "read_bytes", refused)
        with pytest.raises(ModelNotFound, match=r"cannot be read \(Permission denied\)"):
            models_dir.model_at(path)
        listed = [model.name for model in list_models(tmp_path).models]

    assert listed == ["street"]


def test_the_packaged_catalogue_can_be_read() -> None:
    names = {card.name for card in models_dir.known_cards().values()}

    assert {"yolox-nano", "osnet-x0.25-msmt17-combineall"} <= names


@pytest.mark.shared
def test_the_shared_models_folder_works_as_it_is(shared_dir: Path) -> None:
    models_dir._known_file.cache_clear()

    found = [
        find_model("default", kind, shared_dir / "models") for kind in ("detector", "embedder")
    ]

    assert [model.name for model in found] == ["yolox-nano", "osnet-x0.25-msmt17-combineall"]
    assert all("known public" in model.why for model in found)


def test_choices_are_undone_one_by_one(tmp_path: Path) -> None:
    pointer = Pointer().using("embedder", "a").using("detector", "d").using("embedder", "b")
    write_pointer(tmp_path, pointer)

    read = read_pointer(tmp_path)
    first = read.rolled_back("embedder")
    assert first is not None
    second = first.rolled_back("embedder")
    assert second is not None

    assert (read.chosen("embedder"), read.chosen("detector"), read.last) == ("b", "d", "embedder")
    assert (first.chosen("embedder"), second.chosen("embedder")) == ("a", None)
    assert second.rolled_back("embedder") is None


def test_choosing_the_same_again_changes_nothing_to_roll_back_to() -> None:
    pointer = Pointer().using("embedder", "a").using("embedder", "a")

    assert pointer.history["embedder"] == ("a", "default")


@pytest.mark.parametrize("text", ["embedder = 3", "= =", "embedder = [1, 2]"])
def test_a_pointer_that_is_not_ours_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / POINTER).write_text(text)

    with pytest.raises(CardInvalid, match="edge-models use NAME"):
        read_pointer(tmp_path)
