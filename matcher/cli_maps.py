"""edge-match maps: list, use, rollback. They change which map of a site is asked for in a folder;
a running `edge-match serve --maps` follows within seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from matcher.cli_common import Json
from matcher.settings import SettingsError
from reid.model_errors import ModelError
from reid.site_maps import SiteMaps, site_folders

app = typer.Typer(
    help="Show and choose the maps that edge-models adapt --embeddings fitted for sites.",
    no_args_is_help=True,
)
Folder = Annotated[
    Path,
    typer.Option("--maps", envvar="EDGE_MATCH_MAPS", help="Folder of all sites' maps."),
]
Site = Annotated[str, typer.Argument(help="The site.")]


@app.command("list")
def maps_list(folder: Folder, as_json: Json = False) -> None:
    """Show the maps of every site, and which is asked for."""
    rows = []
    for site, path in _sites(folder).items():
        rows += _rows(site, SiteMaps(path))
    if as_json:
        print(json.dumps({"maps": rows}))
        return
    table = Table(header_style="bold")
    for name in ("site", "map", "asked for", "made", "errors on certain pairs", "problem"):
        table.add_column(name)
    for row in rows:
        errors = "" if row["errors"] is None else "{:.1%} → {:.1%}".format(*row["errors"])  # type: ignore[misc]
        number = "" if row["number"] is None else row["number"]
        asked = "yes" if row["asked_for"] else ""
        table.add_row(
            *(str(one) for one in (row["site"], number, asked, row["made_at"])),
            errors,
            str(row["problem"]),
        )
    Console().print(table)


@app.command("use")
def maps_use(
    site: Site,
    number: Annotated[int, typer.Argument(help="The map's number; 0: none.", min=0)],
    folder: Folder,
) -> None:
    """Ask for one of a site's maps."""
    maps = _maps(folder, site)
    with _refusals(site):
        maps.use(number)
    _say(site, number)


@app.command("rollback")
def maps_rollback(site: Site, folder: Folder) -> None:
    """Ask for the map before the one in use; before the first: none."""
    maps = _maps(folder, site)
    with _refusals(site):
        number = maps.roll_back()
    if number is None:
        raise SettingsError(f"{site}: nothing to roll back, no map of it is asked for")
    _say(site, number)


@contextmanager
def _refusals(site: str) -> Iterator[None]:
    try:
        yield
    except (ModelError, OSError) as error:
        raise SettingsError(f"{site}: {_said(error)}") from error


def _said(error: ModelError | OSError) -> str:
    if isinstance(error, ModelError):
        return str(error)
    return f"{error.filename}: {error.strerror}; check path, rights and room"


def _rows(site: str, maps: SiteMaps) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    try:
        asked = maps.current_number()
        numbers = maps.numbers()
    except (ModelError, OSError) as error:
        return [_row(site, None, False, problem=_said(error))]
    for number in numbers:
        try:
            card = maps.read(number)[1]
        except ModelError as error:
            rows.append(_row(site, number, number == asked, problem=str(error)))
            continue
        before, after = card.held_back_before, card.held_back_after
        errors = None if before is None or after is None else [before.error, after.error]
        made = f"{card.made_at:%Y-%m-%d %H:%M}"
        rows.append(_row(site, number, number == asked, made_at=made, errors=errors))
    return rows


def _row(
    site: str,
    number: int | None,
    asked: bool,
    *,
    made_at: str = "",
    errors: list[float] | None = None,
    problem: str = "",
) -> dict[str, object]:
    return {
        "site": site,
        "number": number,
        "asked_for": asked,
        "made_at": made_at,
        "errors": errors,
        "problem": problem,
    }


def _sites(folder: Path) -> dict[str, Path]:
    try:
        if folder.is_dir():
            return site_folders(folder)
    except OSError as error:
        raise SettingsError(_said(error)) from error
    raise SettingsError(f"{folder}: no such folder; give --maps DIR, as to edge-models adapt")


def _maps(folder: Path, site: str) -> SiteMaps:
    sites = _sites(folder)
    if site not in sites:
        known = ", ".join(sorted(sites)) or "none"
        raise SettingsError(f"{folder}: no maps of site {site!r}; there are of: {known}")
    return SiteMaps(sites[site])


def _say(site: str, number: int) -> None:
    asked = f"map {number}" if number else "no map"
    print(f"{site}: {asked} from now on; a running edge-match takes it up within seconds")
