"""`edge-models rollback`: undo the last choice of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge.model_pointer import Pointer
    from reid.card import Kind


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

    Where that model has gone, or the box would refuse it, nothing changes (exit code 3); choose one
    with `edge-models use`.
    """
    from edge.model_pointer import read_pointer, write_pointer
    from edge.models_dir import find_model
    from models.check import examine
    from models.choosing import kind_named
    from models.places import REFUSED, USAGE, needed_folder, refusals, say

    folder = needed_folder(models_dir, existing=True)
    with refusals():
        pointer = read_pointer(folder)
        chosen = kind_named(kind) if kind is not None else pointer.last
        undone = pointer.rolled_back(chosen) if chosen is not None else None
        if chosen is None or undone is None:
            say(f"nothing to roll back in {folder}: {_oldest(pointer, chosen)}")
            raise typer.Exit(USAGE)
        earlier = undone.chosen(chosen)
        if earlier is not None:
            report = examine(find_model(earlier, chosen, folder).path, seconds=0.0)
            if report.trouble:
                now = pointer.chosen(chosen) or "default"
                say(
                    f"{chosen}: {now} stays, for the box would refuse {earlier}: {report.trouble}; "
                    "mend that, or choose another: edge-models use NAME"
                )
                raise typer.Exit(REFUSED)
        write_pointer(folder, undone)
    print(f"{chosen}: {earlier or 'default'} from now on")


def _oldest(pointer: Pointer, kind: Kind | None) -> str:
    """Why there is nothing to go back to."""
    names = pointer.history.get(kind, ()) if kind is not None else ()
    if not names:
        return f"no {kind or 'choice'} was {'chosen' if kind else 'made'} there"
    in_use = pointer.chosen(kind) if kind is not None else None
    if in_use is None:
        return f"every choice of the {kind} is undone, default is in use"
    return f"{in_use} is the oldest {kind} that is remembered; edge-models use NAME"
