"""What `edge-match maps` says of a folder that cannot be used, and of a site without a map."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from matcher.cli import app
from matcher.settings import SettingsError
from reid.site_maps import SiteMaps, folder_of
from tests.unit.matcher.test_map_keeper import publish


def maps(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["maps", *arguments, "--maps", str(folder)])


def unreadable(folder: Path) -> Path:
    """The site's pointer, as one that nobody can read: it points to itself."""
    pointer = folder_of(folder, "site") / "current"
    pointer.unlink()
    pointer.symlink_to(pointer)
    return pointer


def test_a_pointer_that_cannot_be_read_is_listed_as_that_sites_problem(tmp_path: Path) -> None:
    publish(tmp_path)
    publish(tmp_path, of="other")
    pointer = unreadable(tmp_path)

    listed = maps(tmp_path, "list", "--json")

    assert listed.exit_code == 0, listed.exception
    other, site = json.loads(listed.stdout)["maps"]
    assert (other["site"], other["asked_for"], other["problem"]) == ("other", True, "")
    assert (site["site"], site["asked_for"]) == ("site", False)
    assert str(pointer) in site["problem"] and "symbolic links" in site["problem"]


@pytest.mark.parametrize("arguments", [("use", "site", "0"), ("rollback", "site")])
def test_a_pointer_that_cannot_be_replaced_ends_in_a_message(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    publish(tmp_path)
    folder = folder_of(tmp_path, "site")
    if arguments[0] == "use":
        (folder / "current").unlink()
        (folder / "current").mkdir()
    else:
        unreadable(tmp_path)

    result = maps(tmp_path, *arguments)

    assert isinstance(result.exception, SettingsError)
    assert str(result.exception).startswith(f"site: {folder}/")


def test_a_rollback_without_a_map_in_use_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path)

    first, second = (maps(tmp_path, "rollback", "site") for _ in range(2))

    assert first.exit_code == 0 and "no map from now on" in first.stdout
    assert isinstance(second.exception, SettingsError)
    assert "site: nothing to roll back" in str(second.exception)
    assert SiteMaps(folder_of(tmp_path, "site")).current_number() == 0
