"""How well a model tells people apart, by the field's protocols, with the box's own embedding.

Promise: crops go through `edge.embed`, the code that runs on the box, ONNX or checkpoint alike
(a checkpoint is exported first). A model is not judged on people it was trained on: where its card
or checkpoint says so, `TrainedOnThis` is raised unless the caller insists.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.config import EmbedConfig, RuntimeConfig
from edge.embed import Embedder, open_embedder
from edge.models_dir import model_at
from edge.preprocess import Preprocessor
from edge.runtime import Precision, RuntimeName, Session, inspect, open_session
from models import ranking
from models.data.errors import DataError
from models.data.readers import PARTS, Dataset, Sample
from models.describe import describe_float, write_model
from models.ranking import Features, Metric, Scores
from reid.card import ModelFile

BATCH = 16
OTHER_NAMES = {"cuhk03np": "cuhk03", "cuhk03train": "cuhk03", "dukemtmcreid": "dukemtmc"}
Progress = Callable[[int, int], None]


class TrainedOnThis(Exception):
    """The model was trained on people of the set it should be judged on.

    Attributes: model, sources (the overlapping parts).
    """

    def __init__(self, model: str, sources: Sequence[str]) -> None:
        self.model, self.sources = model, tuple(sources)
        super().__init__(
            f"{model} was trained on {', '.join(sources)}: figures on these people say nothing; "
            "judge it on another set, or insist with --trained-on-this"
        )


@dataclass(frozen=True)
class Judged:
    """A model ready to be judged.

    Attributes:
        embedder: the box's embedder; its rows have unit length.
        session, prepare: the same network and preprocessing without the normalisation of length,
            for Euclidean distances.
        trained_on: "set:part" of its card; empty where nothing is known.
    """

    name: str
    embedder: Embedder
    session: Session
    prepare: Preprocessor
    trained_on: tuple[str, ...]


def open_model(
    path: Path,
    *,
    size: tuple[int, int] = (256, 128),
    threads: int = 0,
    runtime: RuntimeName = "onnxruntime",
    precision: Precision = "f32",
) -> Judged:
    """Open an ONNX file or a checkpoint for evaluation.

    Args:
        size: input height and width, where neither card nor checkpoint says it.
        threads: of the runtime; 0 takes the box's own default.

    Raises:
        ModelError, CheckpointError: the file cannot be used.
        ExportError: a checkpoint's weights do not compute, as values that are no numbers do not.
    """
    config = RuntimeConfig(threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix == ".onnx":
            file, trained_on = _onnx_file(path, size, Path(folder))
        else:
            file, trained_on = _checkpoint_file(path, size, Path(folder))
        content = file.read()
        embedder = open_embedder(
            file, config, EmbedConfig(max_batch=BATCH), backend=runtime, precision=precision
        )
    session = open_session(content, name=path, config=config, runtime=runtime, precision=precision)
    return Judged(path.name, embedder, session, Preprocessor(embedder.input), trained_on)


def _onnx_file(
    path: Path, size: tuple[int, int], folder: Path
) -> tuple[ModelFile, tuple[str, ...]]:
    model = model_at(path)
    if model.card is not None:
        return model, model.card.training_data
    # no card: an OSNet as published, fed as published
    content = model.read()
    shape = inspect(content, name=path).inputs[0].shape
    height, width = shape[2] or size[0], shape[3] or size[1]
    copy = folder / "model.onnx"
    card = describe_float(
        content,
        copy,
        name=path.stem,
        size=(height, width),
        training_data=(),
        licence="unknown",
        made_by="unknown",
    )
    write_model(content, card, copy)
    return ModelFile(copy, card), ()


def _checkpoint_file(
    path: Path, size: tuple[int, int], folder: Path
) -> tuple[ModelFile, tuple[str, ...]]:
    from models import checkpoints  # torch, which a box does without
    from models.export import to_onnx

    contents = checkpoints.read(path)
    trained_on = checkpoints.trained_on(contents, path)
    height, width = checkpoints.input_size(contents, path) or size
    content = to_onnx(checkpoints.load(path), height, width)
    copy = folder / "model.onnx"
    card = describe_float(
        content, copy, name=path.stem, size=(height, width), training_data=trained_on
    )
    write_model(content, card, copy)
    return ModelFile(copy, card), trained_on


def refuse_without_queries(dataset: Dataset) -> None:
    """Raise DataError where nothing is asked, before anything is embedded."""
    if not dataset.query:
        raise DataError(
            f"{dataset.name} at {dataset.images.where} has no query part to judge by; "
            "give a set that has"
        )


def refuse_trained_people(model: Judged, dataset: Dataset) -> None:
    """Raise TrainedOnThis where the card lists people that the set is judged on."""
    overlap = [source for source in model.trained_on if shows_judged_people(source, dataset)]
    if overlap:
        raise TrainedOnThis(model.name, overlap)


def shows_judged_people(source: str, dataset: Dataset) -> bool:
    """Whether a card's training source, "set:part", holds people that a set is judged on.

    A source of the set that names no part, or one that no reader knows ("msmt17:all"), does; so
    does one of the same people by another protocol, which parts and numbers them otherwise.
    """
    own, *words = _words(source)
    judged = dataset.name.replace("-", "")
    if own != judged:
        return OTHER_NAMES.get(own, own) == OTHER_NAMES.get(judged, judged)
    part = words[0] if words else ""
    return part in dataset.judged_parts or part not in PARTS


def set_of(source: str) -> str:
    """The set of a card's training source: "Market-1501 (all)" and "market1501:train" are one."""
    own = _words(source)[0]
    return OTHER_NAMES.get(own, own)


def _words(source: str) -> list[str]:
    return re.split(r"[:\s]+", source.strip().lower().replace("-", ""))


def embed_samples(
    model: Judged,
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    metric: Metric = "cosine",
    flip: bool = False,
    progress: Progress | None = None,
) -> Features:
    """Embeddings (n, 512) of samples, in their order.

    Args:
        metric: "cosine" gives unit rows by the box's embedder; "euclidean" rows as the network
            gives them.
        flip: add the mirrored crop's row before any normalisation of the sum.
    """
    rows: list[Features] = []
    waiting: list[NDArray[np.uint8]] = []
    done = 0

    def flush() -> None:
        nonlocal done
        if not waiting:
            return
        embed = model.embedder.embed if metric == "cosine" else lambda crops: _raw(model, crops)
        found = embed(waiting)
        if flip:
            found = found + embed([np.ascontiguousarray(crop[:, ::-1]) for crop in waiting])
        rows.append(ranking.unit(found) if flip and metric == "cosine" else found)
        done += len(waiting)
        waiting.clear()
        if progress is not None:
            progress(done, len(samples))

    for image in dataset.images.all([sample.name for sample in samples], dataset.name):
        waiting.append(image)
        if len(waiting) == BATCH:
            flush()
    flush()
    return np.concatenate(rows) if rows else np.empty((0, model.embedder.dimension), np.float32)


def _raw(model: Judged, crops: Sequence[NDArray[np.uint8]]) -> Features:
    spec, picture = model.embedder.input, model.session.inputs[0]
    size = picture.shape[0] or len(crops)  # a file may take one number of crops only
    rows: list[Features] = []
    for start in range(0, len(crops), size):
        part = crops[start : start + size]
        batch = np.zeros((size, 3, spec.height, spec.width), np.float32)
        for slot, crop in enumerate(part):
            model.prepare.write(crop, batch[slot])
        rows.append(np.array(model.session.run({picture.name: batch})[0][: len(part)], np.float32))
    return np.concatenate(rows)


def labels(samples: Sequence[Sample]) -> tuple[ranking.Labels, ranking.Labels]:
    """(persons, cameras) of samples, each (n,)."""
    people = np.array([sample.person for sample in samples], np.int64)
    return people, np.array([sample.camera for sample in samples], np.int64)


def distance_blocks(
    query: Features, gallery: Features, *, metric: Metric = "cosine", reranked: bool = False
) -> Iterator[Features]:
    """Blocks of consecutive rows of the distance matrix (queries, gallery), smaller is more alike.

    Args:
        query, gallery: (q, d) and (g, d).
        reranked: k-reciprocal re-ranking, which is on unit rows whatever the metric.
    """
    if reranked:
        from models.rerank import rerank  # scipy, which a box does without

        return rerank(ranking.unit(query), ranking.unit(gallery))
    return ranking.distances(query, gallery, metric)


def score_features(
    query: Features,
    gallery: Features,
    dataset: Dataset,
    *,
    metric: Metric = "cosine",
    reranked: bool = False,
) -> Scores:
    """Scores of a set's query and gallery features, in the set's order."""
    blocks = distance_blocks(query, gallery, metric=metric, reranked=reranked)
    return ranking.score(blocks, *labels(dataset.query), *labels(dataset.gallery))


def evaluate(
    model: Judged,
    dataset: Dataset,
    *,
    metric: Metric = "cosine",
    flip: bool = False,
    reranked: bool = False,
    insist: bool = False,
    progress: Progress | None = None,
) -> tuple[Scores, Features, Features]:
    """Judge a model: (scores, query features, gallery features).

    Raises:
        TrainedOnThis: its card lists the people it would be judged on, and `insist` is false.
        UnreadableImages: some images do not decode.
        NoAnswers: no query can be answered.
    """
    if not insist:
        refuse_trained_people(model, dataset)
    both = [*dataset.query, *dataset.gallery]
    features = embed_samples(model, dataset, both, metric=metric, flip=flip, progress=progress)
    query, gallery = features[: len(dataset.query)], features[len(dataset.query) :]
    scores = score_features(query, gallery, dataset, metric=metric, reranked=reranked)
    return scores, query, gallery
