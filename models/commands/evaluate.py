"""`edge-models evaluate`: judge a model by the field's protocols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from models.places import USAGE, refusals, refuse_options, say
from reid.card import LEAST_SIDE, MOST_SIDE

if TYPE_CHECKING:
    from models.ranking import Scores

HEIGHT, WIDTH = 256, 128  # OSNet's usual input


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate_model)


def evaluate_model(
    model: Annotated[Path, typer.Argument(help="ONNX file (with or without card) or .pth.")],
    data: Annotated[Path, typer.Option(help="Folder or tar of the data set.")],
    protocol: Annotated[str, typer.Option(help="market1501, cuhk03, …; coco-person: detectors.")],
    metric: Annotated[str, typer.Option(help="cosine or euclidean.")] = "cosine",
    flip: Annotated[bool, typer.Option(help="Add the mirrored crop's vector.")] = False,
    rerank: Annotated[bool, typer.Option(help="k-reciprocal re-ranking (slow).")] = False,
    height: Annotated[
        int,
        typer.Option(min=LEAST_SIDE, max=MOST_SIDE, help="Input height where no card says it."),
    ] = HEIGHT,
    width: Annotated[
        int,
        typer.Option(min=LEAST_SIDE, max=MOST_SIDE, help="Input width where no card says it."),
    ] = WIDTH,
    threads: Annotated[
        int,
        typer.Option(
            min=0, max=64, help="Threads of the runtime; 0: all allowed, for detectors one."
        ),
    ] = 0,
    page: Annotated[
        Path | None, typer.Option(help="Write a page of ranked results, for your eyes only.")
    ] = None,
    trained_on_this: Annotated[
        bool, typer.Option(help="Judge even on people the model was trained on.")
    ] = False,
    held_out: Annotated[
        bool,
        typer.Option(help="Detectors: only what no training of ours has seen of our sources."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Judge with the very code of the box: people found again in %, or a detector's recall."""
    if protocol == "coco-person":
        from models.evaluate_detector import Part, print_evaluation

        refuse_options(
            "embedders",
            {
                "--metric": metric != "cosine",
                "--flip": flip,
                "--rerank": rerank,
                "--height": height != HEIGHT,
                "--width": width != WIDTH,
                "--page": page,
                "--trained-on-this": trained_on_this,
            },
        )
        part: Part = "held-out" if held_out else "all"
        print_evaluation(model, data, part=part, threads=threads or 1, as_json=as_json)
        return
    refuse_options("detectors (--protocol coco-person)", {"--held-out": held_out})

    if metric not in ("cosine", "euclidean"):
        text = f"{metric!r} is neither cosine nor euclidean"
        raise typer.BadParameter(text, param_hint="--metric")
    chosen: Literal["cosine", "euclidean"] = "cosine" if metric == "cosine" else "euclidean"
    if page is not None and (not page.parent.is_dir() or page.is_dir()):
        text = "is a folder" if page.is_dir() else f"there is no folder {page.parent}"
        raise typer.BadParameter(text, param_hint="--page")
    scores = _judged(
        model,
        data,
        protocol,
        chosen,
        flip=flip,
        reranked=rerank,
        size=(height, width),
        threads=threads,
        page=page,
        insist=trained_on_this,
    )
    if as_json:
        facts = {"model": str(model), "protocol": protocol, "metric": metric}
        typer.echo(json.dumps(facts | {"flip": flip, "rerank": rerank} | scores.as_dict()))
        return
    table = Table(
        title=f"{model.name} on {protocol}, {metric}", caption=f"{scores.queries} queries"
    )
    for name in ("rank-1", "rank-5", "rank-10", "mAP", "mINP"):
        table.add_column(name, justify="right")
    figures = (scores.rank1, scores.rank5, scores.rank10, scores.map, scores.minp)
    table.add_row(*(f"{value:.2f}" for value in figures))
    Console(markup=False).print(table)
    if scores.unanswerable:
        say(f"{scores.unanswerable} queries have no right answer in the gallery")


def _judged(
    model: Path,
    data: Path,
    protocol: str,
    metric: Literal["cosine", "euclidean"],
    *,
    flip: bool,
    reranked: bool,
    size: tuple[int, int],
    threads: int,
    page: Path | None,
    insist: bool,
) -> Scores:
    from models.data.errors import DataError
    from models.data.readers import READERS, open_dataset
    from models.evaluate import (
        TrainedOnThis,
        distance_blocks,
        evaluate,
        open_model,
        refuse_trained_people,
        refuse_without_queries,
    )
    from models.ranked_page import write_page

    try:
        with refusals(*_of_checkpoints(model)):
            if protocol not in READERS:
                known = ", ".join(sorted(READERS))
                raise DataError(
                    f"no reader for {protocol!r}; there are {known}; detectors: coco-person"
                )
            dataset = open_dataset(protocol, data)
            refuse_without_queries(dataset)
            opened = open_model(model, size=size, threads=threads)
            if not insist:
                refuse_trained_people(opened, dataset)
            with Progress(console=Console(stderr=True, markup=False), transient=True) as bar:
                task = bar.add_task(f"embedding {dataset.name}", total=None)
                scores, query, gallery = evaluate(
                    opened,
                    dataset,
                    metric=metric,
                    flip=flip,
                    reranked=reranked,
                    insist=True,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
            if page is not None:
                how = f"{metric}, flipped" if flip else metric
                blocks = distance_blocks(query, gallery, metric=metric, reranked=reranked)
                write_page(page, dataset, blocks, how=f"{how}, re-ranked" if reranked else how)
    except (DataError, TrainedOnThis) as error:
        say(str(error))
        raise typer.Exit(USAGE) from error
    return scores


def _of_checkpoints(model: Path) -> tuple[type[Exception], ...]:
    """How a checkpoint is refused; an ONNX file never is, and needs no torch."""
    if model.suffix == ".onnx":
        return ()
    from models.checkpoints import CheckpointError
    from models.export import ExportError

    return CheckpointError, ExportError
