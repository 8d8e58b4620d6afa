"""`edge-models export`: a checkpoint as ONNX with its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

YOLO_SIZE = 416  # the box's usual detector input, not Ultralytics' 640


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="last.pth of a run, or a published .pth.")],
    out: Annotated[Path, typer.Argument(help="The ONNX file; its card lands beside it.")],
    height: Annotated[int, typer.Option(help="Input height; 0: as trained, else 256.")] = 0,
    width: Annotated[int, typer.Option(help="Input width; 0: as trained, else 128.")] = 0,
    normalise_inside: Annotated[
        bool, typer.Option(help="Put mean and deviation into the file: it takes RGB 0..255.")
    ] = False,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(help="set:part of the training people, where the checkpoint lacks them."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights.")] = None,
    commercial_use: Annotated[bool, typer.Option(help="Whether the licence allows it.")] = False,
    made_by: Annotated[str, typer.Option(help="Whose weights these are.")] = "edge-reid",
    default: Annotated[bool, typer.Option(help="Make it the box's default embedder.")] = False,
    notes: Annotated[str, typer.Option(help="One line for people.")] = "",
    yolo: Annotated[
        bool,
        typer.Option(
            "--yolo", help="A detector of Ultralytics (extra export); --height: its side."
        ),
    ] = False,
    end_to_end: Annotated[
        bool, typer.Option(help="With --yolo: the head without suppression, where it has one.")
    ] = True,
) -> None:
    """Export, compare with torch (cosine at least 0.9999), and write the card."""
    if yolo:
        _export_yolo(checkpoint, out, size=height or YOLO_SIZE, end_to_end=end_to_end)
        return
    from models import checkpoints
    from models.export import (
        RESEARCH_LICENCE,
        ExportError,
        describe,
        input_spec,
        space_of,
        to_onnx,
        write_model,
    )

    console = Console(stderr=True)
    try:
        contents = checkpoints.read(checkpoint)
        stage = contents.get("input", {})
        high, wide = height or stage.get("height", 256), width or stage.get("width", 128)
        content = to_onnx(checkpoints.load(checkpoint), high, wide, inside=normalise_inside)
    except checkpoints.CheckpointError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(3) from error
    except ExportError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(70) from error
    card = describe(
        content,
        out,
        name=out.stem,
        spec=input_spec(high, wide, inside=normalise_inside),
        space_id=space_of(out.stem, content),
        variant_id="float32",
        training_data=trained_on or [str(name) for name in contents.get("trained_on", ())],
        licence=licence or RESEARCH_LICENCE,
        commercial_use=commercial_use,
        made_by=made_by,
        default=default,
        notes=notes,
    )
    write_model(content, card, out)
    console.print(f"{out}: {len(content) / 1e6:.2f} MB, {high}×{wide}, space {card.space_id}")


def _export_yolo(checkpoint: Path, out: Path, *, size: int, end_to_end: bool) -> None:
    from models.export_yolo import YoloExportError, export_yolo
    from models.places import refusals

    with refusals(YoloExportError):
        card = export_yolo(checkpoint, out, size=size, end_to_end=end_to_end)
    print(f"{out}: family {card.family}, {card.licence_line()}")
