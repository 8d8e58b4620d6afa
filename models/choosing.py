"""From what an operator types to a model of a folder, whichever kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import typer

from edge.models_dir import find_model
from reid.card import Kind, ModelFile
from reid.model_errors import ModelNotFound, WrongKind

KINDS: tuple[Kind, ...] = get_args(Kind)


def named_model(name: str, folder: Path) -> tuple[ModelFile, Kind]:
    """The model of that card name, detector or embedder.

    Raises:
        ModelNotFound: there is none.
        CardInvalid: its card is broken.
    """
    there: list[str] = []
    for kind in KINDS:
        try:
            return find_model(name, kind, folder), kind
        except WrongKind:
            continue
        except ModelNotFound as error:
            there.append(error.what)
    raise ModelNotFound(name, "; ".join(there), "edge-models list shows names, edge-models pull")


def kind_named(text: str) -> Kind:
    """detector or embedder.

    Raises:
        typer.BadParameter: neither.
    """
    for kind in KINDS:
        if text == kind:
            return kind
    raise typer.BadParameter(f"{text!r} is neither {' nor '.join(KINDS)}", param_hint="KIND")
