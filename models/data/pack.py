"""A training set in one small file: images as WebP, with person, camera and part of each.

Promise: at most `MAX_BYTES`, so that it fits where the whole set does not; what was packed is what
`load` gives, in the same order. A file that is cut short or of another version is refused.

Format: an uncompressed npz (numpy, no pickles) with
    version   int64          1
    sources   (s,) str       "market1501:train", ...: set and part, for the model's card
    source    (n,) uint8     index into sources
    person    (n,) int32     -1 junk, 0 distractor; `load_packs` numbers those of further packs on
    camera    (n,) int16     likewise
    size      (2,) int64     height, width of every image
    offsets   (n+1,) int64   image i is blob[offsets[i]:offsets[i+1]]
    blob      (b,) uint8     WebP files, end to end
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.data.errors import DataError
from models.data.readers import Dataset, Sample

VERSION = 1
MAX_BYTES = 40 * 1000 * 1000
MOST_SIDE = 16_383  # px of a WebP file


@dataclass(frozen=True)
class Pack:
    """Decoded images of one or several sets.

    Attributes:
        images: (n, h, w, 3) uint8, RGB.
        person, camera: (n,) numbers, unique across sets.
        source: (n,) index into `sources`, each "set:part".
    """

    images: NDArray[np.uint8]
    person: NDArray[np.int64]
    camera: NDArray[np.int64]
    source: NDArray[np.int64]
    sources: tuple[str, ...]

    def where(self, *names: str) -> NDArray[np.int64]:
        """Indices of all samples of the named sources ("market1501:train")."""
        unknown = set(names) - set(self.sources)
        if unknown:
            raise DataError(
                f"no {', '.join(sorted(unknown))} among the packs; they hold {self.sources}"
            )
        wanted = [index for index, name in enumerate(self.sources) if name in names]
        return np.flatnonzero(np.isin(self.source, wanted))


def write_pack(
    dataset: Dataset,
    parts: Sequence[str],
    path: Path,
    *,
    size: tuple[int, int],
    quality: int,
    keep: Callable[[Sample], bool] = lambda sample: True,
    threads: int = 2,
    max_bytes: int = MAX_BYTES,
) -> int:
    """Pack parts ("train", "query", "gallery") of a set; returns the file's size in bytes.

    Raises:
        DataError: nothing to pack, unreadable images, a result above `max_bytes`, or a set whose
            query and gallery are training people (their part would be named falsely).
    """
    if dataset.judged_parts == ("train",):
        raise DataError(
            f"{dataset.name}'s training people are a target here; pack them by the set's own reader"
        )
    chosen = [(part, s) for part in parts for s in dataset.part([part]) if keep(s)]
    if not chosen:
        raise DataError(f"{dataset.name} has no image in {', '.join(parts)}")

    decoded = dataset.images.all([s.name for _, s in chosen], dataset.name, threads=threads)
    with ThreadPoolExecutor(threads) as pool:
        encoded = list(pool.map(lambda image: encode(image, size, quality), decoded))
    return save(
        path,
        dataset.name,
        encoded,
        size=size,
        part=[part for part, _ in chosen],
        person=[s.person for _, s in chosen],
        camera=[s.camera for _, s in chosen],
        max_bytes=max_bytes,
    )


def encode(image: NDArray[np.uint8], size: tuple[int, int], quality: int) -> NDArray[np.uint8]:
    """WebP of one BGR image (h, w, 3) at (height, width) pixels, as packs hold it; quality 1..100.

    Raises:
        DataError: the size is more than WebP holds, or OpenCV was built without WebP.
    """
    height, width = size
    if max(size) > MOST_SIDE:
        raise DataError(
            f"{height}×{width} px are more than WebP holds, {MOST_SIDE} a side; lower --height"
        )
    if image.shape[:2] != size:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
    done, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise DataError("OpenCV cannot write WebP in this installation")
    return data.reshape(-1).astype(np.uint8, copy=False)


def save(
    path: Path,
    name: str,
    encoded: Sequence[NDArray[np.uint8]],
    *,
    size: tuple[int, int],
    part: Sequence[str],
    person: Sequence[int],
    camera: Sequence[int],
    max_bytes: int = MAX_BYTES,
) -> int:
    """Write images of `encode` as one pack, whole or not at all; returns its size in bytes.

    Args:
        path: the file.
        name: of the set.
        encoded: n images.
        size: height and width of each.
        part, person, camera: n entries; part is "train", "query" or "gallery".

    Raises:
        DataError: the pack would have more than `max_bytes`.
        OSError: with the pack's name: it cannot be written; what was there stays.
    """
    offsets = np.concatenate([[0], np.cumsum([len(data) for data in encoded])])
    parts = list(dict.fromkeys(part))
    part_file = path.with_name(f"{path.name}.part")
    try:
        with part_file.open("wb") as file:
            np.savez(
                file,
                version=np.int64(VERSION),
                sources=np.array([f"{name}:{one}" for one in parts]),
                source=np.array([parts.index(one) for one in part], np.uint8),
                person=np.array(person, np.int32),
                camera=np.array(camera, np.int16),
                size=np.array(size, np.int64),
                offsets=offsets.astype(np.int64),
                blob=np.concatenate(encoded),
            )
        packed = part_file.stat().st_size
        if packed > max_bytes:
            raise DataError(
                f"{name}: {packed / 1e6:g} MB packed, the limit is {max_bytes / 1e6:g} MB; "
                "lower --quality, or pack less"
            )
        part_file.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            part_file.unlink(missing_ok=True)
    return packed


def load_packs(paths: Sequence[Path], *, threads: int = 2) -> Pack:
    """Decode packs and join them at the largest of their sizes.

    The first keeps its numbers; people and cameras of each further one are numbered on from the
    largest so far, but for junk and distractors.

    Raises:
        DataError: a file that is missing, cut short, of another version, or holds a bad image.
    """
    parts = [_load(path, threads) for path in paths]
    if not parts:
        raise DataError("no pack was given; name at least one in the recipe's [data] packs")
    height = max(part.images.shape[1] for part in parts)
    width = max(part.images.shape[2] for part in parts)
    images = np.empty((sum(len(p.images) for p in parts), height, width, 3), np.uint8)
    sources: list[str] = []
    person, camera, source = [], [], []
    start = people = cameras = 0
    for part in parts:
        for image in part.images:
            if image.shape[:2] == (height, width):
                images[start] = image
            else:
                cv2.resize(image, (width, height), dst=images[start])
            start += 1
        person.append(np.where(part.person > 0, part.person + people, part.person))
        camera.append(part.camera + cameras)
        people = max(people, int(person[-1].max(initial=0)) + 1)
        cameras = max(cameras, int(camera[-1].max(initial=0)) + 1)
        source.append(part.source + len(sources))
        sources.extend(part.sources)
    return Pack(
        images, np.concatenate(person), np.concatenate(camera), np.concatenate(source),
        tuple(sources),
    )  # fmt: skip


def _load(path: Path, threads: int) -> Pack:
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            # what is one array and no archive of them has no names
            data = {name: file[name] for name in getattr(file, "files", ())}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; make it with: edge-models pack") from None
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a whole pack ({error}); pack or copy it again") from error
    if not np.array_equal(data.get("version", 0), VERSION):
        raise DataError(f"{path} is no pack of version {VERSION}; pack it again")
    _refuse_other_fields(data, path)
    offsets, blob = data["offsets"], data["blob"]

    def decode(index: int) -> NDArray[np.uint8] | None:
        encoded = blob[offsets[index] : offsets[index + 1]]
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
        return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)

    height, width = (int(v) for v in data["size"])
    images = np.empty((len(offsets) - 1, height, width, 3), np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        for index, image in enumerate(pool.map(decode, range(len(images)))):
            if image is None or image.shape != (height, width, 3):
                raise DataError(f"{path}: image {index} is damaged; pack or copy it again")
            images[index] = image
    return Pack(
        images,
        data["person"].astype(np.int64),
        data["camera"].astype(np.int64),
        data["source"].astype(np.int64),
        tuple(str(name) for name in data["sources"]),
    )


def _refuse_other_fields(data: Mapping[str, Any], path: Path) -> None:
    """DataError where an npz, though of this version, does not hold what packs do."""
    images = np.size(data.get("offsets", ())) - 1
    expected = {  # type and length
        "offsets": (np.integer, images + 1),
        "size": (np.integer, 2),
        "person": (np.integer, images),
        "camera": (np.integer, images),
        "source": (np.integer, images),
        "sources": (np.str_, None),
        "blob": (np.uint8, None),
    }
    for name, (kind, length) in expected.items():
        found = np.asarray(data.get(name))  # of nothing: no dimension
        fits = found.ndim == 1 and np.issubdtype(found.dtype, kind)
        if not fits or length not in (None, len(found)):
            raise DataError(f"{path} is no pack, its {name!r} is missing or odd; pack it again")
