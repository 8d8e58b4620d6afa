"""`edge-models pull`: bring a public model into the models folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid.logs import mask

if TYPE_CHECKING:
    from reid.card import Card


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pull")(pull)


def pull(
    names: Annotated[list[str], typer.Argument(help="Names in the catalogue: edge-models list.")],
    models_dir: Annotated[
        Path | None, typer.Option(help="Models folder; else EDGE_MODELS_DIR.")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            help="Address or folder that holds the files, then only this is asked; "
            "@FILE: the address stands in FILE, for one with a password."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licences shown.")] = False,
    catalogue: Annotated[
        Path | None, typer.Option(help="A catalogue of your own instead of the packaged one.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Longest silence of a mirror.")
    ] = 20.0,
) -> None:
    """Show the licence, fetch, check length and sha256, write the card."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TransferSpeedColumn

    from models.catalogue import CatalogueError, find_entry, read_catalogue
    from models.catalogue import pull as pull_entry
    from models.download import DownloadError
    from models.places import needed_folder, refusals

    folder = needed_folder(models_dir)
    console = Console(stderr=True, markup=False)
    with refusals(CatalogueError, DownloadError):
        entries = read_catalogue(catalogue)
        mirrors = [_address(text) for text in mirror or ()]
        for entry in [find_entry(name, entries) for name in names]:
            columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
            bar = Progress(*columns, console=console, transient=True)
            task = bar.add_task(entry.card.name, total=entry.card.bytes)

            def told(done: int, total: int, bar: Progress = bar, task: TaskID = task) -> None:
                bar.start()  # not earlier: a bar that is drawn wipes the question about the licence
                bar.update(task, completed=done)

            try:
                path = pull_entry(
                    entry,
                    folder,
                    accept=lambda card: yes or _accepted(card),
                    mirrors=mirrors,
                    timeout_s=timeout_s,
                    progress=told,
                )
            finally:
                bar.stop()
            print(f"{entry.card.name}: {path}; {entry.card.licence_line()}")


def _address(text: str) -> str:
    """What to ask: http(s)://… or a folder.

    Raises:
        typer.BadParameter: neither.
        OSError: its file cannot be read.
    """
    found, said = text, mask(text)
    if text.startswith("@"):
        found = Path(text[1:]).read_text(encoding="utf-8", errors="replace").strip()
        said = f"the text of {text[1:]}"  # it may hold a password
    scheme, colon, _ = found.partition("://")
    if not found or (colon and scheme not in ("http", "https")):
        raise typer.BadParameter(
            f"{said!r} is neither http://… nor https://… nor a folder", param_hint="--mirror"
        )
    return found


def _accepted(card: Card) -> bool:
    """Ask on a terminal; elsewhere say what flag answers, and do not accept."""
    print(f"{card.licence_line()}\ntrained on: {', '.join(card.training_data)}", file=sys.stderr)
    if not sys.stdin.isatty():
        return False
    return typer.confirm("Fetch it under this licence?", err=True)
