"""`edge-models pack`: a training set as one small file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pack")(pack)


def pack(
    data: Annotated[Path, typer.Option(help="Folder or tar of the data set.")],
    protocol: Annotated[str, typer.Option(help="Reader of the set: market1501, cuhk03, ...")],
    out: Annotated[Path, typer.Argument(help="The pack to write (.npz).")],
    part: Annotated[
        list[str] | None, typer.Option(help="train, query, gallery; repeatable. Default: train.")
    ] = None,
    height: Annotated[
        int, typer.Option(min=16, help="Height of the packed images; width is half.")
    ] = 128,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of WebP.")] = 80,
    max_mb: Annotated[float, typer.Option(min=0, help="Largest file that is written.")] = 40.0,
) -> None:
    """Write images of a set as one file of at most 40 MB, for machines with little room."""
    from models.data.errors import DataError
    from models.data.pack import write_pack
    from models.data.readers import JUNK, PARTS, open_dataset
    from models.places import make_parent, refusals

    console = Console(stderr=True, markup=False)
    parts = part or ["train"]
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
    if not math.isfinite(max_mb):
        raise typer.BadParameter(f"{max_mb} is no number of MB", param_hint="--max-mb")
    if out.is_dir():
        raise typer.BadParameter(f"{out} is a folder; give NAME.npz", param_hint="OUT")
    make_parent(out)
    try:
        with refusals(), console.status(f"packing {protocol}"):
            size = write_pack(
                open_dataset(protocol, data),
                parts,
                out,
                size=(height, height // 2),
                quality=quality,
                keep=lambda sample: sample.person != JUNK,
                max_bytes=int(max_mb * 1e6),
            )
    except DataError as error:
        console.print(str(error), style="red", highlight=False)
        raise typer.Exit(2) from error
    console.print(f"{out}: {size / 1e6:.1f} MB")
