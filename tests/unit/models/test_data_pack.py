"""Packs and the sampler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.data.errors import DataError
from models.data.pack import VERSION, encode, load_packs, save, write_pack
from models.data.readers import DISTRACTOR, JUNK, open_dataset
from models.data.sampler import BySetSampler, PKSampler
from tests.unit.models.drawn_people import figure, market, write


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    dataset = open_dataset("market1501", market(tmp_path / "set", train=3, test=2, shots=2))
    path = tmp_path / "set.npz"
    write_pack(
        dataset,
        ["train", "query", "gallery"],
        path,
        size=(64, 32),
        quality=90,
        keep=lambda sample: sample.person != JUNK,
    )
    return path


def test_what_was_packed_comes_back_in_order(tmp_path: Path, packed: Path) -> None:
    dataset = open_dataset("market1501", tmp_path / "set")
    kept = [s for s in dataset.part(["train", "query", "gallery"]) if s.person != JUNK]

    pack = load_packs([packed])

    assert pack.person.tolist() == [s.person for s in kept]
    assert pack.camera.tolist() == [s.camera for s in kept]
    original = dataset.images.image(kept[5].name)
    assert original is not None
    difference = pack.images[5].astype(int) - original[:, :, ::-1].astype(int)
    assert np.abs(difference).mean() < 6
    assert pack.where("market1501:query").tolist() == [
        i for i, s in enumerate(kept) if s in dataset.query
    ]


def test_people_of_different_packs_never_mix(packed: Path) -> None:
    pack = load_packs([packed, packed])

    half = len(pack.person) // 2
    one, other = pack.person[:half], pack.person[half:]
    assert not set(one[one > 0]) & set(other[other > 0])
    assert 0 in one
    assert 0 in other
    assert len(pack.sources) == 6


def test_numbers_of_any_size_stay_apart_and_in_order_from_pack_to_pack(tmp_path: Path) -> None:
    people, cameras = [2_000_000, 1, 1_000_002, 0, JUNK], [300, 1, 101, 1, 1]
    paths = [tmp_path / f"{name}.npz" for name in "abc"]
    for path in paths:
        save(
            path,
            path.stem,
            [encode(figure(1, 1, 0), (64, 32), 80)] * 5,
            size=(64, 32),
            part=["train"] * 5,
            person=people,
            camera=cameras,
        )

    pack = load_packs(paths)

    assert pack.person[:5].tolist() == people
    assert (pack.person.reshape(3, 5)[:, 3:] == [DISTRACTOR, JUNK]).all()
    known = pack.person > 0
    _, classes = np.unique(pack.person[known], return_inverse=True)
    assert classes.tolist() == [2, 0, 1, 5, 3, 4, 8, 6, 7]
    seen = pack.camera.reshape(3, 5)
    assert not set(seen[0]) & set(seen[1]) and not set(seen[:2].ravel()) & set(seen[2])


def test_packs_of_different_sizes_join_at_the_larger(tmp_path: Path, packed: Path) -> None:
    dataset = open_dataset("market1501", tmp_path / "set")
    write_pack(dataset, ["train"], tmp_path / "large.npz", size=(96, 48), quality=90)

    pack = load_packs([packed, tmp_path / "large.npz"])

    assert pack.images.shape[1:] == (96, 48, 3)


def test_a_pack_above_the_limit_is_not_written(tmp_path: Path, packed: Path) -> None:
    dataset = open_dataset("market1501", tmp_path / "set")
    target = tmp_path / "big.npz"

    with pytest.raises(DataError, match="lower --quality"):
        write_pack(dataset, ["train"], target, size=(64, 32), quality=90, max_bytes=1000)

    assert not target.exists()


def test_the_limit_is_of_the_whole_file_not_of_its_images_alone(
    tmp_path: Path, packed: Path
) -> None:
    dataset = open_dataset("market1501", tmp_path / "set")
    how = {"size": (64, 32), "quality": 90}
    whole = write_pack(dataset, ["train"], tmp_path / "fits.npz", **how)  # type: ignore[arg-type]

    with pytest.raises(DataError, match="the limit is"):
        write_pack(dataset, ["train"], tmp_path / "over.npz", max_bytes=whole - 1, **how)  # type: ignore[arg-type]

    assert whole == (tmp_path / "fits.npz").stat().st_size
    assert not list(tmp_path.glob("over*"))


def test_training_people_as_a_target_are_not_packed_under_another_parts_name(
    tmp_path: Path,
) -> None:
    for part, person in (("train", 1), ("val", 2)):
        for camera in (1, 2):
            image = tmp_path / part / f"{person:04d}_c{camera}_0.jpg"
            write(image, figure(person, camera, 0))

    with pytest.raises(DataError, match="the set's own reader"):
        write_pack(
            open_dataset("cuhk03-train", tmp_path), ["query"], tmp_path / "p.npz",
            size=(64, 32), quality=90,
        )  # fmt: skip


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_pack_is_refused(tmp_path: Path, packed: Path, keep: float) -> None:
    whole = packed.read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: int(len(whole) * keep)])

    with pytest.raises(DataError, match=r"cut\.npz"):
        load_packs([cut])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("offsets", None),
        ("blob", None),
        ("sources", None),
        ("size", np.array([64])),
        ("person", np.array([1])),
        ("camera", np.array(["a", "b"])),
        ("blob", np.zeros((2, 2), np.uint8)),
        ("version", np.array([VERSION, VERSION])),
    ],
)
def test_an_archive_that_is_no_pack_is_refused(
    tmp_path: Path, packed: Path, name: str, value: object
) -> None:
    with np.load(packed) as file:
        fields = {key: file[key] for key in file.files if key != name}
    other = tmp_path / "other.npz"
    np.savez(other, **fields | ({} if value is None else {name: value}))  # type: ignore[arg-type]

    with pytest.raises(DataError, match=r"other\.npz is no pack"):
        load_packs([other])


def test_a_single_array_is_no_pack(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))

    with pytest.raises(DataError, match=r"one\.npy is no pack"):
        load_packs([tmp_path / "one.npy"])


def test_an_empty_image_is_damaged(tmp_path: Path, packed: Path) -> None:
    with np.load(packed) as file:
        fields = {key: file[key] for key in file.files}
    fields["offsets"][1] = 0
    np.savez(tmp_path / "other.npz", **fields)

    with pytest.raises(DataError, match="image 0 is damaged"):
        load_packs([tmp_path / "other.npz"])


def test_a_missing_pack_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="edge-models pack"):
        load_packs([tmp_path / "none.npz"])
    with pytest.raises(DataError, match="no pack"):
        load_packs([])


def test_unknown_sources_are_named(packed: Path) -> None:
    with pytest.raises(DataError, match="market1501:nobody"):
        load_packs([packed]).where("market1501:nobody")


@pytest.mark.parametrize("seed", range(5))
def test_every_batch_has_p_people_with_k_images(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 12, 200)
    sampler = PKSampler(labels, people=5, images=4, seed=seed)

    for batch in sampler.epoch(0):
        people = labels[batch].reshape(5, 4)
        assert (people == people[:, :1]).all()
        assert len(set(people[:, 0])) == 5


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    labels = np.repeat(np.arange(10), 7)
    one, other = (PKSampler(labels, people=4, images=3, seed=9) for _ in range(2))
    one.epoch(0)

    assert np.array_equal(one.epoch(3), other.epoch(3))
    assert not np.array_equal(one.epoch(3), one.epoch(4))


def test_nobody_is_left_out_for_long() -> None:
    labels = np.repeat(np.arange(8), 8)
    sampler = PKSampler(labels, people=4, images=4, seed=1)

    batches = np.concatenate([sampler.epoch(number) for number in range(3)])

    assert set(labels[batches].ravel().tolist()) == set(range(8))


def test_a_person_with_one_image_gives_it_again() -> None:
    labels = np.array([0, 1, 1, 1, 1])

    batch = PKSampler(labels, people=2, images=4, seed=1).epoch(0)[0]

    assert (batch == 0).sum() == 4


def test_too_few_people_are_refused() -> None:
    with pytest.raises(DataError, match="2 people; a batch wants 3"):
        PKSampler(np.array([1, 1, 2]), people=3, images=2, seed=0)


def test_batches_by_set_hold_one_set_each_and_every_set_by_its_size() -> None:
    labels = np.repeat(np.arange(30), 8)
    sets = np.repeat([3, 7, 3], [80, 80, 80])  # 20 people of one, 10 of the other
    sampler = BySetSampler(labels, sets, people=4, images=4, seed=2)

    epoch = sampler.epoch(0)

    assert epoch.shape == (sampler.steps, 16) == (15, 16)
    for batch in epoch:
        assert len(set(sets[batch])) == 1
        assert len(set(labels[batch])) == 4
    assert sum(sets[batch[0]] == 3 for batch in epoch) == 10
    assert any(sets[batch[0]] == 7 for batch in epoch[:10]), "sets come in random order"
    np.testing.assert_array_equal(
        epoch, BySetSampler(labels, sets, people=4, images=4, seed=2).epoch(0)
    )
    assert not np.array_equal(epoch, sampler.epoch(1))


def test_a_set_with_too_few_people_for_a_batch_of_its_own_is_refused() -> None:
    labels = np.repeat(np.arange(6), 8)

    with pytest.raises(DataError, match="has 1 people; a batch wants 4"):
        BySetSampler(labels, (labels == 5).astype(np.int64), people=4, images=4, seed=0)
