"""`edge-models export`: a checkpoint as ONNX with its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from reid.card import LEAST_SIDE, MOST_SIDE

if TYPE_CHECKING:
    from models.detector_export import Calibration

DETECTOR_SIZE = 416  # the box's usual detector input; Ultralytics' own is 640
MADE_BY = "edge-reid"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="last.pth or detector.pt of a run, or a published .pth.")
    ],
    out: Annotated[Path, typer.Argument(help="The ONNX file; its card lands beside it.")],
    height: Annotated[
        int, typer.Option(help="Input height; 0: as trained, else 256; detectors: 416.")
    ] = 0,
    width: Annotated[
        int, typer.Option(help="Input width; 0: as trained, else 128; detectors: 416.")
    ] = 0,
    normalise_inside: Annotated[
        bool, typer.Option(help="Put mean and deviation into the file: it takes RGB 0..255.")
    ] = False,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(help="set:part of training people that the checkpoint does not name."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights.")] = None,
    commercial_use: Annotated[
        bool,
        typer.Option(help="Whether the licence allows it; detectors: as their recipes say."),
    ] = False,
    made_by: Annotated[str, typer.Option(help="Whose weights these are.")] = MADE_BY,
    default: Annotated[bool, typer.Option(help="Make it the box's default of its kind.")] = False,
    notes: Annotated[str, typer.Option(help="One line for people.")] = "",
    score_share: Annotated[
        float, typer.Option(min=0, max=1, help="Detectors: share of the teacher's score.")
    ] = 0.0,
    box_share: Annotated[
        float, typer.Option(min=0, max=1, help="Detectors: share of the teacher's box.")
    ] = 0.0,
    logit_shift: Annotated[
        float, typer.Option(help="Detectors: added to every score's logit.")
    ] = 0.0,
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
    """Export an OSNet or a detector, compare with torch, and write the card."""
    from models.places import USAGE, onnx_target, refusals, refuse_options, say

    _refuse_blank(
        {"--licence": [licence], "--made-by": [made_by], "--trained-on": trained_on or []}
    )
    onnx_target(out)
    shares = {"--score-share": score_share, "--box-share": box_share, "--logit-shift": logit_shift}
    if yolo:
        # its card says what Ultralytics says; what is silently left out would be missed there
        refuse_options(
            "other checkpoints than --yolo",
            shares
            | {
                "--width": width,
                "--normalise-inside": normalise_inside,
                "--trained-on": trained_on,
                "--licence": licence,
                "--commercial-use": commercial_use,
                "--made-by": made_by != MADE_BY,
                "--default": default,
                "--notes": notes,
            },
        )
        size = height or DETECTOR_SIZE
        _multiple_of_32("--height", size)
        _export_yolo(checkpoint, out, size=size, end_to_end=end_to_end)
        return
    refuse_options("--yolo", {"--no-end-to-end": not end_to_end})
    from models import checkpoints
    from models.describe import RESEARCH_LICENCE, describe, input_spec, space_of, write_model
    from models.detector_export import Calibration
    from models.export import ExportError, InputTooSmall, to_onnx
    from models.licence import LicenceUntrue, all_sources, refuse_commercial_use

    console = Console(stderr=True, markup=False)
    try:
        contents = checkpoints.read(checkpoint)
        if checkpoints.is_detector(contents):
            refuse_options("embedders", {"--normalise-inside": normalise_inside})
            given = {"licence": licence, "training_data": tuple(trained_on or ()) or None}
            _export_detector(
                checkpoint,
                out,
                size=(height or DETECTOR_SIZE, width or DETECTOR_SIZE),
                calibration=Calibration(score_share, box_share, logit_shift),
                commercial_use=commercial_use,
                default=default,
                notes=notes,
                changes={"made_by": made_by} | {k: v for k, v in given.items() if v is not None},
            )
            return
        refuse_options("detectors", shares)
        trained = checkpoints.input_size(contents, checkpoint) or (256, 128)
        high, wide = height or trained[0], width or trained[1]
        own = checkpoints.trained_on(contents, checkpoint)
        sources = all_sources(own, trained_on or ())
        if commercial_use:
            refuse_commercial_use(checkpoint, sources)
            if licence is None:
                text = f"give --licence too: by itself the card says {RESEARCH_LICENCE!r}"
                raise typer.BadParameter(text, param_hint="--commercial-use")
        for flag, value in (("--height", high), ("--width", wide)):
            if not LEAST_SIDE <= value <= MOST_SIDE:
                raise typer.BadParameter(
                    f"{value} is not {LEAST_SIDE} to {MOST_SIDE} px", param_hint=flag
                )
        content = to_onnx(checkpoints.load(checkpoint), high, wide, inside=normalise_inside)
    except checkpoints.CheckpointError as error:
        console.print(str(error), style="red", highlight=False)
        raise typer.Exit(3) from error
    except (InputTooSmall, LicenceUntrue) as error:
        say(str(error))
        raise typer.Exit(USAGE) from error
    except ExportError as error:
        console.print(str(error), style="red", highlight=False)
        raise typer.Exit(70) from error
    with refusals():
        card = describe(
            content,
            out,
            name=out.stem,
            spec=input_spec(high, wide, inside=normalise_inside),
            space_id=space_of(out.stem, content),
            variant_id="float32",
            training_data=sources,
            licence=licence or RESEARCH_LICENCE,
            commercial_use=commercial_use,
            made_by=made_by,
            default=default,
            notes=notes,
        )
        write_model(content, card, out)
    console.print(f"{out}: {len(content) / 1e6:.2f} MB, {high}×{wide}, space {card.space_id}")


def _export_detector(
    checkpoint: Path,
    out: Path,
    *,
    size: tuple[int, int],
    calibration: Calibration,
    commercial_use: bool,
    default: bool,
    notes: str,
    changes: Mapping[str, object],
) -> None:
    from models.detector_export import ExportError, LicenceUntrue, export_detector
    from models.places import USAGE, refusals, say

    height, width = size
    _multiple_of_32("--height", height)
    _multiple_of_32("--width", width)
    try:
        with refusals():
            card = export_detector(
                checkpoint,
                out,
                height=height,
                width=width,
                calibration=calibration,
                commercial_use=commercial_use,
                default=default,
                notes=notes,
                changes=changes,
            )
    except ExportError as error:
        say(str(error))
        raise typer.Exit(USAGE if isinstance(error, LicenceUntrue) else 70) from error
    print(f"{out}: {card.bytes / 1e6:.2f} MB, {width}×{height}, {card.licence_line()}")


def _refuse_blank(given: Mapping[str, Sequence[str | None]]) -> None:
    """Refuse texts that would leave a line of the card empty; None was not given."""
    for flag, texts in given.items():
        if any(text is not None and not text.strip() for text in texts):
            raise typer.BadParameter("is empty; say it, or leave it out", param_hint=flag)


def _multiple_of_32(flag: str, value: int) -> None:
    if value < 32 or value % 32:
        raise typer.BadParameter(f"{value} is no multiple of 32", param_hint=flag)


def _export_yolo(checkpoint: Path, out: Path, *, size: int, end_to_end: bool) -> None:
    from models.export_yolo import YoloExportError, export_yolo
    from models.places import refusals

    with refusals(YoloExportError):
        card = export_yolo(checkpoint, out, size=size, end_to_end=end_to_end)
    print(f"{out}: family {card.family}, {card.licence_line()}")
