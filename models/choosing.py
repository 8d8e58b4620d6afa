"""From what an operator types to a model of a folder, whichever kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import typer

from edge.models_dir import find_model
from reid.card import Kind, ModelFile
from reid.model_errors import ModelError, ModelNotFound, WrongKind

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


def pointer_name(model: ModelFile, kind: Kind, folder: Path) -> str | None:
    """What to write for a model so that a box that has this folder finds it; None: nothing can.

    Its card's name; its file's name where there is no card or another model has that name.
    """
    for name in (model.name, model.path.name):
        try:
            found = find_model(name, kind, folder)
        except ModelError:
            continue  # no such name, or another kind's: the next is tried
        if found.path.resolve() == model.path.resolve():
            return name
    return None


def kind_named(text: str) -> Kind:
    """detector or embedder.

    Raises:
        typer.BadParameter: neither.
    """
    for kind in KINDS:
        if text == kind:
            return kind
    raise typer.BadParameter(f"{text!r} is neither {' nor '.join(KINDS)}", param_hint="KIND")
