"""A site's map as numbers, as a file, and among those before it."""

from __future__ import annotations

import datetime
import io
from pathlib import Path

import numpy as np
import pytest

from reid.card import sha256_of
from reid.model_errors import CardInvalid, CardMismatch, ModelNotFound, ModelUnreadable
from reid.site_map import (
    HIGHEST_THRESHOLD,
    Gain,
    MapCard,
    Separation,
    SiteMap,
    Spread,
    decode,
    encode,
    read_map,
    write_map,
)
from reid.site_maps import KEPT, SiteMaps, folder_of, site_folders
from tests.support.disk import files_of_at_most

SIZE, OUT = 6, 4


def made(seed: int = 1, *, hidden: int = 0) -> SiteMap:
    random = np.random.default_rng(seed)

    def half(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float16).astype(np.float32)

    layer = {"hidden": half(SIZE, hidden), "bias": half(hidden), "out": half(hidden, OUT)}
    return SiteMap(
        cameras=("door", "hall"),
        mean=half(3, SIZE),
        scale=np.abs(half(3, SIZE)) + np.float32(0.5),
        weight=half(SIZE, OUT),
        **(layer if hidden else {}),
    )


def card(site_map: SiteMap, number: int = 1) -> MapCard:
    content = encode(site_map)
    return MapCard(
        kind="site-map",
        space_id=f"parent/site/{number}",
        parent="parent",
        site="site",
        sha256=sha256_of(content),
        bytes=len(content),
        dimension=OUT,
        made_at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        fitted_on={"vectors": 10},
    )


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_map_does_what_its_text_says(hidden: int) -> None:
    site_map = made(hidden=hidden)
    x = np.random.default_rng(2).normal(size=(2, SIZE)).astype(np.float32)

    y = site_map.apply(x, ["hall", "unknown"])

    for row, number in ((0, 1), (1, 2)):
        z = (x[row].astype(float) - site_map.mean[number]) / site_map.scale[number]
        wanted = z @ site_map.weight
        if site_map.hidden is not None and site_map.bias is not None and site_map.out is not None:
            wanted = wanted + np.maximum(z @ site_map.hidden + site_map.bias, 0) @ site_map.out
        np.testing.assert_allclose(y[row], wanted / np.linalg.norm(wanted), atol=1e-5)


def test_no_vectors_give_no_vectors() -> None:
    assert made().apply(np.zeros((0, SIZE), np.float32), []).shape == (0, OUT)


def test_other_shapes_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\), expected \(n, 6\)"):
        made().apply(np.zeros((2, 5), np.float32), ["door", "door"])
    with pytest.raises(ValueError, match="1 cameras for 2 vectors"):
        made().apply(np.zeros((2, SIZE), np.float32), ["door"])


def test_a_file_gives_back_the_same_map(tmp_path: Path) -> None:
    site_map = made(hidden=3)
    write_map(site_map, card(site_map), tmp_path / "1.npz")

    found, its_card = read_map(tmp_path / "1.npz")

    x = np.ones((1, SIZE), np.float32)
    np.testing.assert_array_equal(found.apply(x, ["door"]), site_map.apply(x, ["door"]))
    assert its_card == card(site_map)


def test_the_same_map_is_always_the_same_bytes() -> None:
    assert encode(made()) == encode(made())


def test_a_changed_cut_or_missing_file_is_refused(tmp_path: Path) -> None:
    site_map = made()
    path = tmp_path / "1.npz"
    write_map(site_map, card(site_map), path)
    content = path.read_bytes()

    path.write_bytes(content[:-7])
    with pytest.raises(CardMismatch):
        read_map(path)
    path.unlink()
    with pytest.raises(ModelNotFound):
        read_map(path)
    path.write_bytes(content)
    path.with_suffix(".toml").write_text("kind = 'detector'\n")
    with pytest.raises(CardInvalid):
        read_map(path)


def test_bytes_that_are_no_map_are_refused() -> None:
    for content in (b"", b"PK\x03\x04 no zip", b"\x93NUMPY"):
        with pytest.raises(ModelUnreadable):
            decode(content, "x.npz")


@pytest.mark.parametrize("name", ["mean", "scale", "weight", "cameras", "version"])
def test_arrays_of_other_shapes_are_refused(name: str) -> None:
    arrays = dict(np.load(io.BytesIO(encode(made()))))
    arrays[name] = np.array(3.0) if name != "version" else np.zeros(3)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)

    with pytest.raises(ModelUnreadable):
        decode(file.getvalue(), "x.npz")


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 20_000, "#" * 100_000, "\x00"], ids=["endless", "long", "binary"]
)
def test_a_card_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "1.toml").write_text(text)

    with pytest.raises(CardInvalid):
        read_map(tmp_path / "1.npz")


def test_a_file_whose_packing_is_damaged_is_refused() -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, version=np.array(1), mean=np.zeros((90, 90)))
    content = bytearray(packed.getvalue())
    content[200:300] = bytes(100)

    with pytest.raises(ModelUnreadable):
        decode(bytes(content), "x.npz")


def test_numbers_that_cannot_be_divided_by_are_refused() -> None:
    good = made()
    with pytest.raises(ValueError, match="scale"):
        SiteMap(good.cameras, good.mean, np.zeros_like(good.scale), good.weight)


def test_the_newest_map_is_in_use_until_it_is_rolled_back(tmp_path: Path) -> None:
    maps = SiteMaps(tmp_path / "site")
    assert maps.current() is None
    for number in (1, 2):
        assert maps.next_number() == number
        maps.publish(number, made(number), card(made(number), number))

    used = maps.current_number()
    back, further, beyond = maps.roll_back(), maps.roll_back(), maps.roll_back()

    assert (used, back, further, beyond) == (2, 1, 0, None)
    assert maps.current() is None
    assert maps.next_number() == 3  # a number never means two maps


def test_a_map_that_was_rolled_back_is_not_gone_back_to_until_it_is_asked_for(
    tmp_path: Path,
) -> None:
    maps = SiteMaps(tmp_path)
    for number in (1, 2):
        maps.publish(number, made(number), card(made(number), number))
    maps.roll_back()
    maps.publish(3, made(3), card(made(3), 3))

    past_two = maps.roll_back()
    maps.use(2)
    maps.publish(4, made(4), card(made(4), 4))
    to_two = maps.roll_back()

    assert (past_two, to_two) == (1, 2)


def test_a_rollback_to_a_damaged_map_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    maps = SiteMaps(tmp_path)
    for number in (1, 2):
        maps.publish(number, made(number), card(made(number), number))
    (tmp_path / "1.npz").write_bytes(b"torn")

    with pytest.raises(CardMismatch):
        maps.roll_back()

    assert maps.current_number() == 2
    assert not (tmp_path / "2.withdrawn").exists()


def test_a_rollback_on_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    maps = SiteMaps(tmp_path)
    maps.publish(1, made(), card(made()))

    with files_of_at_most(0), pytest.raises(OSError, match="File too large") as full:
        maps.roll_back()

    assert full.value.filename == str(tmp_path / "current")
    assert maps.current_number() == 1
    assert not (tmp_path / "1.withdrawn").exists()


def test_only_some_old_maps_are_kept(tmp_path: Path) -> None:
    maps = SiteMaps(tmp_path)
    for number in range(1, KEPT + 3):
        maps.publish(number, made(number), card(made(number), number))
        if number == 1:
            maps.roll_back()

    assert maps.numbers() == list(range(3, KEPT + 3))
    assert not list(tmp_path.glob("1.*"))


def test_the_map_that_was_in_use_outlives_newer_ones_that_were_rolled_back(tmp_path: Path) -> None:
    maps = SiteMaps(tmp_path)
    for number in range(1, KEPT + 1):
        maps.publish(number, made(number), card(made(number), number))
    for _ in range(KEPT - 1):
        maps.roll_back()
    in_use = maps.current_number()

    maps.publish(KEPT + 1, made(KEPT + 1), card(made(KEPT + 1), KEPT + 1))
    kept = maps.numbers()
    back = maps.roll_back()

    assert in_use == 1
    assert len(kept) == KEPT
    assert back == 1
    assert maps.current() is not None


def test_a_map_chosen_by_hand_outlives_newer_ones_too(tmp_path: Path) -> None:
    maps = SiteMaps(tmp_path)
    for number in range(1, KEPT + 1):
        maps.publish(number, made(number), card(made(number), number))
    maps.use(1)

    maps.publish(KEPT + 1, made(KEPT + 1), card(made(KEPT + 1), KEPT + 1))

    assert maps.numbers() == [1, *range(3, KEPT + 2)]


def test_a_number_that_is_not_there_cannot_be_taken_into_use(tmp_path: Path) -> None:
    maps = SiteMaps(tmp_path)
    for number in (1, 2):
        maps.publish(number, made(number), card(made(number), number))

    with pytest.raises(ModelNotFound):
        maps.use(7)
    still = maps.current_number()
    maps.use(1)

    assert (still, maps.current_number(), maps.card(1).space_id) == (2, 1, "parent/site/1")


@pytest.mark.parametrize(
    ("errors", "times", "better"),
    [
        ((0.08, 0.06), (None, None), True),
        ((0.08, 0.08), (None, None), False),
        ((0.08, 0.08), (0.5, 0.6), True),
        ((0.08, 0.04), (0.6, 0.5), False),  # better in one camera, worse across
    ],
)
def test_a_card_says_whether_its_map_helps(
    errors: tuple[float, float], times: tuple[float | None, float | None], better: bool
) -> None:
    before, after = (
        Separation(
            positive_mean=0.5, positive_std=0.1, negative_mean=1.0, negative_std=0.1,
            overlap=0.1, error=error,
        )
        for error in errors
    )  # fmt: skip
    told = card(made()).model_copy(
        update={
            "held_back_before": before,
            "held_back_after": after,
            "transit_before": times[0],
            "transit_after": times[1],
        }
    )

    assert told.helps is better
    assert not card(made()).helps


@pytest.mark.parametrize(
    ("pairs", "transit", "better"),
    [
        ((0.01, 0.02), None, True),
        ((-0.01, 0.05), None, False),
        ((-0.03, 0.0), (0.01, 0.09), True),
        ((-0.03, -0.01), (0.01, 0.09), False),
        ((0.01, 0.02), (-0.01, 0.09), False),  # better in one camera, by chance across
    ],
)
def test_a_card_that_says_how_sure_its_gains_are_is_judged_by_that(
    pairs: tuple[float, float], transit: tuple[float, float] | None, better: bool
) -> None:
    def gain(bounds: tuple[float, float]) -> Gain:
        return Gain(value=sum(bounds) / 2, low=bounds[0], high=bounds[1])

    figures = Separation(
        positive_mean=0.5, positive_std=0.1, negative_mean=1.0, negative_std=0.1,
        overlap=0.1, error=0.08,
    )  # fmt: skip
    told = card(made()).model_copy(
        update={
            "held_back_before": figures,
            "held_back_after": figures,
            "pairs_gain": gain(pairs),
            "transit_gain": None if transit is None else gain(transit),
        }
    )

    assert told.helps is better


def test_a_threshold_stays_as_far_above_what_other_people_have() -> None:
    told = card(made()).model_copy(
        update={"others_before": Spread(mean=0.5, std=0.1), "others_after": Spread(mean=0, std=0.2)}
    )

    assert told.threshold(0.8) == pytest.approx(0.6)
    assert told.threshold(0.99) == HIGHEST_THRESHOLD
    assert card(made()).threshold(0.8) is None


@pytest.mark.parametrize("site", [".", "..", "../gate", "a/b", "north gate", "größe", ".hidden"])
def test_a_site_of_any_name_has_a_folder_of_its_own_below_that_of_all(
    tmp_path: Path, site: str
) -> None:
    folder = folder_of(tmp_path, site)
    folder.mkdir()

    assert folder.resolve().parent == tmp_path.resolve()
    assert site_folders(tmp_path) == {site: folder}
