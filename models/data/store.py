"""Images in a folder or, in place, inside a tar.

Promise: the same relative names and bytes whether the set lies unpacked or in its tar; a folder
that wraps the whole set (`Market-1501-v15.09.15/query/...`) is looked through.
Threads: `read` and `image` may be called from any number of threads.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from models.data.errors import DataError, UnreadableImages

# What OpenCV decodes to 8 bits; a test writes and reads each.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".apng", ".bmp", ".dib", ".webp", ".avif"),
    *(".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".ras", ".sr"),
)
MOST_LINKS = 40  # one after the other, as Linux allows


class Store(Protocol):
    """Where a set's files are read from."""

    where: str

    def names(self) -> Sequence[str]:
        """All files, as relative names with forward slashes, sorted."""

    def read(self, name: str) -> bytes:
        """The bytes of one file; KeyError if there is none of that name."""

    def close(self) -> None:
        """Give back what is held open; may come twice."""


class FolderStore:
    """A set unpacked in a folder; links are followed, for a part may lie on another disk.

    Raises:
        OSError: a folder of it cannot be listed.
    """

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self._folder = folder
        self._names = sorted(_files(folder, "", (_identity(folder.stat()),)))

    def names(self) -> Sequence[str]:
        return self._names

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    def close(self) -> None:
        return


def _files(folder: Path, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Names of all files below a folder; `above` are the folders that lead there."""
    with os.scandir(folder / below) as entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if _is_folder(entry):
                own = _identity(entry.stat())
                if own not in above:  # a link back to where it lies shows nothing new
                    yield from _files(folder, name, (*above, own))
            elif entry.is_symlink() or entry.is_file():  # a link to nothing is named when read
                yield name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


class TarStore:
    """A set in an uncompressed tar, read in place by offset; links inside it are followed."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._members: dict[str, tuple[int, int]] = {}  # offset and size
        self._links: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    self._add(member)
                end = archive.offset
        except tarfile.TarError as error:
            raise DataError(
                f"{path} is not a plain tar ({error}); if it was copied here, copy it again; "
                "else unpack it or make it one (tar -cf)"
            ) from error
        self._file: int | None = os.open(path, os.O_RDONLY)
        # tarfile takes a cut between two files for the end; a whole tar has a block of zeros there
        if os.pread(self._file, tarfile.BLOCKSIZE, end) != bytes(tarfile.BLOCKSIZE):
            self.close()
            raise DataError(
                f"{path} is cut short after {len(self._members)} files; copy it here again"
            )

    def _add(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        if member.isfile():
            self._members[name] = (member.offset_data, member.size)
        elif member.islnk():  # the same file once more: tar stores it once
            self._links[name] = member.linkname.removeprefix("./")
        elif member.issym():
            beside = posixpath.join(posixpath.dirname(name), member.linkname)
            self._links[name] = posixpath.normpath(beside)

    def names(self) -> Sequence[str]:
        return sorted(self._members.keys() | self._links.keys())

    def read(self, name: str) -> bytes:
        target = name
        for _ in range(MOST_LINKS):  # they may lead in a circle
            target = self._links.get(target, target)
        offset, size = self._members[target]
        if self._file is None:
            raise ValueError(f"{self.where} is closed")
        return os.pread(self._file, size, offset)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Images:
    """Names below an optional common top folder, and decoded images."""

    def __init__(self, store: Store) -> None:
        self._store = store
        names = store.names()
        tops = {name.split("/", 1)[0] for name in names if "/" in name}
        flat = any("/" not in name for name in names)
        pictures = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        nested = all(name.count("/") >= 2 for name in pictures)
        wrapped = len(tops) == 1 and not flat and nested
        # a user's own set may be nothing but its train/, in subfolders
        self._top = f"{tops.pop()}/" if wrapped and tops != {"train"} else ""
        self._names = [name.removeprefix(self._top) for name in names]
        self.where = store.where

    def files(self, folder: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[str]:
        """Files below `folder` with one of the suffixes, sorted."""
        start = f"{folder}/" if folder else ""
        return [n for n in self._names if n.startswith(start) and n.lower().endswith(suffixes)]

    def text(self, name: str) -> str:
        """A text file of the set, such as a list of images.

        Raises:
            DataError: it cannot be read, or is no UTF-8.
        """
        try:
            return self._store.read(self._top + name).decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.where}: {name} is not UTF-8 text ({error.reason} at byte {error.start}); "
                "get it again"
            ) from error
        except (OSError, KeyError) as error:  # KeyError: a link to nothing
            raise DataError(f"{self.where}: {name} cannot be read; check what it is") from error

    def __contains__(self, name: object) -> bool:
        return name in set(self._names)

    def image(self, name: str) -> NDArray[np.uint8] | None:
        """(h, w, 3) BGR uint8, or None where the file cannot be read or is no image."""
        try:
            data = np.frombuffer(self._store.read(self._top + name), np.uint8)
        except (OSError, KeyError):
            return None  # the caller names it; the others are looked at all the same
        if not data.size:
            return None
        try:
            decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        except cv2.error:  # of more pixels than OpenCV takes
            return None
        return None if decoded is None else decoded.astype(np.uint8, copy=False)

    def all(
        self, names: Sequence[str], set_name: str, *, threads: int = 2
    ) -> Iterator[NDArray[np.uint8]]:
        """Decoded images in the order of `names`, read ahead by `threads` threads.

        Raises:
            UnreadableImages: at the end of the pass, naming every image that is not there to see.
        """
        bad: list[str] = []
        ahead = 64 * threads  # bounds what waits decoded
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(names), ahead):
                part = names[start : start + ahead]
                for name, image in zip(part, pool.map(self.image, part), strict=True):
                    if image is None:
                        bad.append(name)
                    elif not bad:
                        yield image
        if bad:
            raise UnreadableImages(set_name, bad, len(names))

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Images:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_images(path: Path) -> Images:
    """The images of a folder or of an uncompressed tar.

    Raises:
        DataError: nothing there, or a file that is no plain tar.
    """
    if path.is_dir():
        return Images(FolderStore(path))
    if path.is_file():
        return Images(TarStore(path))
    raise DataError(f"{path} does not exist; give the folder or the tar of a data set")
