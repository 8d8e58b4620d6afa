"""`edge-models train`: train an OSNet or a detector by a recipe."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.places import INTERRUPTED, REFUSED


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    config: Annotated[Path, typer.Option(help="Recipe, e.g. models/recipes/osnet_x0_25.toml.")],
    packs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the packs that the recipe names; else .pack/osnet, or .pack/RECIPE for "
            "a detector."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; a run there is taken up again. Else out/RECIPE."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    threads: Annotated[
        int, typer.Option(min=0, help="Threads on the CPU; 0: torch's default.")
    ] = 0,
    stop_after_s: Annotated[
        float | None,
        typer.Option(min=0, help="Save and stop after this time; go on with the same call."),
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option(min=1, help="OSNet: epochs between measurements.")
    ] = 5,
    teacher: Annotated[
        Path | None, typer.Option(help="Detectors: a raw YOLOX ONNX to learn from as well.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Detectors: length of the whole run, instead of steps."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Detectors: length of the whole run; else the recipe's."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Detectors: processes that draw samples.")
    ] = 0,
    start_from: Annotated[
        Path | None,
        typer.Option(help="Detectors: a detector.pt whose weights a new run begins with."),
    ] = None,
) -> None:
    """Train by a recipe; stop at any time, the same call goes on where it stopped.

    Ctrl-C and SIGTERM save first, and the exit code is then 130; a second Ctrl-C ends at once.
    """
    from edge.signals import ends
    from models.places import refusals, refuse_options

    console = Console(stderr=True, markup=False)
    told_to_stop = threading.Event()
    try:
        kind = tomllib.loads(config.read_text(encoding="utf-8")).get("kind")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        console.print(f"{config}: {error}; give a recipe", style="red", markup=False)
        raise typer.Exit(2) from error
    out = out or Path("out") / config.stem
    packs = packs or Path(".pack") / (config.stem if kind == "detector" else "osnet")
    if kind == "detector":
        import models.train_detector
        from models.checkpoints import CheckpointError
        from models.detector_data import DatasetError
        from models.detector_recipe import RecipeError as DetectorRecipeError
        from models.detector_teacher import TeacherError

        try:
            with refusals(), ends(told_to_stop):
                weights = models.train_detector.run(
                    config, pack=packs, out=out, stop_after_s=stop_after_s, resume=True,
                    told_to_stop=told_to_stop,
                    device=device, threads=threads or 1, teacher=teacher, seconds=seconds,
                    steps=steps, workers=workers, start_from=start_from,
                )  # fmt: skip
        except (DetectorRecipeError, DatasetError, TeacherError, CheckpointError) as error:
            console.print(str(error), style="red", highlight=False)
            raise typer.Exit(2) from error
        console.print(f"averaged weights: {weights}; edge-models export makes a model of them")
        _say_if_stopped(console, told_to_stop)
        return

    import torch

    from models.checkpoints import CheckpointError
    from models.data.errors import DataError
    from models.recipe import RecipeError, read_recipe
    from models.train import Diverged, Run

    refuse_options(
        "detectors",
        {
            "--teacher": teacher,
            "--seconds": seconds,
            "--steps": steps,
            "--workers": workers,
            "--start-from": start_from,
        },
    )
    if threads:
        torch.set_num_threads(threads)
    try:
        with refusals(), ends(told_to_stop):
            run = Run(read_recipe(config), packs=packs, folder=out, device=device)
            run.train(
                stop_after_s=float("inf") if stop_after_s is None else stop_after_s,
                evaluate_every=evaluate_every,
                told_to_stop=told_to_stop,
            )
    except (RecipeError, DataError, CheckpointError) as error:
        console.print(str(error), style="red", highlight=False)
        raise typer.Exit(2) from error
    except Diverged as error:
        console.print(str(error), style="red", highlight=False)
        raise typer.Exit(REFUSED) from error
    state = "done" if run.finished else f"stopped at step {run.step} of {run.steps}"
    console.print(f"{state}; weights in {out / 'last.pth'}: edge-models export makes a model of it")
    _say_if_stopped(console, told_to_stop)


def _say_if_stopped(console: Console, told_to_stop: threading.Event) -> None:
    if told_to_stop.is_set():
        console.print("stopped as asked; the same call goes on")
        raise typer.Exit(INTERRUPTED)
