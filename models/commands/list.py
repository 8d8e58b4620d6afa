"""`edge-models list`: what is installed and what can be pulled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edge.models_dir import Listing
    from models.catalogue import Entry
    from reid.card import Card, ModelFile


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list")(list_models)


def list_models(
    models_dir: Annotated[
        Path | None, typer.Option(help="Models folder; else EDGE_MODELS_DIR.")
    ] = None,
    catalogue: Annotated[
        Path | None, typer.Option(help="A catalogue of your own instead of the packaged one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Models in the models folder and in the package, and public ones to pull."""
    from edge import models_dir as folders
    from models.catalogue import read_catalogue
    from models.places import existing_folder, refusals

    with refusals():
        folder = existing_folder(models_dir)
        places = [place for place in (folder, folders.packaged_dir()) if place is not None]
        listings = {place: folders.list_models(place) for place in places}
        defaults, no_default = _defaults(folder)
        entries = read_catalogue(catalogue)
        rows = [row for place in places for row in _rows(place, listings[place], defaults)]
    here = {row["sha256"] for row in rows}
    rows += [
        _row(entry.card, "catalogue", _how(entry))
        for entry in entries
        if entry.card.sha256 not in here
    ]
    troubles = [str(error) for place in places for error in listings[place].broken]
    bare = [str(path) for place in places for path in listings[place].bare]
    if as_json:
        found = {"models": rows, "without_card": bare, "broken_cards": troubles}
        print(json.dumps(found | {"no_default": no_default}))
        return
    _print(rows, bare, troubles + no_default)


def _defaults(folder: Path | None) -> tuple[set[Path], list[str]]:
    """The defaults, and why a kind has none: its choice has gone, or nobody can tell."""
    from edge.models_dir import find_default
    from reid.model_errors import ModelError

    found: set[Path] = set()
    why: dict[str, None] = {}  # each once: one broken current.toml speaks for both kinds
    for kind in ("detector", "embedder"):
        try:
            found.add(find_default(kind, folder).path)
        except ModelError as error:
            why[str(error)] = None
    return found, list(why)


def _rows(place: Path, listing: Listing, defaults: set[Path]) -> list[dict[str, Any]]:
    return [
        _row(model.card, str(place), _state(model, defaults))
        for model in listing.models
        if model.card is not None
    ]


def _state(model: ModelFile, defaults: set[Path]) -> str:
    """Whether it is a default; what is wrong with a file that is not its card's."""
    from reid.card import verify_bytes
    from reid.model_errors import ModelError

    assert model.card is not None
    try:
        verify_bytes(model.path, model.read(), model.card)
    except ModelError as error:
        return f"refused: {error.what}"
    return "default" if model.path in defaults else ""


def _how(entry: Entry) -> str:
    from models.catalogue import BY_HAND

    if entry.urls:
        return f"edge-models pull {entry.card.name}"
    return f"no public address: {BY_HAND}"


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

    console = Console(width=wide_enough(), markup=False)
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
