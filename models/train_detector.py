"""Train the person detector from random weights, on a CPU or a GPU.

    edge-models train --config models/recipes/detector.toml --packs .pack/detector \\
        --out out/detector --seconds 14400

Promise: ends when the time or the steps given are used up, with the learning rate run out to its
end: the schedule follows the share that is used, not an epoch count. `last.pt` resumes (samples go
on where they stopped), `detector.pt` holds the averaged weights alone; both are replaced in one
step, so a cut run keeps the previous one. `log.jsonl` and `curves.png` beside them.
Fails: RecipeError for a recipe or pack that does not fit, before anything is written.

Steps and averaged weights in detector_optimise.py, loss and assignment in detector_loss.py, samples
in detector_augment.py, teacher in detector_teacher.py.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from models import checkpoints
from models.detector import Detector, DetectorShape, cells
from models.detector_augment import Sampler
from models.detector_data import DatasetError, Picture, read_coco, read_cutouts
from models.detector_loss import label_loss, teacher_loss
from models.detector_metrics import average_precision
from models.detector_optimise import Average, optimisers
from models.detector_recipe import Recipe, RecipeError, read_recipe
from models.detector_teacher import YoloxTeacher
from models.detector_torch import find_people

_CHECKPOINT_S = 120.0  # at most so much work is lost to a cut
_VALIDATIONS = 12  # a run
_CLIP = 10.0  # norm of the gradient
_SMOOTH = 0.02  # of the losses that are shown
_SIDE = 416  # of the pictures that the curve is measured on
Key = tuple[int, int, bool]  # sample number, side, closing


class _Samples(Dataset[dict[str, Tensor]]):
    """Draws samples by key, in the main process or in workers; the teacher looks at each."""

    def __init__(self, sampler: Sampler, teacher: Path | None) -> None:
        self._sampler = sampler
        self._teacher_path = teacher
        self._teachers: dict[int, YoloxTeacher] = {}  # one a side, opened where it is used

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        number, side, closing = key
        sample = self._sampler.draw(number, side, closing=closing)
        found = {
            "image": torch.from_numpy(sample.image).permute(2, 0, 1),
            "boxes": torch.from_numpy(sample.boxes),
            "kinds": torch.from_numpy(sample.kinds),
        }
        if self._teacher_path is not None:
            if side not in self._teachers:
                self._teachers[side] = YoloxTeacher(self._teacher_path, side)
            scores, boxes = self._teachers[side](sample.clean)
            found["teacher_scores"] = torch.from_numpy(scores)
            found["teacher_boxes"] = torch.from_numpy(boxes)
        return found


class _Clock:
    """Share of the run that is used: by time or by steps; earlier parts of a resumed run count."""

    def __init__(self, seconds: float | None, steps: int | None, used: float) -> None:
        self._seconds, self._steps, self._used = seconds, steps, used
        self._start = time.monotonic()
        self._done = 0

    def step(self) -> None:
        self._done += 1

    def share(self) -> float:
        if self._steps is not None:
            return min(1.0, self._used + self._done / self._steps)
        assert self._seconds is not None
        return min(1.0, self._used + (time.monotonic() - self._start) / self._seconds)


def _load_pictures(recipe: Recipe, pack: Path) -> list[Picture]:
    pictures: list[Picture] = []
    for name in recipe.pictures:
        if name in recipe.optional and not (pack / name).exists():
            continue
        pictures += read_coco(pack / name)
    factors = recipe.source_weights
    return [replace(p, weight=p.weight * factors.get(p.source, 1.0)) for p in pictures]


def _save(path: Path, content: dict[str, Any]) -> None:
    """Replace the file in one step."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, path)


def load_detector(path: Path) -> Detector:
    """The detector of a `detector.pt`, ready to infer.

    Raises:
        CheckpointError: it is none.
    """
    content = _read_weights(path)
    shape: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in content["shape"].items()
    }
    detector = Detector(DetectorShape(**shape))
    detector.load_state_dict(content["weights"])
    return detector.eval()


def _read_weights(path: Path) -> dict[str, Any]:
    content = checkpoints.read(path)
    if not checkpoints.is_detector(content):
        raise checkpoints.CheckpointError(f"{path} is no detector.pt of a training run; give one")
    return content


def recipes_of(path: Path) -> tuple[str, ...]:
    """Names of all recipes that had a part in a `detector.pt`, the first one first."""
    content = _read_weights(path)
    return tuple(content.get("recipes") or (content["recipe"],))


def run(
    config: Path,
    *,
    pack: Path,
    out: Path,
    seconds: float | None = None,
    steps: int | None = None,
    stop_after_s: float | None = None,
    told_to_stop: threading.Event | None = None,
    resume: bool = False,
    device: str = "cpu",
    threads: int = 1,
    workers: int = 0,
    teacher: Path | None = None,
    start_from: Path | None = None,
    progress: bool = True,
) -> Path:
    """Train by a recipe.

    Args:
        config: the recipe.
        pack: folder made by `python -m models.detector_pack`.
        out: folder for checkpoints, log and curves.
        seconds, steps: length of the whole run, one of them at most; neither: the recipe's steps.
        stop_after_s: save and return after so long; the same call with resume=True goes on.
        told_to_stop: save and return once it is set.
        resume: go on from out/last.pt if it is there.
        device: "cpu" or "cuda". threads: of torch on the CPU. workers: processes drawing samples.
        teacher: raw YOLOX ONNX; None trains from labels alone.
        start_from: a detector.pt whose weights to start from instead of random ones.
    Returns:
        path of detector.pt.
    Raises:
        RecipeError: recipe, pack and options do not fit together.
        DatasetError: the pack is damaged.
        CheckpointError: start_from is no detector.pt.
    """
    recipe = read_recipe(config)
    if seconds is not None and steps is not None:
        raise RecipeError(config, "give the run's length either in seconds or in steps")
    if seconds is None and steps is None:
        steps = recipe.steps
    try:
        pictures = _load_pictures(recipe, pack)
        cutouts = read_cutouts(pack / recipe.cutouts)
        held = read_coco(pack / recipe.held_out)
    except (OSError, DatasetError) as error:
        raise RecipeError(
            config, f"the pack does not fit: {error}; make it with python -m models.detector_pack"
        ) from error
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    torch.manual_seed(recipe.seed)
    detector = Detector() if start_from is None else load_detector(start_from)
    run = _Run(recipe, detector, held, out=out, device=torch.device(device), progress=progress)
    if start_from is not None:
        run.recipes = recipes_of(start_from)
    run.begin(resume=resume)
    sampler = Sampler(pictures, cutouts, seed=recipe.seed, progress=progress)
    samples = _Samples(sampler, teacher if recipe.teacher_weight > 0 else None)
    run.go(
        samples,
        _Clock(seconds, steps, run.used),
        workers=workers,
        stop_after_s=stop_after_s,
        told_to_stop=told_to_stop or threading.Event(),
    )
    return out / "detector.pt"


class _Run:
    """One run: the network, its average, the optimiser, and how far it is."""

    def __init__(
        self,
        recipe: Recipe,
        detector: Detector,
        held_out: list[Picture],
        *,
        out: Path,
        device: torch.device,
        progress: bool,
    ) -> None:
        self.used = 0.0  # share of the schedule
        self.recipes: tuple[str, ...] = ()  # that had a part in the weights, before this one
        self._samples = 0
        self._recipe = recipe
        self._device = device
        self._detector = detector.to(device)
        self._detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimisers = optimisers(self._detector, recipe)
        self._average = Average(self._detector, recipe.ema_decay)
        self._held_out = held_out[:: max(1, len(held_out) // recipe.validate_pictures)]
        self._out = out
        self._progress = progress
        self._losses: dict[str, float] = {}  # smoothed

    def begin(self, *, resume: bool) -> None:
        """Make the folder; take an earlier run up again, or clear its log."""
        self._out.mkdir(parents=True, exist_ok=True)
        last = self._out / "last.pt"
        if not (resume and last.exists()):
            (self._out / "log.jsonl").unlink(missing_ok=True)
            return
        saved = torch.load(last, map_location=self._device, weights_only=True)
        self._detector.load_state_dict(saved["weights"])
        self._average.detector.load_state_dict(saved["average"])
        self._average.steps = saved["steps"]
        for optimiser, state in zip(self._optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.used, self._samples = saved["state"]["share"], saved["state"]["samples"]
        self.recipes = tuple(saved.get("recipes", self.recipes))

    def go(
        self,
        samples: _Samples,
        clock: _Clock,
        *,
        workers: int,
        stop_after_s: float | None,
        told_to_stop: threading.Event,
    ) -> None:
        """Train until the schedule has ended; save and return early when asked to."""
        loader = DataLoader(
            samples,
            batch_sampler=_Lazy(lambda: self._keys(clock)),
            num_workers=workers,
            prefetch_factor=3 if workers else None,
            pin_memory=self._device.type == "cuda",
        )
        started = saved = time.monotonic()
        next_record = clock.share() + 1.0 / _VALIDATIONS
        stopped = trained = False
        with tqdm(total=1000, disable=not self._progress, unit="‰", mininterval=1.0) as bar:
            for batch in loader:
                self._step(batch, clock.share())
                clock.step()
                trained = True
                bar.set_postfix({k: f"{v:.2f}" for k, v in self._losses.items()}, refresh=False)
                bar.update(round(1000 * clock.share()) - bar.n)
                now = time.monotonic()
                if next_record <= clock.share() < 1.0:
                    next_record += 1.0 / _VALIDATIONS
                    self._record(clock.share(), now - started)
                if now - saved > _CHECKPOINT_S:
                    self._checkpoint(clock.share())
                    saved = now
                late = stop_after_s is not None and now - started > stop_after_s
                stopped = late or told_to_stop.is_set()
                if stopped or clock.share() >= 1.0:  # workers have drawn some samples ahead
                    break
        self._checkpoint(clock.share())
        if trained and not stopped:
            self._record(clock.share(), time.monotonic() - started)

    def _keys(self, clock: _Clock) -> Iterator[list[Key]]:
        number = self._samples
        while clock.share() < 1.0:
            phase = self._recipe.phase(clock.share())
            yield [(number + i, phase.side, phase.closing) for i in range(phase.batch)]
            number += phase.batch

    def _step(self, batch: dict[str, Tensor], share: float) -> None:
        recipe = self._recipe
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(share)
        on = {k: v.to(self._device, non_blocking=True) for k, v in batch.items()}
        half = recipe.precision == "bfloat16"  # holds 0..255 exactly
        images = on["image"].to(torch.bfloat16 if half else torch.float32)
        images = images.contiguous(memory_format=torch.channels_last)
        self._detector.train()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            rows, imitation = self._detector(images)
        grid = cells(images.shape[2], images.shape[3], self._device)
        # rows beyond the fullest picture's are padding; on a CPU they would cost a third of a step
        most = max(1, int((batch["kinds"] > 0).sum(1).max()))
        score, box = label_loss(rows, on["boxes"][:, :most], on["kinds"][:, :most], grid)
        loss = score + recipe.box_weight * box
        losses = {"score": score, "box": box}
        if "teacher_scores" in on:
            assert imitation is not None
            taught = teacher_loss(imitation, on["teacher_scores"], on["teacher_boxes"], grid)
            loss = loss + recipe.teacher_weight * taught
            losses["teacher"] = taught
        self._detector.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._detector.parameters(), _CLIP)
        for optimiser in self._optimisers:
            optimiser.step()
        self._average.update(self._detector)
        self._samples += len(images)
        for name, value in losses.items():
            before = self._losses.get(name, float(value.detach()))
            self._losses[name] = before + (float(value.detach()) - before) * _SMOOTH

    def _checkpoint(self, share: float) -> None:
        average = self._average.detector.state_dict()
        weights = {name: value.cpu() for name, value in average.items()}
        shape = self._detector.shape.as_dict()
        name = self._recipe.name
        recipes = list(dict.fromkeys([*self.recipes, name]))
        _save(
            self._out / "detector.pt",
            {"shape": shape, "weights": weights, "recipe": name, "recipes": recipes},
        )
        _save(
            self._out / "last.pt",
            {
                "weights": self._detector.state_dict(),
                "average": average,
                "steps": self._average.steps,
                "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
                "state": {"share": share, "samples": self._samples},
                "recipes": recipes,
            },
        )

    def _record(self, share: float, seconds: float) -> None:
        """One line of the log: losses, and AP of the average on held-out pictures."""
        look = self._average.detector
        found = [find_people(look, p.decode(), side=_SIDE) for p in self._held_out]
        quality = average_precision(found, [(p.boxes, p.ignore) for p in self._held_out])
        entry = {
            "share": round(share, 4),
            "samples": self._samples,
            "seconds": round(seconds, 1),
            "rate": self._recipe.rate(share),
            **{name: round(value, 4) for name, value in self._losses.items()},
            "held_out_ap50": round(quality.ap50, 4),
        }
        with (self._out / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if self._progress:
            tqdm.write(json.dumps(entry))
        plot(self._out / "log.jsonl", self._out / "curves.png")


class _Lazy:
    """Batches of keys that are decided when they are asked for."""

    def __init__(self, keys: Callable[[], Iterator[list[Key]]]) -> None:
        self._keys = keys

    def __iter__(self) -> Iterator[list[Key]]:
        return self._keys()


def plot(log: Path, picture: Path) -> None:
    """Curves of losses and of AP on the held-out pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2))
    thousands = np.array([e["samples"] for e in entries]) / 1000
    for name in ("score", "box", "teacher"):
        if name in entries[0]:
            left.plot(thousands, [e[name] for e in entries], label=name)
    right.plot(thousands, [e["held_out_ap50"] for e in entries], label="AP50, held out")
    for axes in (left, right):
        axes.set_xlabel("samples, thousands")
        axes.legend()
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)
