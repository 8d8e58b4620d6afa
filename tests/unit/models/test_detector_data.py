"""Are pictures and labels read as written, and split by source and time?"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import math
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.detector_data import (
    DatasetError,
    Picture,
    add_teacher,
    cut_out,
    read_all,
    read_coco,
    read_cutouts,
    reencode,
    split,
    write_coco,
    write_cutouts,
)
from tests.unit.models.detector_pictures import boxed_picture


def write_tar(path: Path, annotations: object, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        everything = {"set/annotations.json": json.dumps(annotations).encode(), **files}
        for name, data in everything.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_what_was_written_is_read_back_with_source_weight_and_regions(tmp_path: Path) -> None:
    region = np.array([[1, 2, 30, 40]], np.float32)
    picture = replace(boxed_picture(), ignore=region, weight=0.5)

    write_coco(tmp_path / "set.tar", [picture])
    found = read_coco(tmp_path / "set.tar")

    assert [(p.source, p.weight) for p in found] == [("made", 0.5)]
    np.testing.assert_allclose(found[0].boxes, picture.boxes)
    np.testing.assert_allclose(found[0].ignore, region)
    np.testing.assert_array_equal(found[0].decode(), picture.decode())


def test_a_folder_of_collections_is_read_whole(tmp_path: Path) -> None:
    write_coco(tmp_path / "a.tar", [boxed_picture(source="a")])
    write_coco(tmp_path / "b.tar", [boxed_picture(source="b")] * 2)

    found = read_all(tmp_path)

    assert [p.source for p in found] == ["a", "b", "b"]


def test_only_people_are_read_from_a_set_of_many_classes(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "x.png", "width": 8, "height": 8}
    annotations = [
        {"id": i, "image_id": 1, "category_id": c, "bbox": [c, 1, 2, 3]}
        for i, c in enumerate((1, 7))
    ]
    write_tar(
        tmp_path / "coco.tar",
        {
            "categories": [{"id": 1, "name": "person"}, {"id": 7, "name": "dog"}],
            "images": [image],
            "annotations": annotations,
        },
        {"set/x.png": b""},
    )

    found = read_coco(tmp_path / "coco.tar")

    assert found[0].boxes.tolist() == [[1, 1, 3, 4]]


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        (
            {"images": [{"id": 1, "file_name": "no.png", "width": 1, "height": 1}]},
            "no.png, not there",
        ),
        (
            {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]},
            'no category "person"',
        ),
        ({"annotations": [{"bbox": [1, 2, 3]}]}, "not COCO style"),
        ({"annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}, "not COCO style"),
        ({"annotations": [7]}, "not COCO style"),
        (
            {"images": [{"id": 1, "file_name": "no.png", "width": 1e999, "height": 1}]},
            "not COCO style",
        ),
        ({"annotations": [{"image_id": 1, "bbox": [1, 2, math.nan, 4]}]}, "is no box"),
        ({"annotations": [{"image_id": 1, "bbox": [1, 2, -3, 4]}]}, "is no box"),
        (
            {"images": [{"id": 1, "file_name": "x.png", "width": 8, "height": 8}] * 2},
            "2 pictures have the id 1",
        ),
        ({"annotations": [{"image_id": "1", "bbox": [1, 2, 3, 4]}]}, "no label is of a picture"),
    ],
)
def test_a_damaged_collection_is_refused_by_name(
    tmp_path: Path, annotations: dict[str, object], says: str
) -> None:
    path = tmp_path / "bad.tar"
    images = [{"id": 1, "file_name": "x.png", "width": 8, "height": 8}]
    files = {"set/x.png": b"", "set/no.png": b""}
    if "no.png, not there" in says:
        files.pop("set/no.png")
    write_tar(path, {"images": images, "annotations": [], **annotations}, files)

    with pytest.raises(DatasetError, match=r"bad\.tar") as caught:
        read_coco(path)

    assert says in caught.value.problem


def test_a_list_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text("[" * 20_000)

    with pytest.raises(DatasetError, match="not COCO style"):
        read_coco(tmp_path)


@pytest.mark.parametrize("listed", [[], None, "x"])
def test_a_list_that_is_no_table_is_refused(tmp_path: Path, listed: object) -> None:
    write_tar(tmp_path / "bad.tar", listed, {})

    with pytest.raises(DatasetError, match="not COCO style"):
        read_coco(tmp_path / "bad.tar")


@pytest.mark.parametrize("content", [b"not a tar at all", b""])
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cut.tar"
    path.write_bytes(content)

    with pytest.raises(DatasetError, match="cannot be read"):
        read_coco(path)


@pytest.mark.parametrize("packed", ["tar", "gz", "xz"])
def test_a_truncated_tar_is_refused(tmp_path: Path, packed: str) -> None:
    whole = tmp_path / "whole.tar"
    noise = np.random.default_rng(0).bytes(40_000)
    write_tar(whole, {"images": [], "annotations": []}, {"set/x.png": noise})
    content = whole.read_bytes()
    content = {"tar": bytes, "gz": gzip.compress, "xz": lzma.compress}[packed](content)
    path = tmp_path / "cut.tar"
    path.write_bytes(content[: len(content) // 2])

    with pytest.raises(DatasetError, match="cannot be read"):
        read_coco(path)


def unpacked(folder: Path, layout: str) -> Path:
    """One picture and its list, laid out as COCO's own archives, Roboflow, or a packed tar does."""
    names = {
        "coco": ("annotations/instances_val2017.json", "val2017/x.webp"),
        "roboflow": ("_annotations.coco.json", "x.webp"),
        "packed": ("annotations.json", "x.webp"),
    }
    listed, picture = (folder / name for name in names[layout])
    for path in (listed, picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(boxed_picture().encoded)
    image = {"id": 1, "file_name": "x.webp", "width": 160, "height": 120}
    label = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}
    categories = [{"id": 3, "name": "Person"}, {"id": 4, "name": "dog"}]
    content = {"images": [image], "annotations": [label], "categories": categories}
    listed.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("layout", ["coco", "roboflow", "packed"])
def test_usual_layouts_are_read_as_they_are(tmp_path: Path, layout: str) -> None:
    folder = unpacked(tmp_path / "set", layout)
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname="set")

    for path in (folder, tmp_path / "set.tar.gz"):
        (found,) = read_all(path)
        assert found.boxes.tolist() == [[1, 2, 4, 6]]
        assert found.encoded == boxed_picture().encoded


def test_lists_that_may_all_be_meant_are_refused(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "set", "coco")
    (folder / "annotations" / "instances_train2017.json").write_text("{}")

    with pytest.raises(DatasetError, match=r"instances_train2017\.json.*instances_val2017\.json"):
        read_all(folder)


def test_only_what_the_list_names_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacked(tmp_path / "set", "packed")
    (folder / "large.bin").write_bytes(b"x")
    read: list[str] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or original(path))

    read_all(folder)

    assert sorted(read) == ["annotations.json", "x.webp"]


def test_a_picture_that_is_none_is_refused_when_decoded() -> None:
    with pytest.raises(DatasetError, match=r"made\.webp"):
        replace(boxed_picture(), encoded=b"junk").decode()


def test_the_last_fifth_of_a_source_is_held_out_and_some_sources_whole() -> None:
    pictures = [
        boxed_picture(source=source, name=str(i), size=(40, 40), box=(5, 5, 15, 35))
        for source in ("factory_cctv", "cafe_highview", "coco_person")
        for i in range(10)
    ]

    train, held = split(pictures)

    assert [p.name for p in held if p.source == "factory_cctv"] == ["8", "9"]
    assert {p.source for p in train} == {"factory_cctv", "coco_person"}
    assert sum(p.source == "cafe_highview" for p in held) == 10
    assert len(train) + len(held) == len(pictures)


def test_a_smaller_picture_keeps_its_boxes_in_place() -> None:
    small = reencode(boxed_picture(box=(60, 40, 100, 160)), longest=100, quality=90)

    assert (small.width, small.height) == (100, 100)
    np.testing.assert_allclose(small.boxes, [[30, 20, 50, 80]])
    assert small.decode().shape == (100, 100, 3)


def found_by_teacher(_: object) -> tuple[np.ndarray, np.ndarray]:
    boxes = [[60, 40, 100, 160], [120, 40, 160, 160], [5, 5, 30, 80], [100, 5, 110, 30]]
    return np.array(boxes, np.float32), np.array([0.9, 0.8, 0.4, 0.1], np.float32)


def test_the_teacher_completes_labels_known_to_miss_people() -> None:
    picture = boxed_picture(source="crosswalk_kr")

    (found,) = add_teacher([picture], found_by_teacher)

    assert found.boxes.tolist() == [[60, 40, 100, 160], [120, 40, 160, 160]]
    assert found.ignore.tolist() == [[5, 5, 30, 80]]


def test_the_teacher_only_makes_regions_to_ignore_where_all_people_are_labelled() -> None:
    picture = boxed_picture(source="clinic_cctv")

    (found,) = add_teacher([picture], found_by_teacher)

    assert found.boxes.tolist() == picture.boxes.tolist()
    assert found.ignore.tolist() == [[120, 40, 160, 160]]


def test_a_person_is_cut_out_with_head_and_without_the_corners(tmp_path: Path) -> None:
    crop = np.full((128, 64, 3), 200, np.uint8)
    cv2.ellipse(crop, (32, 14), (8, 11), 0, 0, 360, (60, 80, 120), -1)
    cv2.rectangle(crop, (16, 26), (48, 124), (30, 30, 160), -1)

    cutout = cut_out(crop)
    count = write_cutouts(tmp_path / "people.tar", [cutout, cutout])
    stored = read_cutouts(tmp_path / "people.tar")

    opacity = cutout[..., 3]
    assert opacity[14, 32] > 200
    assert opacity[60, 32] > 200
    assert opacity[:4, :4].max() < 50
    assert (count, stored.shape) == (2, (2, 128, 64, 4))


def test_pictures_name_their_source_in_errors() -> None:
    empty = np.zeros((0, 4), np.float32)
    picture = Picture("gate", "7.webp", b"", 4, 4, empty, empty)

    with pytest.raises(DatasetError, match=r"gate/7\.webp"):
        picture.decode()
