"""Readers of data sets on small generated folders and tars."""

from __future__ import annotations

import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from models.data.errors import (
    DataError,
    FileNameError,
    LayoutError,
    ListError,
    NumberError,
    UnreadableImages,
)
from models.data.readers import READERS, open_dataset
from models.data.store import IMAGE_SUFFIXES
from tests.unit.models.drawn_people import figure, market, tarred, write


def test_market_is_split_as_its_authors_do(tmp_path: Path) -> None:
    dataset = open_dataset("market1501", market(tmp_path, train=3, test=2, shots=3))

    assert len({s.person for s in dataset.train}) == 3
    assert {s.person for s in dataset.query} == {4, 5}
    assert {s.person for s in dataset.gallery} == {-1, 0, 4, 5}
    assert {s.camera for s in dataset.gallery} == {1, 2}


def test_a_tar_is_read_in_place_like_the_folder(tmp_path: Path) -> None:
    folder = market(tmp_path / "set", train=2, test=2, shots=2)
    unpacked = open_dataset("market1501", folder)

    for top in ("", "Market-1501-v15.09.15"):
        packed = open_dataset("market1501", tarred(folder, tmp_path / f"set{top}.tar", top=top))
        assert packed.train == unpacked.train
        assert packed.gallery == unpacked.gallery
        name = packed.query[0].name
        one, other = packed.images.image(name), unpacked.images.image(name)
        assert one is not None
        assert other is not None
        assert np.array_equal(one, other)
        packed.images.close()
        packed.images.close()


def test_duke_reads_its_own_names(tmp_path: Path) -> None:
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        write(tmp_path / part / "0007_c8_f0046182.jpg", figure(7, 8, 0))

    dataset = open_dataset("dukemtmc", tmp_path)

    assert (dataset.query[0].person, dataset.query[0].camera) == (7, 8)


def test_cuhk03_asks_camera_one_and_searches_camera_two(tmp_path: Path) -> None:
    for part, person in (("train", 1), ("val", 2)):
        for camera in (1, 2):
            write(tmp_path / part / f"{person:04d}_c{camera}_0.jpg", figure(person, camera, 0))

    dataset = open_dataset("cuhk03", tmp_path)
    target = open_dataset("cuhk03-train", tmp_path)

    assert [(s.person, s.camera) for s in dataset.query + dataset.gallery] == [(2, 1), (2, 2)]
    assert [(s.person, s.camera) for s in target.query + target.gallery] == [(1, 1), (1, 2)]
    assert target.train == []
    assert target.judged_parts == ("train",)


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17_follows_its_lists(tmp_path: Path, folders: tuple[str, str]) -> None:
    lists = {"train": (folders[0], 0), "val": (folders[0], 1), "query": (folders[1], 0)}
    lists["gallery"] = (folders[1], 0)
    for number, (name, (folder, person)) in enumerate(lists.items()):
        file = f"{person:04d}/{person:04d}_00{number}_{number + 1:02d}_0303morning_0008_0.jpg"
        write(tmp_path / folder / file, figure(person, number, 0))
        (tmp_path / f"list_{name}.txt").write_text(f"{file} {person}\n")

    dataset = open_dataset("msmt17", tmp_path)

    assert [s.camera for s in dataset.train] == [1, 2]
    assert dataset.query[0].person == dataset.gallery[0].person
    assert not {s.person for s in dataset.train} & {s.person for s in dataset.query}
    assert all(s.person > 0 for s in dataset.train + dataset.query)


def test_msmt17_names_a_listed_file_that_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "train" / "0000" / "a.jpg", figure(0, 0, 0))
    (tmp_path / "list_train.txt").write_text("0000/0000_000_01_x.jpg 0\n")

    with pytest.raises(LayoutError, match=r"train/0000/0000_000_01_x\.jpg of list_train\.txt"):
        open_dataset("msmt17", tmp_path)


def test_viper_splits_its_people_in_halves(tmp_path: Path) -> None:
    for person in range(10):
        write(tmp_path / "cam_a" / f"{person:03d}_45.bmp", figure(person, 0, 0))
        write(tmp_path / "cam_b" / f"{person:03d}_90.bmp", figure(person, 1, 0))

    dataset = open_dataset("viper", tmp_path)

    train, test = {s.person for s in dataset.train}, {s.person for s in dataset.query}
    assert len(train) == len(test) == 5
    assert not train & test
    assert {s.camera for s in dataset.query} == {1}
    assert {s.camera for s in dataset.gallery} == {2}


def test_grid_keeps_unknown_people_as_distractors(tmp_path: Path) -> None:
    for person in (1, 2, 3, 4):
        write(
            tmp_path / "probe" / f"{person:04d}_1_25004_107_32_106_221.jpeg", figure(person, 1, 0)
        )
        write(tmp_path / "gallery" / f"{person:04d}_2_25_107_32.jpeg", figure(person, 2, 0))
    write(tmp_path / "gallery" / "0000_4_25_1_1.jpeg", figure(99, 4, 0))

    dataset = open_dataset("grid", tmp_path)

    assert len(dataset.query) == 2
    assert 0 in {s.person for s in dataset.gallery}
    assert 0 not in {s.person for s in dataset.train}


def test_a_users_folder_may_hold_one_part_only(tmp_path: Path) -> None:
    write(tmp_path / "train" / "12_c3_gate.png", figure(12, 3, 0))

    dataset = open_dataset("folder", tmp_path)

    assert [(s.person, s.camera) for s in dataset.train] == [(12, 3)]
    assert dataset.query == []


def test_a_query_without_a_gallery_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "query" / "12_c3_gate.png", figure(12, 3, 0))

    with pytest.raises(LayoutError, match="query/ and gallery/ together"):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize("name", sorted(READERS))
def test_an_empty_folder_is_named_with_what_was_expected(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match=f"at {tmp_path}: expected "):
        open_dataset(name, tmp_path)


def test_a_strange_file_name_is_named(tmp_path: Path) -> None:
    market(tmp_path, train=1, test=1, shots=1)
    write(tmp_path / "query" / "someone.jpg", figure(1, 1, 0))

    with pytest.raises(FileNameError, match=r"query/someone\.jpg.*0002_c1s1_000451_03\.jpg"):
        open_dataset("market1501", tmp_path)


def test_unreadable_images_are_counted_and_named_never_skipped(tmp_path: Path) -> None:
    market(tmp_path, train=2, test=1, shots=1)
    dataset = open_dataset("market1501", tmp_path)
    bad = [sample.name for sample in dataset.train[:2]]
    for name, content in zip(bad, (b"no image", b""), strict=True):
        (tmp_path / name).write_bytes(content)

    with pytest.raises(UnreadableImages) as caught:
        list(dataset.images.all([s.name for s in dataset.train], "market1501"))

    assert caught.value.files == tuple(bad)
    assert f"2 of {len(dataset.train)} images" in str(caught.value)


def test_a_path_that_is_neither_folder_nor_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.tar").write_bytes(b"not a tar" * 100)

    with pytest.raises(DataError, match="does not exist"):
        open_dataset("market1501", tmp_path / "nowhere")
    with pytest.raises(DataError, match="not a plain tar"):
        open_dataset("market1501", tmp_path / "file.tar")
    with pytest.raises(DataError, match="no reader for 'prid'"):
        open_dataset("prid", tmp_path)


@pytest.mark.parametrize("shift", [0, 100, -1], ids=["between files", "in a header", "in a file"])
def test_a_tar_cut_short_is_refused_wherever_the_cut_lies(tmp_path: Path, shift: int) -> None:
    folder = market(tmp_path / "set", train=1, test=1, shots=1)
    whole, short = tarred(folder, tmp_path / "whole.tar"), tmp_path / "short.tar"
    with tarfile.open(whole) as archive:
        headers = [member.offset for member in archive]
    short.write_bytes(whole.read_bytes()[: headers[3] + shift])

    with pytest.raises(DataError, match=r"short\.tar .*copy it (here )?again"):
        open_dataset("market1501", short)


def _as_it_is(folder: Path, path: Path) -> Path:
    """A tar with its links, as `tar -cf` writes it."""
    with tarfile.open(path, "w") as archive:
        archive.add(folder, ".")
    return path


def test_links_are_images_like_any_in_folder_and_tar(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(folder / "train" / "1_c1_a.png", figure(1, 1, 0))
    (folder / "train" / "1_c2_hard.png").hardlink_to(folder / "train" / "1_c1_a.png")
    (folder / "train" / "1_c3_soft.png").symlink_to("1_c1_a.png")
    (folder / "train" / "1_c4_twice.png").symlink_to("1_c3_soft.png")

    for place in (folder, _as_it_is(folder, tmp_path / "set.tar")):
        dataset = open_dataset("folder", place)
        assert [sample.camera for sample in dataset.train] == [1, 2, 3, 4]
        first, *others = dataset.images.all([s.name for s in dataset.train], "folder")
        assert all(np.array_equal(first, other) for other in others)


def test_a_link_to_nothing_is_an_unreadable_image(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(folder / "train" / "1_c1_a.png", figure(1, 1, 0))
    (folder / "train" / "1_c2_b.png").symlink_to("gone.png")
    (folder / "train" / "1_c3_c.png").symlink_to("1_c3_c.png")

    for place in (folder, _as_it_is(folder, tmp_path / "set.tar")):
        dataset = open_dataset("folder", place)
        with pytest.raises(UnreadableImages) as caught:
            list(dataset.images.all([s.name for s in dataset.train], "folder"))
        assert caught.value.files == ("train/1_c2_b.png", "train/1_c3_c.png")


def test_a_part_may_be_a_link_to_a_folder_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "1_c1_a.png", figure(1, 1, 0))
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "disk")  # must not be followed for ever
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(tmp_path / "disk")

    dataset = open_dataset("folder", tmp_path / "set")

    assert [sample.name for sample in dataset.train] == ["train/1_c1_a.png"]


def test_cuhk03s_new_protocol_is_read_in_its_three_parts(tmp_path: Path) -> None:
    for part, person, kind in (
        ("bounding_box_train", 1, "png"),
        ("query", 3, "png"),
        ("bounding_box_test", 3, "jpg"),
    ):
        write(tmp_path / part / f"{person:04d}_c2_21.{kind}", figure(person, 2, 0))

    dataset = open_dataset("cuhk03-np", tmp_path)

    assert [(s.person, s.camera) for s in dataset.query + dataset.gallery] == [(3, 2), (3, 2)]
    assert [s.person for s in dataset.train] == [1]


def test_a_users_names_may_end_in_capitals(tmp_path: Path) -> None:
    write(tmp_path / "train" / "12_c3_gate.JPG", figure(12, 3, 0))

    assert [s.person for s in open_dataset("folder", tmp_path).train] == [12]


def test_a_users_set_may_be_nothing_but_training_people_in_subfolders(tmp_path: Path) -> None:
    write(tmp_path / "train" / "gate" / "12_c3_1.png", figure(12, 3, 0))

    assert [s.person for s in open_dataset("folder", tmp_path).train] == [12]


def test_an_image_that_is_gone_is_named_like_one_that_does_not_decode(tmp_path: Path) -> None:
    dataset = open_dataset("market1501", market(tmp_path, train=2, test=1, shots=1))
    gone = dataset.train[1].name
    (tmp_path / gone).unlink()

    with pytest.raises(UnreadableImages) as caught:
        list(dataset.images.all([s.name for s in dataset.train], "market1501"))

    assert caught.value.files == (gone,)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_kind_of_image_is_a_sample(tmp_path: Path, suffix: str) -> None:
    image = figure(1, 1, 0)
    grey = suffix in (".pgm", ".pbm")
    write(tmp_path / "train" / f"1_c1_a{suffix}", image[:, :, :1] if grey else image)

    dataset = open_dataset("folder", tmp_path)

    (found,) = dataset.images.all([s.name for s in dataset.train], "folder")
    assert (found.dtype, found.shape) == (np.uint8, image.shape)


def test_an_image_of_another_kind_than_the_sets_is_named(tmp_path: Path) -> None:
    market(tmp_path, train=1, test=1, shots=1)
    write(tmp_path / "query" / "0002_c1s1_000451_03.tif", figure(2, 1, 0))

    with pytest.raises(FileNameError, match=r"query/0002_c1s1_000451_03\.tif"):
        open_dataset("market1501", tmp_path)


@pytest.mark.parametrize(
    ("name", "say"),
    [
        ("99999999999_c1.jpg", "person 99999999999, expected -1 to 1000000000"),
        ("-7_c1.jpg", "person -7"),
        ("1_c40000.jpg", "camera 40000, expected 0 to 30000"),
    ],
)
def test_a_number_that_no_pack_can_hold_is_named(tmp_path: Path, name: str, say: str) -> None:
    write(tmp_path / "train" / name, figure(1, 1, 0))

    with pytest.raises(NumberError, match=f"train/{name}' says {say}"):
        open_dataset("folder", tmp_path)


def _msmt17(folder: Path, query: bytes) -> Path:
    """MSMT17's layout with one image, which every list but the queries' names."""
    file = "0000/0000_000_01_0303morning_0008_0.jpg"
    for part in ("train", "test"):
        write(folder / part / file, figure(0, 1, 0))
    for name in ("train", "val", "gallery"):
        (folder / f"list_{name}.txt").write_text(f"{file} 0\n")
    (folder / "list_query.txt").write_bytes(query.replace(b"FILE", file.encode()))
    return folder


@pytest.mark.parametrize("line", ["", "FILE", "FILE ²", "x.jpg 0"])
def test_a_line_that_no_list_of_msmt17_has_is_named_with_list_and_number(
    tmp_path: Path, line: str
) -> None:
    folder = _msmt17(tmp_path, f"FILE 0\n{line}\n".encode())

    with pytest.raises(ListError, match=r"line 2 of list_query\.txt is '"):
        open_dataset("msmt17", folder)


@pytest.mark.parametrize(
    ("query", "say"),
    [
        (b"FILE 0\n\xff\xfe", r"list_query\.txt is not UTF-8 text \(invalid start byte at byte"),
        (b"FILE " + b"9" * 5000, "says person 9999"),
    ],
)
def test_a_list_of_msmt17_that_cannot_be_read_is_named(
    tmp_path: Path, query: bytes, say: str
) -> None:
    with pytest.raises(DataError, match=say):
        open_dataset("msmt17", _msmt17(tmp_path, query))


def test_a_list_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    folder = _msmt17(tmp_path, b"")
    (folder / "list_query.txt").unlink()
    (folder / "list_query.txt").symlink_to("gone.txt")

    with pytest.raises(DataError, match=r"list_query\.txt cannot be read"):
        open_dataset("msmt17", folder)


def test_an_image_of_more_pixels_than_opencv_takes_is_named(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    side = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    image = tmp_path / "train" / "1_c1_huge.png"
    image.parent.mkdir()
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", side) + chunk(b"IDAT", b""))
    dataset = open_dataset("folder", tmp_path)

    with pytest.raises(UnreadableImages, match=r"train/1_c1_huge\.png"):
        list(dataset.images.all([s.name for s in dataset.train], "folder"))
