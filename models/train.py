"""Train an OSNet by a recipe, on whatever device there is.

Promise: the run is fixed by recipe, packs and seed; it can stop at any moment and goes on from its
last checkpoint as if it had not stopped (bit for bit on one CPU with the same number of threads).
All images are held as bytes on the device and changed there in batches, since a small network is
starved by a data loader. Checkpoints are written whole or not at all.

In the run's folder: `last.pth` (weights, averaged weights, optimiser, step), and what
`models/training_log.py` keeps there.
Threads: one, the caller's.
"""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models import checkpoints, fused, ranking, training_log
from models.augment import augment, normalise, uniforms
from models.data.errors import DataError
from models.data.pack import Pack, load_packs
from models.data.sampler import BySetSampler, PKSampler
from models.losses import (
    batch_hard_triplet,
    distil_classes,
    distil_relations,
    supervised_contrastive,
)
from models.muon import Muon
from models.osnet import OSNet
from models.recipe import Optimise, Recipe, RecipeError, Stage
from models.run_identity import differences, identity, people_trained

EVALUATE_BATCH = 256
NO_DECAY_BELOW = 2  # biases and norms have one dimension
SMALLEST_MATRIX = 8  # rows and columns from which Muon's step is worth its cost


class Diverged(Exception):
    """The loss or the weights are no numbers any more; the message says what is left."""


class Run:
    """A training run: `advance` until `finished`.

    Raises RecipeError, DataError or CheckpointError before the first step where one of these does
    not fit the others.

    Args:
        recipe: what to do.
        packs: folder of the recipe's packs.
        folder: where checkpoints and the log go; a `last.pth` there is taken up.
        device: "cpu", "cuda", ...
        save_s: longest time of work that a crash may cost, in seconds.
    """

    def __init__(
        self, recipe: Recipe, *, packs: Path, folder: Path, device: str = "cpu", save_s: float = 300
    ) -> None:
        self.recipe, self._folder, self._device = recipe, folder, _usable(device)
        self._save_s = save_s
        pack = load_packs([packs / name for name in recipe.data.packs])
        folder.mkdir(parents=True, exist_ok=True)
        self._pack = pack
        sources = recipe.data.sources or pack.sources
        self._trained_on = list(dict.fromkeys(sources))  # several packs may hold one set
        rows = pack.where(*sources)
        _can_be_measured(recipe, pack)
        rows = rows[pack.person[rows] > 0]
        people, labels = np.unique(pack.person[rows], return_inverse=True)
        self._people = people_trained(pack, rows)
        self._identity = identity(recipe, packs=packs, folder=folder)
        self._rows, self.classes = rows, len(people)
        self._labels = torch.from_numpy(labels.astype(np.int64)).to(self._device)
        self._sampler = _sampler(recipe, labels.astype(np.int64), _sets(pack)[rows])
        self.step = 0
        self.steps = self._sampler.steps * recipe.epochs
        torch.manual_seed(recipe.seed)
        self.network = OSNet(recipe.architecture, classes=self.classes).to(self._device)
        self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.init:
            self._begin_at(folder / recipe.init)
        self._average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self._optimisers = _optimisers(self.network, recipe.optimise)
        whole = recipe.optimise.precision == "float32"
        self._kernels = fused.kernels_for(self.network, self._device) if whole else None
        self._teacher: OSNet | None = None
        if recipe.teacher:
            self._teacher = checkpoints.load(folder / recipe.teacher, heads=True).to(self._device)
            self._learned_from(folder / recipe.teacher)
            knows = checkpoints.read(folder / recipe.teacher).get("people")
            if recipe.losses.distil_logits and knows != self._people:
                raise RecipeError(
                    f"teacher {recipe.teacher} knows other people than these {self.classes}; "
                    "set losses.distil_logits = 0 or train it on the same sources"
                )
        self._held: tuple[Stage, Tensor] | None = None
        self._batches: tuple[int, NDArray[np.int64]] | None = None
        if self._last.exists():
            self._resume()

    @property
    def _last(self) -> Path:
        return self._folder / "last.pth"

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.step >= self.steps

    def train(
        self,
        *,
        stop_after_s: float = math.inf,
        evaluate_every: int = 5,
        told_to_stop: threading.Event | None = None,
    ) -> None:
        """Work until finished, until the time is up or until told to stop, then save.

        Args:
            stop_after_s: stop between two steps after this time.
            told_to_stop: stop between two steps once it is set.
            evaluate_every: epochs between measurements where the recipe names a set for them.
        """
        told_to_stop = told_to_stop or threading.Event()
        begin = saved = time.monotonic()
        bar = tqdm(total=self.steps, initial=self.step, desc=self.recipe.name, unit="step")
        sums: dict[str, float] = {}
        since = self.step
        epoch_begin = time.monotonic()
        while not (
            self.finished or told_to_stop.is_set() or time.monotonic() - begin >= stop_after_s
        ):
            for name, value in self.advance().items():
                sums[name] = sums.get(name, 0.0) + value
            bar.update()
            epoch, in_epoch = divmod(self.step, self._sampler.steps)
            if in_epoch == 0:
                line: dict[str, Any] = {"epoch": epoch, "step": self.step}
                line |= {name: round(v / (self.step - since), 4) for name, v in sums.items()}
                line["seconds"] = round(time.monotonic() - epoch_begin, 1)
                if self.recipe.data.evaluate_query and (
                    epoch % evaluate_every == 0 or self.finished
                ):
                    self.save()  # to measure takes minutes
                    saved = time.monotonic()
                    line |= {k: round(v, 2) for k, v in self.evaluate().as_dict().items()}
                training_log.append(self._folder, line)
                tqdm.write(json.dumps(line))
                sums, since, epoch_begin = {}, self.step, time.monotonic()
            if time.monotonic() - saved > self._save_s:
                self.save()
                saved = time.monotonic()
        bar.close()
        self.save()

    def advance(self) -> dict[str, float]:
        """One step of the optimiser; returns the losses by name."""
        epoch, in_epoch = divmod(self.step, self._sampler.steps)
        stage, optimise, losses = (
            self.recipe.stage_at(epoch),
            self.recipe.optimise,
            self.recipe.losses,
        )
        if self._batches is None or self._batches[0] != epoch:
            self._batches = (epoch, self._sampler.epoch(epoch))
        chosen = torch.from_numpy(self._batches[1][in_epoch]).to(self._device)
        images = self._images(stage)[chosen].float().div(255)
        random = uniforms(self.recipe.seed, self.step, len(chosen)).to(self._device)
        with torch.no_grad():
            images = augment(images, random, self.recipe.augment)
        images = images.contiguous(memory_format=torch.channels_last)
        people = self._labels[chosen]
        rate = learning_rate(self.step, self.steps, optimise)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["rate"]

        self.network.train()
        mixed = torch.autocast(
            self._device.type, torch.bfloat16, enabled=optimise.precision == "bfloat16"
        )
        if self._kernels is not None:
            before, embedding, logits = fused.heads(self.network, images, self._kernels)
        else:
            with mixed:
                before, embedding, logits = self.network.heads(images)
        assert logits is not None  # the run's network always has a classifier
        told: dict[str, Tensor] = {}
        if losses.classes and epoch >= losses.classes_from_epoch:
            told["classes"] = losses.classes * F.cross_entropy(
                logits.float(), people, label_smoothing=losses.smoothing
            )
        if losses.contrastive:
            told["contrastive"] = losses.contrastive * supervised_contrastive(
                embedding, people, losses.contrastive_temperature
            )
        if losses.triplet and epoch >= losses.triplet_from_epoch:
            told["triplet"] = losses.triplet * batch_hard_triplet(before, people, losses.margin)
        if self._teacher is not None:
            with torch.no_grad(), mixed:
                _, taught, taught_logits = self._teacher.heads(images)
            if losses.distil_logits and taught_logits is not None:
                told["distil_logits"] = losses.distil_logits * distil_classes(
                    logits, taught_logits, losses.temperature
                )
            if losses.distil_relations:
                told["distil_relations"] = losses.distil_relations * distil_relations(
                    embedding, taught
                )
        total = torch.stack(list(told.values())).sum()
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        for optimiser in self._optimisers:
            optimiser.step()
        self._update_average(optimise.ema)
        self.step += 1
        values = {name: float(loss.detach()) for name, loss in told.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise self._diverged(f"the loss {name!r} is {value} at step {self.step}")
        values["right"] = float((logits.argmax(1) == people).float().mean())
        return values

    def averaged(self) -> OSNet:
        """The network with averaged weights, for evaluation and export."""
        network = OSNet(self.recipe.architecture, classes=self.classes).to(self._device)
        network.load_state_dict(self._average)
        return network.eval()

    def evaluate(self) -> ranking.Scores:
        """Scores of the averaged weights on the recipe's evaluation sources, cosine."""
        data = self.recipe.data
        network = self.averaged()
        epoch = (self.step - 1) // self._sampler.steps
        stage = self.recipe.stage_at(epoch)
        query, gallery = self._pack.where(*data.evaluate_query), self._pack.where(
            *data.evaluate_gallery
        )  # fmt: skip
        features = {
            name: _embed(network, self._pack, rows, stage, self._device)
            for name, rows in (("query", query), ("gallery", gallery))
        }
        person, camera = self._pack.person, self._pack.camera
        return ranking.score(
            ranking.distances(features["query"], features["gallery"], "cosine"),
            person[query],
            camera[query],
            person[gallery],
            camera[gallery],
        )

    def save(self) -> None:
        """Write `last.pth` and the curve.

        Raises:
            Diverged: weights are no numbers; what was there stays.
        """
        broken = [name for name, value in self._average.items() if not value.isfinite().all()]
        if broken:
            raise self._diverged(f"{broken[0]} holds no numbers at step {self.step}")
        checkpoints.save(
            self._last,
            self.network,
            ema=self._average,
            optimisers=[optimiser.state_dict() for optimiser in self._optimisers],
            step=self.step,
            steps=self.steps,
            name=self.recipe.name,
            trained_on=self._trained_on,
            people=self._people,
            run=self._identity,
            input=asdict(self.recipe.stage_at(max(self.step - 1, 0) // self._sampler.steps)),
        )
        training_log.plot(self._folder)

    def _begin_at(self, path: Path) -> None:
        """Take a checkpoint's weights, all but the classifier's; the people differ."""
        own = self.network.state_dict()
        heads = {name: value for name, value in own.items() if name.startswith("classifier.")}
        start = checkpoints.load(path)
        checkpoints.load_strictly(self.network, {**start.state_dict(), **heads}, path)
        self._learned_from(path)

    def _learned_from(self, path: Path) -> None:
        """Weights hand on what they were trained on; the new card must list it as well."""
        known = checkpoints.read(path).get("trained_on") or [f"{path.name}: people not known"]
        self._trained_on += [str(name) for name in known if str(name) not in self._trained_on]

    def _resume(self) -> None:
        saved = checkpoints.read(self._last)
        if other := differences(saved.get("run"), self._identity):
            raise RecipeError(f"{self._last} {other}; take another --out folder")
        checkpoints.load_strictly(self.network, saved["model"], self._last)
        self._average = {k: v.to(self._device) for k, v in saved["ema"].items()}
        for optimiser, state in zip(self._optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.step = int(saved["step"])
        training_log.forget_after(self._folder, self.step)

    def _diverged(self, what: str) -> Diverged:
        left = f"{self._last} is of a step before" if self._last.exists() else "nothing was saved"
        return Diverged(
            f"{what}: the run went astray ({left}); lower optimise.learning_rate, or raise "
            "optimise.warmup_steps, and take another --out folder"
        )

    def _images(self, stage: Stage) -> Tensor:
        """(n, 3, height, width) uint8 of the training rows at the stage's size."""
        if self._held is None or self._held[0] != stage:
            resized = _resized(self._pack.images[self._rows], stage)
            self._held = (stage, resized.to(self._device))
        return self._held[1]

    def _update_average(self, decay: float) -> None:
        decay = min(decay, (1 + self.step) / (10 + self.step))  # a young average forgets sooner
        own = self.network.state_dict()
        with torch.no_grad():
            floats = [k for k, v in own.items() if v.is_floating_point()]
            torch._foreach_lerp_(
                [self._average[k] for k in floats], [own[k] for k in floats], 1 - decay
            )
            for name, value in own.items():
                if not value.is_floating_point():
                    self._average[name].copy_(value)


def _can_be_measured(recipe: Recipe, pack: Pack) -> None:
    """DataError now rather than after an epoch."""
    data = recipe.data
    query, gallery = pack.where(*data.evaluate_query), pack.where(*data.evaluate_gallery)
    if len(query) and not np.isin(pack.person[query], pack.person[gallery]).any():
        raise DataError(
            f"nobody of evaluate_query ({', '.join(data.evaluate_query)}) is in evaluate_gallery "
            f"({', '.join(data.evaluate_gallery)}); pack both parts of a set into one file"
        )


def _sampler(
    recipe: Recipe, labels: NDArray[np.int64], sets: NDArray[np.int64]
) -> PKSampler | BySetSampler:
    people, images = recipe.optimise.people, recipe.optimise.images
    if recipe.data.batches == "by_set":
        return BySetSampler(labels, sets, people=people, images=images, seed=recipe.seed)
    return PKSampler(labels, people=people, images=images, seed=recipe.seed)


def _sets(pack: Pack) -> NDArray[np.int64]:
    """(n,) number of each image's set; all parts of a set, and all its packs, have one."""
    names = [source.split(":", 1)[0] for source in pack.sources]
    return np.array([names.index(name) for name in names], np.int64)[pack.source]


def _usable(device: str) -> torch.device:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA gives the second
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise RecipeError(f"--device {device} cannot be used here ({first}); take cpu") from error
    return torch.device(device)


def learning_rate(step: int, steps: int, how: Optimise) -> float:
    """The rate of one step: linear warm-up, then a cosine to zero or steps of a tenth."""
    if step < how.warmup_steps:
        return how.learning_rate * (step + 1) / how.warmup_steps
    done = (step - how.warmup_steps) / max(steps - how.warmup_steps, 1)
    if how.schedule == "cosine":
        return how.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return float(how.learning_rate * 0.1 ** sum(step / steps >= m for m in how.milestones))


def _optimisers(network: OSNet, how: Optimise) -> list[torch.optim.Optimizer]:
    """One, or two where Muon has the matrices; each group's `rate` scales the learning rate."""
    classifier = list(network.classifier.parameters()) if network.classifier is not None else []
    apart = {id(p) for p in classifier}
    body = [p for p in network.parameters() if id(p) not in apart]
    decay = how.weight_decay
    found: list[torch.optim.Optimizer] = []
    if how.optimiser == "muon":
        matrices = [p for p in body if p.dim() >= NO_DECAY_BELOW and _is_matrix(p)]
        found.append(Muon(matrices, how.learning_rate, weight_decay=decay))
        found[0].param_groups[0]["rate"] = 1.0
        taken = {id(p) for p in matrices}
        body = [p for p in body if id(p) not in taken]
    groups = [
        {"params": [p for p in body if p.dim() >= NO_DECAY_BELOW], "weight_decay": decay},
        {"params": [p for p in body if p.dim() < NO_DECAY_BELOW], "weight_decay": 0.0},
        {"params": classifier, "weight_decay": decay},
    ]
    for group, rate in zip(groups, (1.0, 1.0, how.classifier_rate), strict=True):
        group["rate"] = rate
    if how.optimiser == "sgd":
        found.append(
            torch.optim.SGD(groups, how.learning_rate, momentum=0.9, nesterov=True, foreach=True)
        )
    else:
        found.append(torch.optim.AdamW(groups, how.learning_rate, foreach=True))
    return found


def _is_matrix(parameter: Tensor) -> bool:
    """Whether there are directions to tell apart: not so in a depthwise kernel or a tiny gate."""
    rows, columns = parameter.flatten(1).shape
    depthwise = parameter.dim() > NO_DECAY_BELOW and parameter.shape[1] == 1
    return not depthwise and min(rows, columns) >= SMALLEST_MATRIX


def _resized(images: NDArray[np.uint8], stage: Stage) -> Tensor:
    import cv2

    out = np.empty((len(images), stage.height, stage.width, 3), np.uint8)
    for index, image in enumerate(images):
        small = image.shape[0] > stage.height
        how = cv2.INTER_AREA if small else cv2.INTER_LINEAR
        cv2.resize(image, (stage.width, stage.height), dst=out[index], interpolation=how)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def _embed(
    network: OSNet, pack: Pack, rows: NDArray[np.int64], stage: Stage, device: torch.device
) -> NDArray[np.float32]:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), EVALUATE_BATCH):
            images = _resized(pack.images[rows[start : start + EVALUATE_BATCH]], stage)
            batch = normalise(images.to(device).float().div(255))
            batch = batch.contiguous(memory_format=torch.channels_last)
            parts.append(network(batch).float().cpu().numpy())
    return np.concatenate(parts)
