"""Adapt a checkpoint to a new site from crops of people, without labels: clustering, with GDS.

Promise: fixed by checkpoint, crops, recipe and seed (on one thread); it can stop at any moment and
the same call goes on at the last finished epoch. Either a model with a card comes out, or a message
and none: too few images, clusters that collapse, or a model that is worse on crops of clusters that
were held back, even by its own clusters of them. Memory: all crops at the input's size as bytes
(10⁴ at 128×64: 250 MB; the command takes 5·10⁴ at most), some kB a crop for vectors and neighbours,
one batch, and 100 MB of pairs.

    each epoch: embed all ─▶ Jaccard distance ─▶ DBSCAN ─▶ pseudo-labels ─▶ batches:
                cross-entropy + batch-hard triplet (+ GDS or GDS-H)

On one thread of a CPU it trains in our own kernels (models.fused).
In the run's folder: `last.pth` (weights, optimiser, running Gaussians, epoch), `log.jsonl`, and at
the end `adapted.onnx` with `adapted.toml`.
Sources: the baseline as in Fan et al., arXiv:1705.10444, and Song et al., arXiv:1807.11334;
GDS: arXiv:2006.00752 (models.gds). Threads: one, the caller's.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from models import checkpoints, fused
from models.adapt_crops import Crops, embed
from models.adapt_judge import LEAST_HELD, AdaptError, by_clusters, judge
from models.augment import augment, uniforms
from models.data.sampler import PKSampler
from models.describe import describe_float, today, write_model
from models.export import to_onnx
from models.gds import (
    FStatisticLoss,
    GlobalDistanceSeparation,
    GlobalLoss,
    HistogramLoss,
    pair_distances,
)
from models.losses import batch_hard_triplet
from models.neighbours import Clustering, Collapsed, cluster
from models.recipe import Augment
from models.site_projection import means, unit
from reid.card import Metric

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
LOSSES = ("baseline", "gds", "gds-h", "histogram", "f-statistic", "global")
# Clustering looks at 20 neighbours, so a person needs about as many crops: fifty people, of whom
# five are held back. 334 crops of 60 people collapsed.
LEAST_IMAGES = 1000
MOST_IMAGES = 50_000  # 1.25 GB at 128×64; the time of clustering grows with the square
HELD_SHARE = 0.1  # of the first clusters; never trained on, their pairs judge
MOST_JUDGED = 2000  # held-back images: pairs grow with the square
_LOGIT_SCALE = 16.0  # of cosines to classes: the classifier starts from the clusters' means


@dataclass(frozen=True)
class PictureRecipe:
    """How a checkpoint is adapted.

    Attributes:
        loss: "baseline", "gds" (L_GDS), "gds-h" (with hard mining), or one that the paper compares
            them with: "histogram", "f-statistic", "global".
        gds_weight: of that loss beside cross-entropy and triplet. Its gradient reaches only the
            batch's part of the running moments, a tenth: 20 makes it about as strong as they are.
        epochs: rounds of clustering and training.
        steps: batches of an epoch; 0: each clustered crop once.
        people, images: of a batch. 16 and 4 give 96 positive pairs and 1920 negative ones.
        learning_rate: of Adam at first; half a cosine takes it to zero. 3e-3 is what OSNet x0.25 is
            fine-tuned with where it was published.
        margin: of the triplet loss.
        clustering: of the crops.
    """

    loss: str = "gds-h"
    gds_weight: float = 20.0
    epochs: int = 10
    steps: int = 0
    people: int = 16
    images: int = 4
    learning_rate: float = 3e-3
    margin: float = 0.3
    clustering: Clustering = field(default_factory=Clustering)
    seed: int = 1
    augment: Augment = field(default_factory=lambda: Augment(erase=0.3, jitter=0.2))


class Adaptation:
    """One run: `train`, then `export`.

    Args:
        checkpoint: a .pth of ours or a published one.
        crops: at the input's size.
        out: folder of the run; one that was stopped there goes on.
        start: what `embed` makes of checkpoint and crops, where the caller has it already.
        people: (n,) who each crop shows, in place of clusters: what a loss brings where no cluster
            is wrong. For experiments; a site has none.
    Raises:
        AdaptError: too little to judge by, clusters that collapse, or a folder of another run.
        CheckpointError.
    """

    def __init__(
        self,
        checkpoint: Path,
        crops: Crops,
        out: Path,
        *,
        recipe: PictureRecipe,
        device: str = "cpu",
        start: Floats | None = None,
        people: Ints | None = None,
    ) -> None:
        if recipe.loss not in LOSSES:
            raise AdaptError(f"loss {recipe.loss!r}: one of {', '.join(LOSSES)}")
        self._recipe, self._out, self._device = recipe, out, torch.device(device)
        self._parent, self._crops = checkpoint, crops
        self.network = checkpoints.load(checkpoint).to(self._device)
        self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._kernels = fused.kernels_for(self.network, self._device)
        self._trained_on = tuple(
            str(one) for one in checkpoints.read(checkpoint).get("trained_on", ())
        )
        self._people = people
        # The judge's pairs are fixed by the model that one starts from.
        start = embed(self.network, crops) if start is None else start
        self._judged = self._clusters(start, np.arange(len(start)))
        count = int(self._judged.max()) + 1
        chosen = np.random.default_rng(recipe.seed).choice(
            count, max(round(HELD_SHARE * count), min(LEAST_HELD, count // 3), 2), replace=False
        )
        held = np.isin(self._judged, chosen)
        self._rows, self._held = np.flatnonzero(~held), np.flatnonzero(held)
        if len(self._held) > MOST_JUDGED:
            some = np.random.default_rng((recipe.seed, 1))
            self._held = np.sort(some.choice(self._held, MOST_JUDGED, replace=False))
        self._held_start = start[self._held]
        self.before = by_clusters(self._held_start, self._judged[self._held], crops.name)
        # The first epoch's vectors and clusters are those of the judge.
        first = _numbered(self._judged[self._rows])
        if int(first.max(initial=-1)) < 1:
            raise AdaptError(
                f"crops of {crops.name}: {count} clusters, {len(chosen)} of which are held back to "
                "judge; two at least must be left to tell apart, no model was written; gather "
                "more crops of more people"
            )
        self._start: tuple[Floats, Ints] | None = (start[self._rows], first)
        self._optimiser = torch.optim.Adam(
            self.network.parameters(), recipe.learning_rate, weight_decay=5e-4
        )
        self._gds = _separating(recipe.loss)
        if self._gds is not None:
            self._gds.to(self._device)
        self.epoch = 0
        self._of = {
            "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            "crops": hashlib.sha256(np.ascontiguousarray(crops.images).data).hexdigest(),
        }
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
            # The log first: killed in between, an epoch is told twice rather than never.
            with (self._out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            self._save()
            tqdm.write(json.dumps(line))

    def export(self) -> Path:
        """Write `adapted.onnx` and its card; the ONNX file.

        Raises:
            AdaptError: the model got worse on what was held back; nothing is written.
            ExportError.
        """
        figures = judge(
            self._held_start,
            embed(self.network, self._crops, self._held),
            self._judged[self._held],
            self._recipe.clustering,
            self._crops.name,
        )
        height, width = self._crops.size
        content = to_onnx(self.network.cpu().eval(), height, width)
        self.network.to(self._device)
        path = self._out / "adapted.onnx"
        card = describe_float(
            content,
            path,
            name=f"{self._parent.stem}-adapted",
            size=self._crops.size,
            training_data=self._learned_from,
            notes=f"adapted from {self._parent.name} by {self._recipe.loss} on {len(self._crops)} "
            f"unlabelled crops, {self.epoch} epochs, seed {self._recipe.seed}",
            metrics=[
                Metric(protocol=protocol, date=today(), values=values)
                for protocol, values in figures.items()
            ],
        )
        write_model(content, card.model_copy(update={"parent": self._parent.stem}), path)
        return path

    @property
    def _learned_from(self) -> tuple[str, ...]:
        return (*self._trained_on, f"{self._crops.name}:without-labels")

    def _one_epoch(self) -> dict[str, Any]:
        recipe = self._recipe
        vectors, labels = self._start or self._vectors_and_clusters()
        self._start = None
        known = np.flatnonzero(labels >= 0)
        rows, people = self._rows[known], labels[known]
        sampler = PKSampler(
            people, people=min(recipe.people, int(people.max()) + 1), images=recipe.images,
            seed=recipe.seed,
        )  # fmt: skip
        head = _classifier(vectors[known], people).to(self._device)
        optimiser = torch.optim.Adam(head.parameters(), recipe.learning_rate)
        sums: dict[str, float] = {}
        steps = recipe.steps or sampler.steps
        passes = [sampler.epoch(self.epoch * 1000 + n) for n in range(-(-steps // sampler.steps))]
        batches = np.concatenate(passes)[:steps]
        bar = tqdm(batches, desc=f"epoch {self.epoch + 1}", leave=False, disable=None)
        self.network.train()
        for number, batch in enumerate(bar):
            done = (self.epoch + number / steps) / recipe.epochs
            for group in [*self._optimiser.param_groups, *optimiser.param_groups]:
                group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            step = self.epoch * 100_000 + number
            images = self._crops.tensor(rows[batch]).to(self._device)
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
        images = images.contiguous(memory_format=torch.channels_last)
        if self._kernels is not None:
            before, embedding, _ = fused.heads(self.network, images, self._kernels)
        else:
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

    def _vectors_and_clusters(self) -> tuple[Floats, Ints]:
        vectors = embed(self.network, self._crops, self._rows)
        return vectors, self._clusters(vectors, self._rows)

    def _clusters(self, vectors: Floats, rows: Ints) -> Ints:
        if self._people is not None:
            return _numbered(self._people[rows])
        try:
            return cluster(vectors, self._recipe.clustering)
        except Collapsed as error:
            raise AdaptError(
                f"crops of {self._crops.name}: {error}, no model was written; gather more crops of "
                "more people"
            ) from error

    def _save(self) -> None:
        checkpoints.save(
            self._last,
            self.network,
            optimiser=self._optimiser.state_dict(),
            gds=None if self._gds is None else self._gds.state_dict(),
            epoch=self.epoch,
            recipe=asdict(self._recipe),
            of=self._of,
            trained_on=list(self._learned_from),
            input=dict(zip(("height", "width"), self._crops.size, strict=True)),
        )

    def _resume(self) -> None:
        saved = checkpoints.read(self._last)
        if saved.get("recipe") != asdict(self._recipe):
            raise AdaptError(
                f"{self._last} is of a run with other settings; take another --out folder"
            )
        if saved.get("of", self._of) != self._of:  # runs begun before this was kept go on
            raise AdaptError(
                f"{self._last} is of a run on other crops or another checkpoint; take another "
                "--out folder"
            )
        checkpoints.load_strictly(self.network, saved["model"], self._last)
        self._optimiser.load_state_dict(saved["optimiser"])
        if self._gds is not None:
            self._gds.load_state_dict(saved["gds"])
        self.epoch = int(saved["epoch"])
        self._start = None


def _separating(loss: str) -> nn.Module | None:
    """The loss on the two distributions of distances; None for the baseline."""
    match loss:
        case "gds":
            return GlobalDistanceSeparation(hard_weight=0.0)
        case "gds-h":
            return GlobalDistanceSeparation()
        case "histogram":
            return HistogramLoss()
        case "f-statistic":
            return FStatisticLoss()
        case "global":
            return GlobalLoss()
    return None


def _numbered(labels: Ints) -> Ints:
    """The same groups, numbered from 0 without gaps; -1 stays."""
    found, numbers = np.unique(labels, return_inverse=True)
    return np.asarray(numbers - int(found[0] < 0), np.int64)


def _classifier(vectors: Floats, people: Ints) -> nn.Linear:
    """Cosine classifier whose classes start at the clusters' mean directions."""
    centres = unit(means(vectors, people, int(people.max()) + 1))
    head = nn.Linear(vectors.shape[1], len(centres), bias=False)
    head.weight.data.copy_(torch.from_numpy(centres))
    return head
