"""Is a catalogue read or refused as a whole, and does its list say what no pull can fetch?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.catalogue import Entry, NotInCatalogue, find_entry, read_catalogue
from models.cli import app
from reid import toml
from reid.model_errors import CardInvalid
from tests.unit.models.mirrors import written


def test_the_list_says_which_models_no_pull_can_fetch(entry: Entry, tmp_path: Path) -> None:
    command = ["list", "--catalogue", str(written(tmp_path, entry)), "--json"]

    rows = json.loads(CliRunner().invoke(app, command).stdout)["models"]

    note = next(row["note"] for row in rows if row["name"] == "public")
    assert note.startswith(
        "no public address: pull it with --mirror URL_OR_FOLDER, or put the file"
    )


def test_the_packaged_catalogue_is_whole() -> None:
    entries = read_catalogue()

    assert len({entry.card.name for entry in entries}) == len(entries)
    assert find_entry("yolox-nano", entries).urls
    with pytest.raises(NotInCatalogue, match="it has yolox-nano"):
        find_entry("yolo99", entries)


@pytest.mark.parametrize(
    "text",
    [
        "= =",
        '[[model]]\nurls = ["ftp://x"]',
        "[[model]]\nurls = []",
        "model = 5",
        'model = "x"',
        "model = [1]",
        "[model]\nurls = []",
        "[[model]]\nurls = 5",
        '[[model]]\nurls = "https://x"',
        "[[model]]\nurls = []\ncard = 5",
    ],
)
def test_a_catalogue_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(text)

    with pytest.raises(CardInvalid):
        read_catalogue(path)


@pytest.mark.parametrize("file", ["m.toml", "current.toml", "m.pth", "m", "m.ONNX"])
def test_a_catalogue_of_files_that_no_box_finds_is_refused(
    file: str, entry: Entry, tmp_path: Path
) -> None:
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    path = tmp_path / "catalogue.toml"
    path.write_text(toml.dumps({"model": [{"urls": [], "card": card | {"file": file}}]}))

    with pytest.raises(CardInvalid, match=r"is no \.onnx"):
        read_catalogue(path)


def test_a_catalogue_with_a_name_twice_is_refused(entry: Entry, tmp_path: Path) -> None:
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    path = tmp_path / "catalogue.toml"
    path.write_text(toml.dumps({"model": [{"urls": [], "card": card}] * 2}))

    with pytest.raises(CardInvalid, match="public more than once"):
        read_catalogue(path)
