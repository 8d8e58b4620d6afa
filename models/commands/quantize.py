"""`edge-models quantize`: int8 or bfloat16 variants, admitted by measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models.places import REFUSED, USAGE, onnx_target, refusals, refuse_options, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quantize")(quantize)


def quantize(
    model: Annotated[Path, typer.Argument(help="Float ONNX file with its card.")],
    data: Annotated[Path, typer.Option(help="Folder or tar of the set to judge on.")],
    protocol: Annotated[
        str,
        typer.Option(help="Reader of that set: market1501, cuhk03, ...; coco-person: detectors."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Default: the name with -int8; detectors: _int8.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Another set for the ranges (default: the same).")
    ] = None,
    calibration_protocol: Annotated[str | None, typer.Option(help="Its reader.")] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            help="s8s8 (default), u8s8-reduced or u8u8 (without VNNI the better of these two is "
            "taken); detectors: u8s8 (default) or s8s8."
        ),
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(min=1, help="To calibrate on: 256 crops, or 128 pictures for detectors."),
    ] = None,
    bf16: Annotated[bool, typer.Option(help="bfloat16 by OpenVINO instead of int8.")] = False,
    trained_on_this: Annotated[
        bool, typer.Option(help="Judge even on people the model was trained on.")
    ] = False,
) -> None:
    """Make a smaller variant and judge it beside the float one; one that loses is refused.

    Embedders may lose 0.5 points of mAP; detectors 0.01 of recall at precision 0.9, and must gain
    speed here.
    """
    if out is not None:
        onnx_target(out)
        if out.resolve() == model.resolve():
            raise typer.BadParameter(f"{out} is the float model itself", param_hint="--out")
    if protocol == "coco-person":
        of_embedders = {"--bf16": bf16, "--trained-on-this": trained_on_this}
        of_embedders["--calibration-protocol"] = calibration_protocol is not None
        refuse_options("embedders", of_embedders)
        _quantize_detector(model, out, data, calibration, scheme, crops)
        return
    if bf16:
        of_int8 = {"--out": out, "--scheme": scheme, "--crops": crops, "--calibration": calibration}
        refuse_options("int8", of_int8 | {"--calibration-protocol": calibration_protocol})
    elif calibration_protocol is not None and calibration is None:
        raise typer.BadParameter(
            "says how --calibration is read; give that too", param_hint="--calibration-protocol"
        )
    from models.data.errors import DataError
    from models.data.readers import open_dataset
    from models.evaluate import TrainedOnThis
    from models.int8 import SCHEMES
    from models.quantize import CALIBRATION_CROPS, VariantRefused, admit_bf16
    from models.quantize import quantize as make

    if scheme is not None and scheme not in SCHEMES:
        raise typer.BadParameter(f"{scheme!r} is none of {', '.join(SCHEMES)}")
    try:
        with refusals(VariantRefused):
            judge = open_dataset(protocol, data)
            if bf16:
                report = admit_bf16(model, judge=judge, insist=trained_on_this, say=say)
            else:
                ranges = (
                    open_dataset(calibration_protocol or protocol, calibration)
                    if calibration
                    else judge
                )
                report = make(
                    model,
                    out or model.with_name(f"{model.stem}-int8.onnx"),
                    calibration=ranges,
                    judge=judge,
                    scheme=scheme,
                    crops=crops or CALIBRATION_CROPS,
                    insist=trained_on_this,
                    say=say,
                )
    except (DataError, TrainedOnThis) as error:
        say(str(error))
        raise typer.Exit(USAGE) from error
    table = Table(title=f"{model.name} → {report.scheme}")
    for name in ("", "rank-1", "mAP"):
        table.add_column(name, justify="right")
    for name, scores in (
        ("float", report.before),
        ("variant", report.after),
        ("variant → float gallery", report.across),
    ):
        table.add_row(name, f"{scores.rank1:.2f}", f"{scores.map:.2f}")
    people = Console(markup=False)
    people.print(table)
    people.print(f"cosine mean {report.cosine_mean:.4f}, min {report.cosine_min:.4f}")
    for name, value in report.latency_ms.items():
        people.print(f"{name}: {value:.2f} ms")
    if report.kept_float:
        people.print(f"kept in float: {', '.join(report.kept_float)}")


def _quantize_detector(
    model: Path,
    out: Path | None,
    data: Path,
    calibration: Path | None,
    scheme: str | None,
    pictures: int | None,
) -> None:
    from models.detector_data import DatasetError
    from models.detector_quantize import (
        CALIBRATION_PICTURES,
        SCHEMES,
        Int8Refused,
        NotOurDetector,
        quantize_detector,
    )
    from reid.model_errors import ModelError

    chosen = next((one for one in SCHEMES if one == (scheme or "u8s8")), None)
    if chosen is None:
        raise typer.BadParameter(f"{scheme!r} is none of {', '.join(SCHEMES)}")
    try:
        made = quantize_detector(
            model,
            out,
            judge_on=data,
            calibration=calibration,
            scheme=chosen,
            pictures=pictures or CALIBRATION_PICTURES,
            say=print,
        )
    except DatasetError as error:
        say(str(error))
        raise typer.Exit(USAGE) from error
    except (ModelError, NotOurDetector, Int8Refused) as error:
        say(str(error))
        raise typer.Exit(REFUSED) from error
    print(f"{made}: {made.stat().st_size / 1e6:.2f} MB")
