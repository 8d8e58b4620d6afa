"""`edge-models rollback`: undo the last choice of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rollback")(rollback)


def rollback(
    kind: Annotated[
        str | None, typer.Argument(help="detector or embedder; else what was chosen last.")
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="Models folder; else EDGE_MODELS_DIR.")
    ] = None,
) -> None:
    """Go back to the model chosen before; may be repeated.

    Where that model has gone, nothing changes (exit code 3); choose one with `edge-models use`.
    """
    from edge.model_pointer import read_pointer, write_pointer
    from edge.models_dir import find_model
    from models.choosing import kind_named
    from models.places import USAGE, needed_folder, refusals, say

    folder = needed_folder(models_dir)
    with refusals():
        pointer = read_pointer(folder)
        chosen = kind_named(kind) if kind is not None else pointer.last
        undone = pointer.rolled_back(chosen) if chosen is not None else None
        if chosen is None or undone is None:
            say(f"nothing to roll back in {folder}: no choice was made there")
            raise typer.Exit(USAGE)
        earlier = undone.chosen(chosen)
        if earlier is not None:
            find_model(earlier, chosen, folder)  # refused where it has gone: nothing changes
        write_pointer(folder, undone)
    print(f"{chosen}: {earlier or 'default'} from now on")
