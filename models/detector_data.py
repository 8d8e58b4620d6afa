"""Pictures with boxes of people: reading, splitting, packing, and cutting people out.

Promise: one format in and out, COCO style (`images`, `annotations`, one category, person), as a
folder or as a tar with `annotations.json` inside (read as well: COCO's own layout, and any other
with one .json); `iscrowd = 1` marks a region to ignore. Damage raises `DatasetError` with the file
and what is wrong; nothing is skipped silently.
Tars are read in memory, never unpacked. Any thread may call; nothing is kept.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Sources of ../shared/data/persondet whose labels miss people, as its README says.
PARTLY_LABELLED = frozenset(
    {
        "entrance_office_cctv",
        "handheld_street_park",
        "home_meeting_fixed",
        "crosswalk_kr",
        "pennfudan",
    }
)
# Licence other than CC BY 4.0: Penn-Fudan states none and is free for research.
RESEARCH_ONLY = frozenset({"pennfudan"})
# Held out whole: the only high view of a hall. COCO photographs train only (the teacher saw them).
HELD_OUT_WHOLE = frozenset({"cafe_highview"})
TRAIN_ONLY = frozenset({"coco_person"})
TARS = (".tar", ".tar.gz", ".tgz")
CUTOUT_SIZE = (128, 64)  # height, width of a cut-out person


class DatasetError(ValueError):
    """A folder or tar of pictures cannot be used.

    Attributes:
        path: what was read.
        problem: what is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True)
class Picture:
    """One encoded picture and where its people are.

    Attributes:
        source: the collection it belongs to; splits go by it.
        name: file name inside the source.
        encoded: WebP, JPEG or PNG.
        width, height: pixels.
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels.
        ignore: (m, 4) float32, regions where neither a hit nor a miss counts.
        weight: how often it is drawn in training, relative to others.
    """

    source: str
    name: str
    encoded: bytes
    width: int
    height: int
    boxes: Floats = field(repr=False)
    ignore: Floats = field(repr=False)
    weight: float = 1.0

    def decode(self) -> Image:
        """(h, w, 3) uint8 BGR."""
        data = np.frombuffer(self.encoded, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if image is None:
            raise DatasetError(Path(self.source) / self.name, "is no picture that can be decoded")
        return np.asarray(image, np.uint8)


def _members(path: Path) -> dict[str, bytes]:
    """All files of a tar by name, read in memory."""
    found = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member) if member.isfile() else None
                if data is not None:
                    found[member.name.removeprefix("./")] = data.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        what = str(error)
        if "\n" in what:  # what it is not, kind by kind
            what = "it is neither, or was cut short; unpack what is packed in another way"
        raise DatasetError(path, f"cannot be read as a tar or folder: {what}") from error
    return found


@dataclass(frozen=True)
class _Files:
    """The files of a folder or tar; those of a folder are read only when asked for.

    Attributes:
        path: folder or tar.
        list_name: of the file that lists pictures and labels.
        readers: by path below the folder.
    """

    path: Path
    list_name: str
    readers: Mapping[str, Callable[[], bytes]]

    def read(self, name: str) -> bytes:
        try:
            return self.readers[name]()
        except OSError as error:
            raise DatasetError(self.path, f"{name} cannot be read: {error.strerror}") from error

    @cached_property
    def _by_last_name(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.readers:
            found.setdefault(PurePosixPath(name).name, []).append(name)
        return found

    def picture(self, file_name: str) -> bytes:
        """The picture of that name: beside the list, else the only one that ends so."""
        beside = str(PurePosixPath(self.list_name).parent / file_name)
        if beside in self.readers:
            return self.read(beside)
        others = self._by_last_name.get(PurePosixPath(file_name).name, [])
        ending = [name for name in others if f"/{name}".endswith(f"/{file_name}")]
        if len(ending) != 1:
            where = "not there" if not ending else f"there {len(ending)} times"
            raise DatasetError(
                self.path, f"{PurePosixPath(self.list_name).name} names {file_name}, {where}"
            )
        return self.read(ending[0])


def _files_of(path: Path) -> _Files:
    readers: dict[str, Callable[[], bytes]]
    if path.is_dir():
        inside = (f for f in path.rglob("*") if f.is_file())
        readers = {f.relative_to(path).as_posix(): f.read_bytes for f in inside}
    else:
        readers = {name: partial(bytes, data) for name, data in _members(path).items()}
    lists = [f for f in readers if PurePosixPath(f).name == "annotations.json"]
    lists = lists or sorted(f for f in readers if f.endswith(".json"))
    if len(lists) != 1:
        have = f"has {', '.join(lists[:5])}" if lists else "has none"
        raise DatasetError(path, f"needs one annotations.json, or one .json at all; {have}")
    return _Files(path, lists[0], readers)


def read_coco(path: Path) -> list[Picture]:
    """Read one COCO-style collection.

    Args:
        path: folder or tar with annotations.json, or with one .json of any name; `bbox` is x, y,
            width, height in pixels. Category: the one named "person", or the only one.
    Returns:
        pictures in the order of `images`, which is the order of time where there is one.
    Raises:
        DatasetError: unreadable, none or several lists, a picture that is missing, a label that is
            no box or all of other pictures, several categories without a person.
    """
    files = _files_of(path)
    name = path.name if path.is_dir() else path.stem
    try:
        listed = json.loads(files.read(files.list_name))
        categories = {c["id"]: str(c["name"]) for c in listed.get("categories", [])}
        people = {i for i, n in categories.items() if n.lower() == "person"}
        if not people and len(categories) > 1:
            raise DatasetError(path, f'no category "person" among {sorted(categories.values())}')
        rows: dict[int, tuple[list[list[float]], list[list[float]]]] = {}
        for a in listed["annotations"]:
            if people and a.get("category_id") not in people:
                continue
            x, y, w, h = (float(v) for v in a["bbox"])
            if not (math.isfinite(x + y + w + h) and w >= 0.0 and h >= 0.0):
                raise DatasetError(path, f"bbox {a['bbox']} is no box: x, y, width, height")
            side = 1 if a.get("iscrowd", 0) else 0
            rows.setdefault(a["image_id"], ([], []))[side].append([x, y, x + w, y + h])
        if rows and rows.keys().isdisjoint(image["id"] for image in listed["images"]):
            raise DatasetError(path, "no label is of a picture in the list: image_id fits no id")
        counts = Counter(image["id"] for image in listed["images"])
        twice = next((i for i, count in counts.items() if count > 1), None)
        if twice is not None:
            what = f"{counts[twice]} pictures have the id {twice!r}: nothing tells whose a label is"
            raise DatasetError(path, what)
        pictures = []
        for image in listed["images"]:
            boxes, ignore = rows.get(image["id"], ([], []))
            pictures.append(
                Picture(
                    source=str(image.get("source", name)),
                    name=image["file_name"],
                    encoded=files.picture(image["file_name"]),
                    width=int(image["width"]),
                    height=int(image["height"]),
                    boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
                    ignore=np.asarray(ignore, np.float32).reshape(-1, 4),
                    weight=float(image.get("weight", 1.0)),
                )
            )
    except DatasetError:
        raise
    except (
        KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        list_name = PurePosixPath(files.list_name).name
        raise DatasetError(path, f"{list_name} is not COCO style: {error!r}") from error
    return pictures


def read_all(path: Path) -> list[Picture]:
    """Read a collection, or every tar and sub-folder of a folder of collections, by name."""
    if path.is_dir() and not (path / "annotations.json").is_file():
        parts = sorted(p for p in path.iterdir() if p.name.endswith(TARS) or p.is_dir())
        if any(p.is_file() or any(p.rglob("annotations.json")) for p in parts):
            return [picture for part in parts for picture in read_coco(part)]
    return read_coco(path)


def write_coco(path: Path, pictures: Iterable[Picture]) -> None:
    """Write pictures as one tar that `read_coco` reads back, source and weight included."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        for number, p in enumerate(pictures, 1):
            name = f"images/{number:06d}.webp"
            add(name, p.encoded)
            images.append(
                {
                    "id": number,
                    "file_name": name,
                    "width": p.width,
                    "height": p.height,
                    "source": p.source,
                    "weight": p.weight,
                }
            )
            for crowd, rows in ((0, p.boxes), (1, p.ignore)):
                for x1, y1, x2, y2 in rows.tolist():
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": number,
                            "category_id": 0,
                            "iscrowd": crowd,
                            "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                        }
                    )
        listed = {
            "categories": [{"id": 0, "name": "person"}],
            "images": images,
            "annotations": annotations,
        }
        add("annotations.json", json.dumps(listed, separators=(",", ":")).encode())


def split(
    pictures: list[Picture], held_out_share: float = 0.2
) -> tuple[list[Picture], list[Picture]]:
    """Split by source and time, never by frame.

    Sources of `HELD_OUT_WHOLE` are held out, those of `TRAIN_ONLY` are not; of every other one
    the last share is held out.

    Returns:
        pictures to train on, and those held out.
    """
    train: list[Picture] = []
    held: list[Picture] = []
    for source in dict.fromkeys(p.source for p in pictures):
        part = [p for p in pictures if p.source == source]
        if source in HELD_OUT_WHOLE:
            held += part
        elif source in TRAIN_ONLY:
            train += part
        else:
            cut = len(part) - int(len(part) * held_out_share)
            train += part[:cut]
            held += part[cut:]
    return train, held


def reencode(picture: Picture, longest: int, quality: int) -> Picture:
    """The picture at no more than `longest` pixels, as WebP of the given quality, boxes scaled."""
    image = picture.decode()
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale < 1.0:
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    ok, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not ok:
        raise DatasetError(Path(picture.source) / picture.name, "cannot be encoded as WebP")
    return replace(
        picture,
        encoded=encoded.tobytes(),
        width=image.shape[1],
        height=image.shape[0],
        boxes=picture.boxes * np.float32(scale),
        ignore=picture.ignore * np.float32(scale),
    )


def pairwise_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every box of (n, 4) with every one of (m, 4): (n, m) float32."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0.0, None), axis=2)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=1)
    union = area_a[:, None] + area_b[None, :] - inter
    return np.asarray(inter / np.maximum(union, 1e-9), np.float32)


def add_teacher(
    pictures: Iterable[Picture],
    find: Callable[[Image], tuple[Floats, Floats]],
    *,
    ignore_from: float = 0.25,
    adopt_from: float = 0.65,
) -> Iterator[Picture]:
    """Complete labels by a teacher's detections that meet none of them (IoU < 0.45).

    Where labels are known to miss people, confident detections become people and weaker ones
    regions to ignore; elsewhere confident ones become regions to ignore only.

    Args:
        find: image (h, w, 3) BGR → boxes (n, 4) in its pixels, scores (n,), after NMS.
        ignore_from: weakest score of an ignored region in partly labelled sources.
        adopt_from: weakest score of an adopted person there, of an ignored region elsewhere.
    """
    for picture in pictures:
        boxes, scores = find(picture.decode())
        if len(picture.boxes):
            free = pairwise_iou(boxes, picture.boxes).max(axis=1, initial=0.0) < 0.45
        else:
            free = np.ones(len(boxes), bool)
        sure = free & (scores >= adopt_from)
        weak = free & (scores >= ignore_from) & ~sure
        if picture.source in PARTLY_LABELLED:
            people, ignored = boxes[sure], boxes[weak]
        else:
            people, ignored = boxes[:0], boxes[sure]
        yield replace(
            picture,
            boxes=np.concatenate([picture.boxes, people]).astype(np.float32),
            ignore=np.concatenate([picture.ignore, ignored]).astype(np.float32),
        )


def cut_out(crop: Image) -> npt.NDArray[np.uint8]:
    """Cut the standing person out of the crop of a box around him.

    GrabCut (Rother et al., SIGGRAPH 2004) started from the outline of an upright body; head,
    trunk and thighs are certain, so a cut may keep a rim of background but loses no head.

    Args:
        crop: (h, w, 3) uint8 BGR, one upright person filling it.
    Returns:
        (128, 64, 4) uint8: BGR and opacity.
    """
    height, width = CUTOUT_SIZE
    image = np.asarray(cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    mask = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    mask[:, :3] = mask[:, -3:] = cv2.GC_BGD
    for value, grow in ((cv2.GC_PR_FGD, 1.3), (cv2.GC_FGD, 0.8)):
        for cx, cy, rx, ry in (
            (0.5, 0.11, 0.15, 0.10),  # head
            (0.5, 0.34, 0.27, 0.20),  # trunk
            (0.5, 0.62, 0.23, 0.24),  # thighs
            (0.5, 0.82, 0.17, 0.16),  # legs
        ):
            centre = (round(cx * width), round(cy * height))
            axes = (round(rx * width * grow), round(ry * height * grow))
            cv2.ellipse(mask, centre, axes, 0, 0, 360, value, -1)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(image, mask, (0, 0, 0, 0), background, foreground, 3, cv2.GC_INIT_WITH_MASK)
    opaque = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    _, labels, _, _ = cv2.connectedComponentsWithStats(opaque)
    opaque = (labels == labels[height // 3, width // 2]).astype(np.uint8) * 255
    soft = cv2.GaussianBlur(opaque, (0, 0), 1.0)
    return np.dstack([image, soft]).astype(np.uint8)


def write_cutouts(path: Path, cutouts: Iterable[npt.NDArray[np.uint8]], quality: int = 70) -> int:
    """Write (128, 64, 4) cut-outs as a tar of WebP files with opacity; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with tarfile.open(path, "w") as tar:
        for count, cutout in enumerate(cutouts, 1):
            _, encoded = cv2.imencode(".webp", cutout, [cv2.IMWRITE_WEBP_QUALITY, quality])
            member = tarfile.TarInfo(f"{count:06d}.webp")
            member.size = len(encoded)
            tar.addfile(member, io.BytesIO(encoded.tobytes()))
    return count


def read_cutouts(path: Path) -> npt.NDArray[np.uint8]:
    """Read what `write_cutouts` wrote: (n, 128, 64, 4) uint8."""
    rows = []
    for name, content in _members(path).items():
        data = np.frombuffer(content, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
        if image is None or image.shape != (*CUTOUT_SIZE, 4):
            raise DatasetError(path, f"{name} is no cut-out of {CUTOUT_SIZE} with opacity")
        rows.append(image)
    return np.asarray(rows, np.uint8).reshape(-1, *CUTOUT_SIZE, 4)
