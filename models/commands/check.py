"""`edge-models check`: what a file is, and what the box would do with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from models.check import Report
    from reid.card import InputSpec


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    file: Annotated[Path, typer.Argument(help="An ONNX file.")],
    write: Annotated[
        bool, typer.Option("--write-card", help="Write a card beside the file; see the options.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Overwrite the card that is there.")] = False,
    name: Annotated[str | None, typer.Option(help="Card: name; else the file's.")] = None,
    licence: Annotated[str, typer.Option(help="Card: licence.")] = "unknown",
    commercial_use: Annotated[
        bool, typer.Option(help="Card: licence and training data allow commercial use.")
    ] = False,
    made_by: Annotated[str, typer.Option(help="Card: who made the weights.")] = "unknown",
    trained_on: Annotated[list[str] | None, typer.Option(help="Card: training data.")] = None,
    space_id: Annotated[
        str | None, typer.Option(help="Card: the embedder's space; else one of its own.")
    ] = None,
    variant_id: Annotated[str, typer.Option(help="Card: variant in that space.")] = "float32",
    family: Annotated[
        str | None, typer.Option("--detector-family", help="Output layout, if it is ambiguous.")
    ] = None,
    colour: Annotated[str | None, typer.Option(help="Input: bgr or rgb.")] = None,
    value_range: Annotated[
        int | None, typer.Option("--range", help="Input: white is 1 or 255.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Input: three numbers, as 0.5,0.5,0.5.")] = None,
    std: Annotated[str | None, typer.Option(help="Input: three numbers.")] = None,
    fit: Annotated[
        str | None, typer.Option(help="Input: stretch, letterbox_top_left, letterbox_centre.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long each runtime is timed.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Exit 3 where the box would refuse the file."""
    from edge.config import DetectConfig
    from models.check import draft_card, examine, usual_input
    from models.places import REFUSED, USAGE, refusals, say
    from reid.card import card_path, write_card

    with refusals():
        if write:
            if card_path(file).exists() and not force:
                say(f"{card_path(file)} exists; say --force to write it anew")
                raise typer.Exit(USAGE)
            changes = {
                "colour": colour,
                "range": value_range,
                "mean": _triple(mean, "--mean"),
                "std": _triple(std, "--std"),
                "fit": fit,
            }
            given = {key: value for key, value in changes.items() if value is not None}
            spec = _changed(usual_input(file, family), given) if given else None
            card = draft_card(
                file,
                name=name,
                licence=licence,
                commercial_use=commercial_use,
                made_by=made_by,
                training_data=trained_on or (),
                family=family,
                space_id=space_id,
                variant_id=variant_id,
                spec=spec,
            )
            write_card(card, card_path(file))
        report = examine(file, detect=DetectConfig(family=family), seconds=seconds)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        _print(report)
    if report.trouble:
        raise typer.Exit(REFUSED)


def _triple(text: str | None, flag: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise typer.BadParameter(f"{text!r} is not three numbers, as 0.5,0.5,0.5", param_hint=flag)
    return numbers


def _changed(usual: InputSpec, given: Mapping[str, object]) -> InputSpec:
    from pydantic import ValidationError

    from reid.card import InputSpec

    try:
        return InputSpec.model_validate({**usual.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{first['loc'][0]}: {first['msg']}") from error


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from models.places import wide_enough

    console = Console(width=wide_enough(), markup=False)
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    table.add_row("file", str(report.file), f"{report.bytes} bytes, sha256 {report.sha256[:12]}…")
    table.add_row("takes", "; ".join(report.inputs), "the file")
    table.add_row("gives", "; ".join(report.outputs), "the file")
    table.add_row("kind", report.kind, report.kind_from)
    table.add_row("card", report.card_from or "none", "")
    table.add_row("licence", report.licence, "")
    for what, value, source in report.does:
        table.add_row(what, value, source)
    for label, ms, why in report.speed:
        value = f"{ms:.2f} ms" if ms is not None else f"left out: {why}"
        table.add_row(label, value, f"{report.processor}, {report.threads} threads")
    console.print(table)
    if report.trouble:
        console.print(f"The box would refuse it: {report.trouble}", style="red", markup=False)
