"""`edge-models`: the life of the networks, one command per module of models/commands."""

from __future__ import annotations

import importlib
import pkgutil

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


def main() -> None:
    """Entry point of the console script."""
    app()
