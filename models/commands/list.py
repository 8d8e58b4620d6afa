"""`edge-models list`: what is installed and what can be pulled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edge.models_dir import Listing
    from reid.card import Card


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list")(list_models)


def list_models(
    models_dir: Annotated[
        Path | None, typer.Option(help="Models folder; else EDGE_MODELS_DIR.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Models in the models folder and in the package, and public ones to pull."""
    from edge import models_dir as folders
    from models.catalogue import read_catalogue
    from models.places import models_folder, refusals

    with refusals():
        folder = models_folder(models_dir)
        places = [place for place in (folder, folders.packaged_dir()) if place is not None]
        listings = {place: folders.list_models(place) for place in places}
        defaults = _defaults(folder)
        catalogue = [entry.card for entry in read_catalogue()]
    rows = [row for place in places for row in _rows(place, listings[place], defaults)]
    here = {row["sha256"] for row in rows}
    rows += [
        _row(card, "catalogue", "edge-models pull " + card.name)
        for card in catalogue
        if card.sha256 not in here
    ]
    troubles = [str(error) for place in places for error in listings[place].broken]
    bare = [str(path) for place in places for path in listings[place].bare]
    if as_json:
        print(json.dumps({"models": rows, "without_card": bare, "broken_cards": troubles}))
        return
    _print(rows, bare, troubles)


def _defaults(folder: Path | None) -> set[Path]:
    from edge.models_dir import find_default
    from reid.model_errors import ModelError

    found: set[Path] = set()
    for kind in ("detector", "embedder"):
        try:
            found.add(find_default(kind, folder).path)
        except ModelError:
            continue  # no default of this kind: the list shows none
    return found


def _rows(place: Path, listing: Listing, defaults: set[Path]) -> list[dict[str, Any]]:
    return [
        _row(model.card, str(place), "default" if model.path in defaults else "")
        for model in listing.models
        if model.card is not None
    ]


def _row(card: Card, where: str, note: str) -> dict[str, Any]:
    return {
        "name": card.name,
        "kind": card.kind,
        "space_id": card.space_id or "",
        "variant_id": card.variant_id or "float32",
        "bytes": card.bytes,
        "licence": card.licence,
        "commercial_use": card.commercial_use,
        "sha256": card.sha256,
        "where": where,
        "note": note,
    }


def _print(rows: list[dict[str, Any]], bare: list[str], troubles: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from models.places import wide_enough

    console = Console(width=wide_enough())
    table = Table(box=None)
    for title in ("name", "kind", "variant", "MB", "commercial", "licence", "where", ""):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            row["kind"],
            row["variant_id"],
            f"{row['bytes'] / 1e6:.1f}",
            "yes" if row["commercial_use"] else "no",
            row["licence"],
            row["where"],
            row["note"],
        )
    console.print(table)
    for path in bare:
        console.print(f"{path}: no card (edge-models check {path})", markup=False)
    for trouble in troubles:
        console.print(trouble, markup=False, style="red")
