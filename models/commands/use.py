"""`edge-models use`: choose the model that running and future boxes on this folder take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("use")(use)


def use(
    name: Annotated[str, typer.Argument(help="A card's name (edge-models list), or its file.")],
    models_dir: Annotated[
        Path | None, typer.Option(help="Models folder; else EDGE_MODELS_DIR.")
    ] = None,
) -> None:
    """Check it as the box will, then choose it; a running box takes it within seconds."""
    from edge.model_pointer import read_pointer, write_pointer
    from models.check import examine
    from models.choosing import named_model, pointer_name
    from models.places import REFUSED, USAGE, needed_folder, refusals, say

    folder = needed_folder(models_dir, existing=True)
    if name == "default":
        say("default is no model; to undo a choice: edge-models rollback")
        raise typer.Exit(USAGE)
    with refusals():
        model, kind = named_model(name, folder)
        chosen = pointer_name(model, kind, folder)
        if chosen is None:
            say(f"{model.path} lies outside the models folder {folder}: copy it and its card there")
            raise typer.Exit(USAGE)
        report = examine(model.path, seconds=0.0)
        if report.trouble:
            say(f"not chosen, the box would refuse it: {report.trouble}")
            raise typer.Exit(REFUSED)
        write_pointer(folder, read_pointer(folder).using(kind, chosen))
    print(f"{kind}: {chosen} from now on; {report.licence}; undo: edge-models rollback {kind}")
