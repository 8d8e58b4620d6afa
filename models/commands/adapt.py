"""`edge-models adapt`: fit a model or a site's map to a new site, without labels."""

from __future__ import annotations

import shlex
import threading
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("adapt")(adapt)


LEAST_SIDE = 16  # px; the network halves its input four times
MAPS, STEPS = Path("site-maps"), 800
LOSS, EPOCHS, HEIGHT, WIDTH, DEVICE = "gds-h", 10, 128, 64, "cpu"
_STORED = "From stored sightings"
_CROPS = "From crops"


def adapt(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="Checkpoint (.pth) to start from; with --images."),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(help="ledger.db, .parquet or .jsonl of edge-match.", rich_help_panel=_STORED),
    ] = None,
    maps: Annotated[
        Path, typer.Option(help="Folder of all sites' maps.", rich_help_panel=_STORED)
    ] = MAPS,
    site: Annotated[
        str | None, typer.Option(help="Where there are several.", rich_help_panel=_STORED)
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Where there are several.", rich_help_panel=_STORED)
    ] = None,
    steps: Annotated[
        int, typer.Option(help="Of training; fewer are faster.", rich_help_panel=_STORED)
    ] = STEPS,
    rollback: Annotated[
        bool,
        typer.Option(
            "--rollback", help="Go back to the map before; needs --site.", rich_help_panel=_STORED
        ),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder or tar of crops, named in any way.", rich_help_panel=_CROPS),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run and its model.", rich_help_panel=_CROPS)
    ] = None,
    loss: Annotated[
        str, typer.Option(help="One of those named above.", rich_help_panel=_CROPS)
    ] = LOSS,
    epochs: Annotated[
        int, typer.Option(help="Rounds of clustering and training.", rich_help_panel=_CROPS)
    ] = EPOCHS,
    height: Annotated[int, typer.Option(help="Of the input.", rich_help_panel=_CROPS)] = HEIGHT,
    width: Annotated[int, typer.Option(help="Of the input.", rich_help_panel=_CROPS)] = WIDTH,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...", rich_help_panel=_CROPS)] = DEVICE,
    threads: Annotated[int, typer.Option(help="On the CPU.")] = 1,
    seed: Annotated[int, typer.Option(help="Fixes what is random.")] = 1,
) -> None:
    """Adapt to a site without labels, from sightings or from crops of people.

    --embeddings FILE: a small map on top of the embedder, learned from vectors,
    cameras and times; put under --maps only if it helps beyond chance on what was
    held back, and no less than the map there. A minute for 10,000 tracklets; of
    more than 50,000 only the newest are used.

    MODEL --images FOLDER --out FOLDER: the checkpoint trained further, as a new
    model with a card, unless it is worse on crops that were held back. At least
    1000 crops. --loss baseline, gds or gds-h; histogram, f-statistic and global
    are what the paper of GDS compares it with.
    """
    from models.places import cure_of, refuse_options

    console = Console(stderr=True, markup=False)
    for option, value, least in (
        ("--steps", steps, 0), ("--epochs", epochs, 0), ("--threads", threads, 1),
        ("--height", height, LEAST_SIDE), ("--width", width, LEAST_SIDE), ("--seed", seed, 0),
    ):  # fmt: skip
        if value < least:
            raise typer.BadParameter(f"{value} given, at least {least} needed", param_hint=option)
    of_stored = {
        "--site": site,
        "--space": space,
        "--steps": steps != STEPS,
        "--maps": maps != MAPS,
    }
    only_crops = {
        "--loss": loss != LOSS, "--epochs": epochs != EPOCHS, "--height": height != HEIGHT,
        "--width": width != WIDTH, "--device": device != DEVICE,
    }  # fmt: skip
    of_crops = [one is not None for one in (model, images, out)]
    try:
        if rollback and site is not None and embeddings is None and not any(of_crops):
            refuse_options("crops (--images)", only_crops)
            _roll_back(console, maps, site)
        elif embeddings is not None and not rollback and not any(of_crops):
            refuse_options("crops (--images)", only_crops)
            _from_embeddings(console, embeddings, maps, site, space, steps, threads, seed)
        elif model and images and out and embeddings is None and not rollback:
            refuse_options("stored sightings (--embeddings)", of_stored)
            _from_images(
                console, model, images, loss, out, epochs, (height, width), device, threads, seed
            )
        else:
            console.print(
                "give either --embeddings FILE, or MODEL --images FOLDER --out FOLDER, "
                "or --rollback --site NAME",
                style="red",
            )
            raise typer.Exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _refuse(console, f"{where}{error.strerror or error}; {cure_of(error)}", error)


def _refuse(console: Console, text: str, error: BaseException, code: int = 2) -> NoReturn:
    console.print(text, style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(code) from error


def _from_embeddings(
    console: Console,
    path: Path,
    maps: Path,
    site: str | None,
    space: str | None,
    steps: int,
    threads: int,
    seed: int,
) -> None:
    import torch

    from models.adapt_embeddings import AdaptRecipe
    from models.site_acceptance import Refused
    from models.site_adapt import MOST_TRACKLETS, adapt_site
    from models.site_evidence import EvidenceError, read_evidence
    from models.site_projection import ProjectionRecipe
    from reid.model_errors import ModelError

    torch.set_num_threads(threads)
    try:
        evidence = read_evidence(path, space_id=space, site=site)
        console.print(
            f"{evidence.site}: {len(evidence.vectors)} vectors of {evidence.tracklets} tracklets, "
            f"{len(evidence.cameras)} cameras, {len(evidence.together)} pairs seen together; "
            f"{evidence.left_out} damaged vectors left out",
            highlight=False,
        )
        if evidence.tracklets > MOST_TRACKLETS:
            console.print(
                f"only the newest {MOST_TRACKLETS} tracklets are learned from and judged on: time "
                "grows with their square",
                highlight=False,
            )
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("statistics", total=1.0)
            published = adapt_site(
                evidence,
                maps,
                recipe=AdaptRecipe(projection=ProjectionRecipe(steps=steps)),
                seed=seed,
                progress=lambda what, share, labels: bar.update(
                    task, description=what, completed=share
                ),
            )
    except (EvidenceError, Refused) as error:
        _refuse(console, str(error), error)
    except ModelError as error:
        _refuse(console, str(error), error, 3)
    card, verdict = published.card, published.verdict
    console.print(f"held back: {verdict.plain}", highlight=False)
    if verdict.in_force is not None:
        console.print(
            f"against {verdict.in_force_id}, which was in force: {verdict.in_force}",
            highlight=False,
            markup=False,
        )
    if published.problem:
        console.print(published.problem, style="yellow", markup=False, soft_wrap=True)
    back = shlex.join(["--rollback", "--site", evidence.site, "--maps", str(maps)])
    console.print(
        f"{card.space_id} is in use: {published.path} ({card.bytes} B); "
        f"back with edge-models adapt {back}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _roll_back(console: Console, maps: Path, site: str) -> None:
    from models.site_adapt import maps_of, sites_with_maps
    from reid.model_errors import ModelError

    known = sites_with_maps(maps)
    if site not in known:
        text = f"{maps}: no maps of site {site!r}; there are of: {', '.join(known) or 'none'}"
        console.print(text, style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(2)
    try:
        number = maps_of(maps, site).roll_back()
    except ModelError as error:
        text = (
            f"{error}; nothing was changed: edge-match maps use chooses another map, or none by 0"
        )
        _refuse(console, text, error, 3)
    if number is None:
        console.print(
            f"{site}: nothing to roll back, vectors stay as they are", style="red", soft_wrap=True
        )
        raise typer.Exit(2)
    now = f"map {number}" if number else "no map: vectors stay as they are"
    console.print(f"{site}: in use is {now}", highlight=False, markup=False)


def _from_images(
    console: Console,
    model: Path,
    images: Path,
    loss: str,
    out: Path,
    epochs: int,
    size: tuple[int, int],
    device: str,
    threads: int,
    seed: int,
) -> None:
    import torch

    from edge.signals import Stopped, stops_start
    from models.adapt import (
        LEAST_IMAGES,
        LOSSES,
        MOST_IMAGES,
        Adaptation,
        PictureRecipe,
    )
    from models.adapt_crops import TooFewCrops, open_crops
    from models.adapt_judge import BY_ITSELF, BY_PARENT, AdaptError
    from models.checkpoints import CheckpointError, load
    from models.data.errors import DataError
    from models.export import ExportError, InputTooSmall
    from models.places import INTERRUPTED
    from reid.card import card_path, read_card
    from reid.model_errors import ModelError

    if loss not in LOSSES:
        raise typer.BadParameter(f"{loss!r} is none of {', '.join(LOSSES)}", param_hint="--loss")
    torch.set_num_threads(threads)
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = next(iter(str(error).splitlines()), "")
        _refuse(console, f"--device {device}: not to be had here ({first}); cpu always is", error)
    try:
        network = load(model)  # refused before the crops are read, which may take minutes
        if not network.arch.takes(*size):
            raise InputTooSmall(*size)
        crops = open_crops(
            images, height=size[0], width=size[1], least=LEAST_IMAGES, most=MOST_IMAGES
        )
        if crops.left_out:
            console.print(
                f"{images}: {len(crops)} crops drawn, {crops.left_out} more left out: memory and "
                "time stay bounded",
                highlight=False,
            )
        recipe = PictureRecipe(loss=loss, epochs=epochs, seed=seed)
        run = Adaptation(model, crops, out, recipe=recipe, device=device)
        try:
            with stops_start(threading.Event()) as start, start.breakable():
                run.train()
        except Stopped as stopped:
            text = f"stopped; the same call goes on after epoch {run.epoch} of {epochs}, in {out}"
            _refuse(console, text, stopped, INTERRUPTED)
        done = run.export()
    except ModelError as error:
        _refuse(console, str(error), error, 3)
    except (AdaptError, TooFewCrops, CheckpointError, DataError, ExportError) as error:
        _refuse(console, str(error), error)
    told = {one.protocol: one.values for one in read_card(card_path(done)).metrics}
    for whose, protocol in (("its own", BY_ITSELF), ("the parent's", BY_PARENT)):
        of = told[protocol]
        apart = [of[f"{w}_negative_mean"] - of[f"{w}_positive_mean"] for w in ("before", "after")]
        console.print(
            f"held-back pairs by {whose} clusters: means {apart[0]:.3f} apart before, "
            f"{apart[1]:.3f} after; overlap {of['before_overlap']:.3f}, {of['after_overlap']:.3f}; "
            f"equal error {100 * of['before_error']:.1f}, {100 * of['after_error']:.1f} %",
            highlight=False,
        )
    console.print(f"{done} with its card; judge it with edge-models evaluate", highlight=False)
