"""Files that are written whole or not at all, also where the disk is full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from reid.files import replace_file
from tests.support.disk import files_of_at_most


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "one"
    replace_file(path, b"old")

    replace_file(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_the_old_file_stays_and_the_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "one"
    replace_file(path, b"old")

    with files_of_at_most(10), pytest.raises(OSError, match="File too large") as full:
        replace_file(path, b"new" * 10)

    assert (full.value.errno, full.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_files_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.mkdir()

    with pytest.raises(IsADirectoryError) as found:
        replace_file(path, b"new")

    assert found.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]
