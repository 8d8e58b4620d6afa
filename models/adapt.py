"""Adapt a checkpoint to a new site from crops of people, without labels: clustering, with GDS.

Promise: fixed by checkpoint, images, recipe and seed (on one thread); it can stop at any moment and
the same call goes on at the last finished epoch. Either a model with a card comes out, or a message
and none: too few images, or clusters that collapse. Memory: all crops at the input's size as bytes
(10⁴ at 128×64: 250 MB), and one batch.

    each epoch: embed all ─▶ Jaccard distance ─▶ DBSCAN ─▶ pseudo-labels ─▶ batches:
                cross-entropy + batch-hard triplet (+ GDS or GDS-H)

In the run's folder: `last.pth` (weights, optimiser, running Gaussians, epoch), `log.jsonl`, and at
the end `adapted.onnx` with `adapted.toml`.
Sources: the baseline as in Fan et al., arXiv:1705.10444, and Song et al., arXiv:1807.11334;
GDS: arXiv:2006.00752 (models.gds). Threads: one, the caller's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from models import checkpoints
from models.augment import augment, normalise, uniforms
from models.data.sampler import PKSampler
from models.data.store import open_images
from models.export import describe, input_spec, space_of, to_onnx, today, write_model
from models.gds import (
    FStatisticLoss,
    GlobalDistanceSeparation,
    GlobalLoss,
    HistogramLoss,
    pair_distances,
)
from models.losses import batch_hard_triplet
from models.neighbours import clusters, jaccard_graph
from models.osnet import EMBEDDING_SIZE, OSNet
from models.recipe import Augment
from models.site_acceptance import separation
from models.site_projection import unit
from reid.card import Metric
from reid.site_map import Separation

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
LOSSES = ("baseline", "gds", "gds-h", "histogram", "f-statistic", "global")
LEAST_IMAGES = 200
LARGEST_SHARE = 0.2  # of all images in one cluster: the clusters have run together
HELD_SHARE = 0.1  # of the first clusters; never trained on, their pairs judge
_EMBED_BATCH = 128
_LOGIT_SCALE = 16.0  # of cosines to classes: the classifier starts from the clusters' means


class AdaptError(Exception):
    """Nothing was adapted; the text says what was found, and the cure."""


@dataclass(frozen=True)
class PictureRecipe:
    """How a checkpoint is adapted.

    Attributes:
        loss: "baseline", "gds" (L_GDS), "gds-h" (with hard mining), or one that the paper compares
            them with: "histogram", "f-statistic", "global".
        gds_weight: of that loss beside cross-entropy and triplet.
        epochs: rounds of clustering and training.
        steps: batches of an epoch; 0: each image once.
        height, width: of the input, pixels.
        people, images: of a batch. learning_rate: of Adam. margin: of the triplet loss.
        eps, least, k1, k2: of `models.neighbours`.
    """

    loss: str = "gds-h"
    gds_weight: float = 1.0
    epochs: int = 10
    steps: int = 0
    height: int = 128
    width: int = 64
    people: int = 16
    images: int = 4
    learning_rate: float = 3.5e-4
    margin: float = 0.3
    eps: float = 0.55
    least: int = 4
    k1: int = 20
    k2: int = 6
    seed: int = 1
    augment: Augment = field(default_factory=lambda: Augment(erase=0.3, jitter=0.2))


def adapt_pictures(
    checkpoint: Path,
    folder: Path,
    out: Path,
    *,
    recipe: PictureRecipe,
    device: str = "cpu",
    least_images: int = LEAST_IMAGES,
) -> Path:
    """Adapt, export, and write the card; returns the ONNX file.

    Args:
        checkpoint: a .pth of ours or a published one.
        folder: crops of people, a folder or a tar, in any arrangement; names say nothing.
        out: folder of the run; one that was stopped there goes on.
    Raises:
        AdaptError, CheckpointError, DataError, ExportError.
    """
    run = Adaptation(
        checkpoint, folder, out, recipe=recipe, device=device, least_images=least_images
    )
    run.train()
    return run.export()


class Adaptation:
    """One run: `train`, then `export`."""

    def __init__(
        self,
        checkpoint: Path,
        folder: Path,
        out: Path,
        *,
        recipe: PictureRecipe,
        device: str = "cpu",
        least_images: int = LEAST_IMAGES,
    ) -> None:
        if recipe.loss not in LOSSES:
            raise AdaptError(f"loss {recipe.loss!r}: one of {', '.join(LOSSES)}")
        self._recipe, self._out, self._device = recipe, out, torch.device(device)
        self._parent, self._folder = checkpoint, folder
        self._images = _load(folder, recipe, least_images)
        self.network = checkpoints.load(checkpoint).to(self._device)
        self._trained_on = tuple(
            str(one) for one in checkpoints.read(checkpoint).get("trained_on", ())
        )
        # The judge's pairs are fixed by the model that one starts from.
        start = self._embed(self.network, np.arange(len(self._images)))
        self._judged = _cluster(start, recipe, str(folder))
        count = int(self._judged.max()) + 1
        chosen = np.random.default_rng(recipe.seed).choice(
            count, max(round(HELD_SHARE * count), 2), replace=False
        )
        held = np.isin(self._judged, chosen)
        self._rows, self._held = np.flatnonzero(~held), np.flatnonzero(held)
        self._before = self._separation(start)
        self._optimiser = torch.optim.Adam(
            self.network.parameters(), recipe.learning_rate, weight_decay=5e-4
        )
        self._gds = _separating(recipe.loss)
        if self._gds is not None:
            self._gds.to(self._device)
        self.epoch = 0
        out.mkdir(parents=True, exist_ok=True)
        if self._last.exists():
            self._resume()

    @property
    def _last(self) -> Path:
        return self._out / "last.pth"

    def train(self, *, stop_after_epochs: int | None = None) -> None:
        """Work until all epochs are done, or so many more.

        Raises:
            AdaptError: the clusters collapsed.
        """
        end = self._recipe.epochs
        if stop_after_epochs is not None:
            end = min(end, self.epoch + stop_after_epochs)
        while self.epoch < end:
            line = {"epoch": self.epoch + 1, **self._one_epoch()}
            self.epoch += 1
            self._save()
            with (self._out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            tqdm.write(json.dumps(line))

    def export(self) -> Path:
        """Write `adapted.onnx` and its card; the ONNX file."""
        after = self._separation(self._embed(self.network, np.arange(len(self._images))))
        content = to_onnx(self.network.cpu().eval(), self._recipe.height, self._recipe.width)
        self.network.to(self._device)
        path = self._out / "adapted.onnx"
        name = f"{self._parent.stem}-adapted"
        figures = {
            f"{when}_{key}": round(value, 4)
            for when, of in (("before", self._before), ("after", after))
            for key, value in of.model_dump().items()
        }
        card = describe(
            content,
            path,
            name=name,
            spec=input_spec(self._recipe.height, self._recipe.width),
            space_id=space_of(name, content),
            variant_id="float32",
            training_data=(*self._trained_on, f"{self._folder.name}:without-labels"),
            notes=f"adapted from {self._parent.name} by {self._recipe.loss} on {len(self._images)} "
            f"unlabelled crops, {self.epoch} epochs, seed {self._recipe.seed}",
            metrics=[
                Metric(
                    protocol="pairs of held-back crops, by the parent's clusters",
                    date=today(),
                    values=figures,
                )
            ],
        )
        card = card.model_copy(update={"parent": self._parent.stem})
        write_model(content, card, path)
        return path

    def _one_epoch(self) -> dict[str, Any]:
        recipe = self._recipe
        vectors = self._embed(self.network, self._rows)
        labels = _cluster(vectors, recipe, str(self._folder))
        known = np.flatnonzero(labels >= 0)
        rows, people = self._rows[known], labels[known]
        sampler = PKSampler(
            people, people=min(recipe.people, int(people.max()) + 1), images=recipe.images,
            seed=recipe.seed,
        )  # fmt: skip
        head = _classifier(vectors[known], people).to(self._device)
        optimiser = torch.optim.Adam(head.parameters(), recipe.learning_rate)
        sums: dict[str, float] = {}
        batches = sampler.epoch(self.epoch)
        if recipe.steps:
            batches = batches[: recipe.steps]
        self.network.train()
        for number, batch in enumerate(tqdm(batches, desc=f"epoch {self.epoch + 1}", leave=False)):
            step = self.epoch * 100_000 + number
            images = self._tensor(rows[batch])
            random = uniforms(recipe.seed, step, len(batch)).to(self._device)
            with torch.no_grad():
                images = augment(images, random, recipe.augment)
            told = self._losses(images, torch.from_numpy(people[batch]).to(self._device), head)
            total = torch.stack(list(told.values())).sum()
            self._optimiser.zero_grad()
            optimiser.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            optimiser.step()
            for name, value in told.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        line: dict[str, Any] = {
            name: round(value / len(batches), 4) for name, value in sums.items()
        }
        line |= {"clusters": int(people.max()) + 1, "clustered": round(len(known) / len(labels), 3)}
        if isinstance(self._gds, GlobalDistanceSeparation):
            names = ("mean_positive", "std_positive", "mean_negative", "std_negative")
            line |= dict(zip(names, (round(v, 4) for v in self._gds.moments), strict=True))
        return line

    def _losses(self, images: Tensor, people: Tensor, head: nn.Linear) -> dict[str, Tensor]:
        before, embedding, _ = self.network.heads(images)
        direction = F.normalize(embedding, dim=1)
        told = {
            "classes": F.cross_entropy(_LOGIT_SCALE * head(direction), people, label_smoothing=0.1),
            "triplet": batch_hard_triplet(before, people, self._recipe.margin),
        }
        if self._gds is not None:
            told["separation"] = self._recipe.gds_weight * self._gds(
                *pair_distances(direction, people)
            )
        return told

    def _tensor(self, rows: Ints) -> Tensor:
        """(n, 3, h, w) in 0..1, RGB."""
        picked = torch.from_numpy(self._images[rows]).to(self._device)
        return picked.permute(0, 3, 1, 2).float().div(255)

    def _embed(self, network: OSNet, rows: Ints) -> Floats:
        network.eval()
        found = np.empty((len(rows), EMBEDDING_SIZE), np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), _EMBED_BATCH):
                some = rows[start : start + _EMBED_BATCH]
                images = normalise(self._tensor(some))
                found[start : start + len(some)] = network(images).float().cpu().numpy()
        return unit(found)

    def _separation(self, vectors: Floats) -> Separation:
        """Of pairs of held-back images, by the clusters of the model that one started from."""
        labels = self._judged[self._held]
        positive, negative = pair_distances(
            torch.from_numpy(vectors[self._held]), torch.from_numpy(labels)
        )
        if len(positive) < 2 or len(negative) < 2:
            raise AdaptError(
                f"{self._folder}: {len(positive)} alike and {len(negative)} other pairs among "
                f"{len(labels)} held-back images; nothing could tell whether the model got better: "
                "gather more crops"
            )
        return separation(positive.numpy(), negative.numpy())

    def _save(self) -> None:
        checkpoints.save(
            self._last,
            self.network,
            optimiser=self._optimiser.state_dict(),
            gds=None if self._gds is None else self._gds.state_dict(),
            epoch=self.epoch,
            recipe=_plain(self._recipe),
            trained_on=[*self._trained_on, f"{self._folder.name}:without-labels"],
            input={"height": self._recipe.height, "width": self._recipe.width},
        )

    def _resume(self) -> None:
        saved = checkpoints.read(self._last)
        if saved.get("recipe") != _plain(self._recipe):
            raise AdaptError(
                f"{self._last} is of a run with other settings; take another --out folder"
            )
        checkpoints.load_strictly(self.network, saved["model"], self._last)
        self._optimiser.load_state_dict(saved["optimiser"])
        if self._gds is not None:
            self._gds.load_state_dict(saved["gds"])
        self.epoch = int(saved["epoch"])


def _separating(loss: str) -> nn.Module | None:
    """The loss on the two distributions of distances; None for the baseline."""
    match loss:
        case "gds" | "gds-h":
            return GlobalDistanceSeparation(hard_weight=0.5 if loss == "gds-h" else 0.0)
        case "histogram":
            return HistogramLoss()
        case "f-statistic":
            return FStatisticLoss()
        case "global":
            return GlobalLoss()
    return None


def _plain(recipe: PictureRecipe) -> dict[str, Any]:
    """Without the number of epochs: a run may be prolonged."""
    return {key: value for key, value in asdict(recipe).items() if key != "epochs"}


def _load(folder: Path, recipe: PictureRecipe, least: int) -> NDArray[np.uint8]:
    """(n, h, w, 3) uint8, RGB."""
    import cv2

    with open_images(folder) as images:
        names = images.files("")
        if len(names) < least:
            raise AdaptError(
                f"{folder}: {len(names)} images, at least {least} are needed; gather more crops"
            )
        held = np.empty((len(names), recipe.height, recipe.width, 3), np.uint8)
        for index, image in enumerate(images.all(names, folder.name)):
            small = image.shape[0] > recipe.height
            how = cv2.INTER_AREA if small else cv2.INTER_LINEAR
            scaled = cv2.resize(image, (recipe.width, recipe.height), interpolation=how)
            held[index] = scaled[:, :, ::-1]
    return held


def _cluster(vectors: Floats, recipe: PictureRecipe, where: str) -> Ints:
    """(n,) pseudo-labels.

    Raises:
        AdaptError: fewer than two clusters, or one that holds too much.
    """
    graph = jaccard_graph(vectors, k1=recipe.k1, k2=recipe.k2)
    labels = clusters(graph, eps=recipe.eps, least=recipe.least)
    sizes = np.bincount(labels[labels >= 0])
    if len(sizes) < 2 or sizes.max() > max(LARGEST_SHARE * len(labels), 2 * recipe.k1):
        raise AdaptError(
            f"{where}: {len(labels)} images fall into {len(sizes)} clusters, the largest of "
            f"{int(sizes.max(initial=0))}: the clusters collapsed, no model was written; gather "
            "more crops of more people"
        )
    return labels


def _classifier(vectors: Floats, people: Ints) -> nn.Linear:
    """Cosine classifier whose classes start at the clusters' mean directions."""
    from models.site_projection import means

    centres = unit(means(vectors, people, int(people.max()) + 1))
    head = nn.Linear(vectors.shape[1], len(centres), bias=False)
    head.weight.data.copy_(torch.from_numpy(centres))
    return head
