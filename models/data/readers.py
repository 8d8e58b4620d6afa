"""Readers of the field's data sets: a folder or tar in, lists of samples out.

Promise: every image file of a layout's parts is either a sample or an error that names it; none is
skipped in silence (lists, notes and Thumbs.db are no images). A split is what the set's authors
publish, or is said here where it is ours.

    reader        expected below the root
    market1501    bounding_box_train/ query/ bounding_box_test/   0002_c1s1_000451_03.jpg
    dukemtmc      the same folders                                0001_c2_f0046182.jpg
    cuhk03        train/ val/                                     0001_c1_0.jpg
    cuhk03-train  the same, judged on the people of train/
    cuhk03-np     Market-1501's folders, in detected/ or labeled/ 0003_c1_21.png
    msmt17        list_train.txt list_val.txt list_query.txt list_gallery.txt and train/ test/
    viper         cam_a/ cam_b/                                   000_45.bmp
    grid          probe/ gallery/                                 0001_1_25004_107_32_106_221.jpeg
    folder        train/ and/or query/ gallery/ of a user's own   PERSON_cCAMERA_anything.jpg
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from models.data.errors import DataError, FileNameError, LayoutError, ListError, NumberError
from models.data.store import IMAGE_SUFFIXES, Images, open_images

PARTS = ("train", "query", "gallery")
JUNK = -1  # Market-1501: badly cut boxes that count neither for nor against
DISTRACTOR = 0  # Market-1501: nobody's box, stays in the gallery
# What 32 and 16 bits of a pack hold, with room for what a reader adds.
MOST_PERSON, MOST_CAMERA = 1_000_000_000, 30_000


@dataclass(frozen=True)
class Sample:
    """One image of one person (person ≥ 1, or JUNK, or DISTRACTOR) by one camera."""

    name: str
    person: int
    camera: int


@dataclass(frozen=True)
class Dataset:
    """Samples of a set by part; a part that the set does not have is empty."""

    name: str
    images: Images
    train: list[Sample] = field(default_factory=list)
    query: list[Sample] = field(default_factory=list)
    gallery: list[Sample] = field(default_factory=list)
    judged_parts: tuple[str, ...] = ("query", "gallery")  # those whose people these two show

    def part(self, names: Iterable[str]) -> list[Sample]:
        """Samples of several parts together: "train", "query", "gallery"."""
        return [sample for name in names for sample in getattr(self, name)]


def _samples(
    images: Images, set_name: str, folder: str, pattern: re.Pattern[str], like: str
) -> list[Sample]:
    files = images.files(folder)
    if not files:
        raise LayoutError(set_name, images.where, f"images in {folder}/")
    samples = []
    for file in files:
        match = pattern.fullmatch(file.rsplit("/", 1)[-1])
        if match is None:
            raise FileNameError(set_name, file, like)
        samples.append(_sample(set_name, file, match["person"], match["camera"]))
    return samples


def _sample(set_name: str, file: str, person: str, camera: str) -> Sample:
    """One image, with the digits that its name or its list gives.

    Raises:
        NumberError: there is no such person or camera.
    """
    for what, digits, low, high in (
        ("person", person, JUNK, MOST_PERSON),
        ("camera", camera, 0, MOST_CAMERA),
    ):
        if not low <= float(digits) <= high:  # int refuses thousands of digits
            raise NumberError(set_name, file, what, digits, low, high)
    return Sample(file, int(person), int(camera))


def _three_parts(images: Images, name: str, pattern: str, like: str) -> Dataset:
    compiled = re.compile(pattern, re.IGNORECASE)
    train, query, gallery = (
        _samples(images, name, folder, compiled, like)
        for folder in ("bounding_box_train", "query", "bounding_box_test")
    )
    return Dataset(name, images, train, query, gallery)


def market1501(images: Images) -> Dataset:
    """Market-1501 (Zheng et al., ICCV 2015), as its authors split it."""
    return _three_parts(
        images,
        "market1501",
        r"(?P<person>-?\d+)_c(?P<camera>\d)s\d_\d+_\d+(\.jpg)?\.jpg",
        "0002_c1s1_000451_03.jpg",
    )


def dukemtmc(images: Images) -> Dataset:
    """DukeMTMC-reID (Zheng et al., ICCV 2017), as its authors split it; since withdrawn."""
    return _three_parts(
        images, "dukemtmc", r"(?P<person>\d+)_c(?P<camera>\d)_f\d+\.jpg", "0001_c2_f0046182.jpg"
    )


def cuhk03(images: Images) -> Dataset:
    """The part of CUHK03 (Li et al., CVPR 2014) at hand: two cameras, `train/` and `val/`.

    Published protocols do not apply. Ours: query = camera 1, gallery = camera 2 of `val/`.
    """
    pattern, like = re.compile(r"(?P<person>\d+)_c(?P<camera>\d)_\d+\.jpg"), "0001_c1_0.jpg"
    train, val = (_samples(images, "cuhk03", part, pattern, like) for part in ("train", "val"))
    return Dataset(
        "cuhk03",
        images,
        train,
        [sample for sample in val if sample.camera == 1],
        [sample for sample in val if sample.camera == 2],
    )


def cuhk03_train(images: Images) -> Dataset:
    """The 743 people of CUHK03's `train/` as a target: query = camera 1, gallery = camera 2.

    For models that never saw them; eight times the people of `val/`.
    """
    train = cuhk03(images).train
    return Dataset(
        "cuhk03",
        images,
        query=[sample for sample in train if sample.camera == 1],
        gallery=[sample for sample in train if sample.camera == 2],
        judged_parts=("train",),
    )


def cuhk03_np(images: Images) -> Dataset:
    """CUHK03 by its new protocol (Zhong et al., CVPR 2017): 767 people train, 700 test.

    Numbers of people differ from the other files of CUHK03, so whoever was trained on any part of
    those counts as trained on these people (`evaluate.shows_judged_people`).
    """
    return _three_parts(
        images,
        "cuhk03-np",
        r"(?P<person>\d+)_c(?P<camera>\d)_\d+\.(png|jpg)",
        "0003_c1_21.png",
    )


def msmt17(images: Images) -> Dataset:
    """MSMT17 (Wei et al., CVPR 2018), by its four lists; val belongs to train."""

    def listed(list_name: str, folder: str) -> list[Sample]:
        samples = []
        if list_name not in images:
            raise LayoutError("msmt17", images.where, list_name)
        # people of train and test are numbered from 0 each; 0 would mean a distractor here
        offset = 1 if folder.endswith("train") or folder.startswith("mask_train") else 100_001
        for number, line in enumerate(images.text(list_name).splitlines(), start=1):
            path, _, person = line.strip().rpartition(" ")
            parts = path.rsplit("/", 1)[-1].split("_")
            if not person.isdecimal() or len(parts) < 3 or not parts[2].isdecimal():
                like = "0000/0000_000_01_0303morning_0008_0.jpg 0"
                raise ListError("msmt17", list_name, number, line, like)
            if f"{folder}/{path}" not in files:
                raise LayoutError("msmt17", images.where, f"{folder}/{path} of {list_name}")
            sample = _sample("msmt17", f"{folder}/{path}", person, parts[2])
            samples.append(replace(sample, person=sample.person + offset))
        return samples

    versions = [("train", "test"), ("mask_train_v2", "mask_test_v2")]
    found = [pair for pair in versions if images.files(pair[0])]
    if not found:
        raise LayoutError("msmt17", images.where, "images in train/ (or mask_train_v2/)")
    train, test = found[0]
    files = set(images.files(train) + images.files(test))
    return Dataset(
        "msmt17",
        images,
        listed("list_train.txt", train) + listed("list_val.txt", train),
        listed("list_query.txt", test),
        listed("list_gallery.txt", test),
    )


def viper(images: Images, *, split: int = 0) -> Dataset:
    """VIPeR (Gray and Tao, ECCV 2008): half of the 632 people train, half test.

    The published figures are means over ten random halves; `split` 0..9 is our seeded choice of
    them, query = camera a, gallery = camera b.
    """
    pattern = re.compile(r"(?P<person>\d+)_(?P<camera>\d+)\.(bmp|png|jpg)")
    both = []
    for number, folder in enumerate(("cam_a", "cam_b"), start=1):
        found = _samples(images, "viper", folder, pattern, "000_45.bmp")
        # the second number is a viewing angle; the folder is the camera
        both.append([Sample(s.name, s.person + 1, number) for s in found])
    people = sorted({s.person for s in both[0]} & {s.person for s in both[1]})
    return _halves("viper", images, people, both[0], both[1], split, train_size=len(people) // 2)


def grid(images: Images, *, split: int = 0) -> Dataset:
    """GRID (Loy et al., CVPR 2009): 250 people seen twice, and 775 unknown gallery images.

    125 people train, 125 test, the unknown (file number 0000) are distractors; ten random halves
    are usual, `split` is our seeded choice.
    """
    pattern = re.compile(r"(?P<person>\d+)_(?P<camera>\d)_.*\.(jpe?g|png)")
    like = "0001_1_25004_107_32_106_221.jpeg"
    probe = _samples(images, "grid", "probe", pattern, like)
    gallery = _samples(images, "grid", "gallery", pattern, like)
    people = sorted({s.person for s in probe})
    return _halves("grid", images, people, probe, gallery, split, train_size=len(people) // 2)


def _halves(
    name: str,
    images: Images,
    people: list[int],
    query: list[Sample],
    gallery: list[Sample],
    split: int,
    *,
    train_size: int,
) -> Dataset:
    shuffled = np.random.default_rng(split).permutation(people)
    train = set(shuffled[:train_size].tolist())
    test = set(shuffled[train_size:].tolist()) | {DISTRACTOR}
    return Dataset(
        name,
        images,
        [s for s in query + gallery if s.person in train],
        [s for s in query if s.person in test],
        [s for s in gallery if s.person in test],
    )


def folder(images: Images) -> Dataset:
    """A user's own set: train/ and/or query/ with gallery/, PERSON_cCAMERA_anything.jpg.

    Any kind of image that OpenCV decodes. Person -1 is junk and 0 a distractor, as in Market-1501.
    """
    kinds = "|".join(map(re.escape, IMAGE_SUFFIXES))
    pattern = re.compile(rf"(?P<person>-?\d+)_c(?P<camera>\d+)(_.*)?({kinds})", re.IGNORECASE)
    like, parts = "PERSON_cCAMERA_anything.jpg (0002_c1_17.jpg)", {}
    for part in ("train", "query", "gallery"):
        if images.files(part):
            parts[part] = _samples(images, "folder", part, pattern, like)
    if not parts or ("query" in parts) != ("gallery" in parts):
        raise LayoutError("folder", images.where, "train/, or query/ and gallery/ together")
    return Dataset(
        "folder",
        images,
        parts.get("train", []),
        parts.get("query", []),
        parts.get("gallery", []),
    )


READERS: dict[str, Callable[[Images], Dataset]] = {
    "market1501": market1501,
    "dukemtmc": dukemtmc,
    "cuhk03": cuhk03,
    "cuhk03-train": cuhk03_train,
    "cuhk03-np": cuhk03_np,
    "msmt17": msmt17,
    "viper": viper,
    "grid": grid,
    "folder": folder,
}


def open_dataset(name: str, path: Path) -> Dataset:
    """A data set by its reader's name, from a folder or a tar.

    Raises:
        DataError: unknown name, missing parts, or names that do not follow the layout.
    """
    reader = READERS.get(name)
    if reader is None:
        raise DataError(f"no reader for {name!r}; there are {', '.join(sorted(READERS))}")
    images = open_images(path)
    try:
        return reader(images)
    except DataError:
        images.close()
        raise
