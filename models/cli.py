"""`edge-models`: the life of the networks, one command per module of models/commands."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

import models.commands

app = typer.Typer(
    name="edge-models",
    help="Train, evaluate, export, quantise, check and exchange the models of the box.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Train, evaluate, export, quantise, check and exchange the models of the box."""


for _module in sorted(found.name for found in pkgutil.iter_modules(models.commands.__path__)):
    importlib.import_module(f"models.commands.{_module}").register(app)


_TRAINING = {
    "torch",
    "onnx",
    "onnxscript",
    "tqdm",
    "matplotlib",
    "sklearn",
    "scipy",
}  # the extra `train`


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _TRAINING:
            raise
        print(
            f"edge-models: this needs {missing}, which a box does without: "
            "pip install 'edge-reid[train]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from error
