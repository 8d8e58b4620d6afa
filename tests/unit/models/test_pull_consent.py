"""Is the licence asked for before anything is fetched, and is nothing in the folder overwritten?"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.catalogue import Entry, FileInTheWay, LicenceNotAccepted, NoAddress, pull
from models.cli import app
from reid import toml
from reid.card import card_text, read_card
from tests.conftest import ROOT
from tests.unit.models.mirrors import Start, pulled, whole

pytestmark = pytest.mark.usefixtures("_no_proxy")


def test_a_model_without_an_address_says_so_before_its_licence(
    entry: Entry, tmp_path: Path
) -> None:
    asked: list[object] = []

    with pytest.raises(NoAddress, match=r"no public address.*--mirror URL_OR_FOLDER.*m\.onnx"):
        pull(entry, tmp_path / "models", accept=lambda card: bool(asked.append(card)))

    assert not asked
    assert not (tmp_path / "models").exists()


def test_nothing_is_fetched_before_the_licence_is_accepted(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))

    with pytest.raises(LicenceNotAccepted, match=r"MIT.*--yes"):
        pull(entry, tmp_path / "models", accept=lambda card: False, mirrors=[server.url])

    assert server.ranges == []
    assert not (tmp_path / "models").exists()


def test_another_file_of_that_name_is_not_overwritten(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"mine")

    with pytest.raises(FileInTheWay):
        pulled(entry, tmp_path, str(tmp_path / "made"))

    assert (tmp_path / "m.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("held", ["of another", "rubbish ["])
def test_a_card_of_another_file_is_in_the_way_before_anything_is_fetched(
    held: str, mirror: Start, entry: Entry, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    if held == "of another":
        held = card_text(entry.card.model_copy(update={"sha256": "0" * 64}))
    (folder / "m.toml").write_text(held)
    server = mirror(whole(b""))

    with pytest.raises(FileInTheWay, match=r"m\.toml .*move it away"):
        pulled(entry, folder, server.url)

    assert server.ranges == []
    assert [path.name for path in folder.iterdir()] == ["m.toml"]


def test_a_card_of_the_same_file_is_kept_as_the_operator_wrote_it(
    entry: Entry, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "m.toml").write_text(card_text(entry.card.model_copy(update={"notes": "mine"})))

    pulled(entry, folder, str(tmp_path / "made"))

    assert read_card(folder / "m.toml").notes == "mine"


def test_a_folder_in_the_place_of_the_file_is_said(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "models" / "m.onnx").mkdir(parents=True)

    with pytest.raises(FileInTheWay):
        pulled(entry, tmp_path / "models", str(tmp_path / "made"))


def test_a_file_that_is_there_is_not_fetched_again(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))
    pulled(entry, tmp_path / "models", server.url)

    pulled(entry, tmp_path / "models", server.url)

    assert len(server.ranges) == 1


def test_the_command_pulls_and_asks_for_the_licence(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))
    catalogue = tmp_path / "catalogue.toml"
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    catalogue.write_text(toml.dumps({"model": [{"urls": [server.url + "/m"], "card": card}]}))
    command = ["pull", "public", "--catalogue", str(catalogue), "--models-dir", str(tmp_path / "m")]

    refused = CliRunner().invoke(app, command)
    accepted = CliRunner().invoke(app, [*command, "--yes"])

    assert (refused.exit_code, accepted.exit_code) == (3, 0)
    assert "MIT" in refused.stderr
    assert (tmp_path / "m" / "m.onnx").read_bytes() == content
    assert "public: " in accepted.stdout


def test_the_question_stays_on_the_terminal_until_it_is_answered(
    entry: Entry, content: bytes, tmp_path: Path
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    catalogue.write_text(toml.dumps({"model": [{"urls": [], "card": card}]}))
    command = [
        *(sys.executable, "-c", "from models.cli import main; main()", "pull", "public"),
        *("--catalogue", str(catalogue), "--models-dir", str(tmp_path / "m")),
        *("--mirror", str(tmp_path / "made")),
    ]
    ours, theirs = pty.openpty()
    asked = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    try:
        before = _said(ours, until="[y/N]: ")
        while_waiting = _said(ours, for_s=0.5)
        os.write(ours, b"y\n")
        assert asked.wait(timeout=30.0) == 0
    finally:
        asked.kill()
        asked.wait()
        os.close(ours)

    assert "MIT" in before
    assert while_waiting == ""
    assert (tmp_path / "m" / "m.onnx").read_bytes() == content


def _said(terminal: int, *, until: str | None = None, for_s: float = 30.0) -> str:
    said, deadline = "", time.monotonic() + for_s
    while (until is None or until not in said) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            said += os.read(terminal, 4096).decode()
    assert until is None or until in said, said
    return said
