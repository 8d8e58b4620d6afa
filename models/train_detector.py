"""Train the person detector from random weights, on a CPU or a GPU.

    python -m models.train_detector models/recipes/detector.toml --pack .pack/detector \\
        --out out/detector --seconds 14400

Promise: ends when the time or the steps given are used up, with the learning rate run out to its
end: the schedule follows the share that is used, not an epoch count. `last.pt` resumes (samples go
on where they stopped), `detector.pt` holds the averaged weights alone; both are replaced in one
step, so a cut run keeps the previous one. `log.jsonl` and `curves.png` beside them.
Fails: RecipeError for a recipe or pack that does not fit, before anything is written.

Sources: averaged weights: Polyak & Juditsky 1992; AdamW: arXiv:1711.05101; loss and assignment in
detector_loss.py, samples in detector_augment.py, teacher in detector_teacher.py.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from models.detector import Detector, DetectorShape, cells
from models.detector_augment import Sampler
from models.detector_data import DatasetError, Picture, read_coco, read_cutouts
from models.detector_loss import label_loss, teacher_loss
from models.detector_metrics import average_precision
from models.detector_teacher import YoloxTeacher
from models.detector_torch import find_people

_CHECKPOINT_S = 120.0  # at most so much work is lost to a cut
_VALIDATIONS = 12  # a run
_LEAST_RATE = 0.01  # share of the learning rate at the very end
_CLIP = 10.0
Key = tuple[int, int, bool]  # sample number, side, closing


class RecipeError(ValueError):
    """A recipe cannot be run.

    Attributes:
        path: of the recipe.
        problem: what is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"recipe {path}: {problem}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True)
class Phase:
    """A part of the run: until which share of it, sample side (pixels), batch, milder samples."""

    until: float
    side: int
    batch: int
    closing: bool


@dataclass(frozen=True)
class Recipe:
    """What a TOML file of models/recipes/detector*.toml says; the file explains each value."""

    kind: str
    name: str
    seed: int
    steps: int
    pictures: tuple[str, ...]
    optional: tuple[str, ...]
    cutouts: str
    held_out: str
    validate_pictures: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    ema_decay: float
    box_weight: float
    teacher_weight: float
    precision: str
    source_weights: dict[str, float]
    phases: tuple[Phase, ...]

    def phase(self, share: float) -> Phase:
        """The phase at this share 0..1 of the run."""
        return next((p for p in self.phases if share < p.until), self.phases[-1])

    def rate(self, share: float) -> float:
        """Learning rate at this share of the run: a short ramp, then half a cosine."""
        if share < self.warmup_share:
            return self.learning_rate * max(share / self.warmup_share, 0.01)
        rest = min(1.0, (share - self.warmup_share) / (1.0 - self.warmup_share))
        cosine = 0.5 * (1.0 + math.cos(math.pi * rest))
        return self.learning_rate * (_LEAST_RATE + (1.0 - _LEAST_RATE) * cosine)


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; RecipeError names what does not fit."""
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(path, str(error)) from error
    expected = {f.name for f in fields(Recipe)}
    if set(found) != expected:
        raise RecipeError(path, f"missing or unknown keys: {sorted(expected ^ set(found))}")
    try:
        phases = tuple(Phase(**p) for p in found.pop("phases"))
    except TypeError as error:
        raise RecipeError(path, f"phases: {error}") from error
    if not phases or phases[-1].until != 1.0 or any(p.side % 32 for p in phases):
        raise RecipeError(path, "phases must end at 1.0 and have sides that are multiples of 32")
    if found["kind"] != "detector":
        raise RecipeError(path, f"its kind is {found['kind']!r}, not 'detector'")
    if found["precision"] not in ("float32", "bfloat16"):
        raise RecipeError(path, f"precision {found['precision']!r} is not float32 or bfloat16")
    for name in ("pictures", "optional"):
        found[name] = tuple(found[name])
    return Recipe(**found, phases=phases)


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


class _Average:
    """Exponential moving average of the weights; the first steps are forgotten sooner."""

    def __init__(self, detector: Detector, decay: float) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.steps = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, detector: Detector) -> None:
        self.steps += 1
        keep = min(self._decay, (1.0 + self.steps) / (10.0 + self.steps))
        mine, current = self.detector.state_dict(), detector.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [mine[name] for name in floats], [current[name] for name in floats], 1.0 - keep
        )


def _load_pictures(recipe: Recipe, pack: Path) -> list[Picture]:
    pictures: list[Picture] = []
    for name in recipe.pictures:
        if name in recipe.optional and not (pack / name).exists():
            continue
        pictures += read_coco(pack / name)
    factors = recipe.source_weights
    return [replace(p, weight=p.weight * factors.get(p.source, 1.0)) for p in pictures]


def _optimiser(detector: Detector, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in detector.parameters() if p.ndim > 1]
    vectors = [p for p in detector.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _save(path: Path, content: dict[str, Any]) -> None:
    """Replace the file in one step."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, path)


def load_detector(path: Path) -> Detector:
    """The detector of a `detector.pt`, ready to infer."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    shape: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in content["shape"].items()
    }
    detector = Detector(DetectorShape(**shape))
    detector.load_state_dict(content["weights"])
    return detector.eval()


def run(
    config: Path,
    *,
    pack: Path,
    out: Path,
    seconds: float | None = None,
    steps: int | None = None,
    stop_after_s: float | None = None,
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
        resume: go on from out/last.pt if it is there.
        device: "cpu" or "cuda". threads: of torch on the CPU. workers: processes drawing samples.
        teacher: raw YOLOX ONNX; None trains from labels alone.
        start_from: a detector.pt whose weights to start from instead of random ones.
    Returns:
        path of detector.pt.
    Raises:
        RecipeError: recipe, pack and options do not fit together.
        DatasetError: the pack is damaged.
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
    held = held[:: max(1, len(held) // recipe.validate_pictures)]
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    torch.manual_seed(recipe.seed)
    where = torch.device(device)
    detector = (Detector() if start_from is None else load_detector(start_from)).to(where)
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = _optimiser(detector, recipe)
    average = _Average(detector, recipe.ema_decay)
    state = {"share": 0.0, "samples": 0}
    out.mkdir(parents=True, exist_ok=True)
    last = out / "last.pt"
    if resume and last.exists():
        saved = torch.load(last, map_location=where, weights_only=True)
        detector.load_state_dict(saved["weights"])
        average.detector.load_state_dict(saved["average"])
        average.steps = saved["steps"]
        optimiser.load_state_dict(saved["optimiser"])
        state = saved["state"]
    else:
        (out / "log.jsonl").unlink(missing_ok=True)
    sampler = Sampler(pictures, cutouts, seed=recipe.seed, progress=progress)
    clock = _Clock(seconds, steps, state["share"])  # decoding does not count
    use_teacher = teacher if recipe.teacher_weight > 0 else None

    def keys() -> Iterator[list[Key]]:
        number = int(state["samples"])
        while clock.share() < 1.0:
            phase = recipe.phase(clock.share())
            yield [(number + i, phase.side, phase.closing) for i in range(phase.batch)]
            number += phase.batch

    loader = DataLoader(
        _Samples(sampler, use_teacher),
        batch_sampler=_Lazy(keys),
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        pin_memory=where.type == "cuda",
    )

    def checkpoint() -> None:
        weights = {k: v.cpu() for k, v in average.detector.state_dict().items()}
        content = {"shape": detector.shape.as_dict(), "weights": weights, "recipe": recipe.name}
        _save(out / "detector.pt", content)
        _save(
            last,
            {
                "weights": detector.state_dict(),
                "average": average.detector.state_dict(),
                "steps": average.steps,
                "optimiser": optimiser.state_dict(),
                "state": {**state, "share": clock.share()},
            },
        )

    def validate() -> float:
        found = [find_people(average.detector, p.decode(), side=416) for p in held]
        return average_precision(found, [(p.boxes, p.ignore) for p in held]).ap50

    log: dict[str, float] = {}
    saved_at, started = time.monotonic(), time.monotonic()
    next_validation = state["share"] + 1.0 / _VALIDATIONS
    bar = tqdm(total=1000, initial=round(1000 * state["share"]), disable=not progress, unit="‰")
    detector.train()

    def record() -> None:
        entry = {
            "share": round(clock.share(), 4),
            "samples": state["samples"],
            "seconds": round(time.monotonic() - started, 1),
            "rate": recipe.rate(clock.share()),
            **{k: round(v, 4) for k, v in log.items()},
            "held_out_ap50": round(validate(), 4),
        }
        with (out / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if progress:
            tqdm.write(json.dumps(entry))
        plot(out / "log.jsonl", out / "curves.png")

    stopped = False
    for batch in loader:
        losses = _step(detector, optimiser, batch, recipe, clock.share(), where)
        average.update(detector)
        clock.step()
        state["samples"] += len(batch["image"])
        for name, value in losses.items():
            log[name] = log.get(name, value) * 0.98 + value * 0.02
        bar.n = round(1000 * clock.share())
        bar.set_postfix({k: f"{v:.2f}" for k, v in log.items()}, refresh=False)
        bar.update(0)
        if clock.share() >= next_validation and clock.share() < 1.0:
            next_validation += 1.0 / _VALIDATIONS
            record()
        if time.monotonic() - saved_at > _CHECKPOINT_S:
            checkpoint()
            saved_at = time.monotonic()
        stopped = stop_after_s is not None and time.monotonic() - started > stop_after_s
        if stopped:
            break
    bar.close()
    checkpoint()
    if log and not stopped:
        record()
    return out / "detector.pt"


class _Lazy:
    """Batches of keys that are decided when they are asked for."""

    def __init__(self, keys: Any) -> None:
        self._keys = keys

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self._keys())


def _step(
    detector: Detector,
    optimiser: torch.optim.AdamW,
    batch: dict[str, Tensor],
    recipe: Recipe,
    share: float,
    device: torch.device,
) -> dict[str, float]:
    """One step of the optimiser; the losses before it."""
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate(share)
    on = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    images = on["image"].float().contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        rows, imitation = detector(images)
    grid = cells(images.shape[2], images.shape[3], device)
    # rows beyond the fullest picture's are padding; on a CPU they would cost a third of the step
    most = max(1, int((batch["kinds"] > 0).sum(1).max()))
    score, box = label_loss(rows, on["boxes"][:, :most], on["kinds"][:, :most], grid)
    loss = score + recipe.box_weight * box
    losses = {"score": score, "box": box}
    if "teacher_scores" in on:
        assert imitation is not None
        taught = teacher_loss(imitation, on["teacher_scores"], on["teacher_boxes"], grid)
        loss = loss + recipe.teacher_weight * taught
        losses["teacher"] = taught
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(detector.parameters(), _CLIP)
    optimiser.step()
    return {k: float(v.detach()) for k, v in losses.items()}


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


def main(
    recipe: Annotated[Path, typer.Argument(help="a file of models/recipes/detector*.toml")],
    pack: Annotated[Path, typer.Option(help="folder made by models.detector_pack")],
    out: Annotated[Path, typer.Option(help="folder for checkpoints, log and curves")],
    seconds: Annotated[float | None, typer.Option(help="length of the run in seconds")] = None,
    steps: Annotated[int | None, typer.Option(help="length of the run in steps")] = None,
    resume: Annotated[bool, typer.Option(help="go on from OUT/last.pt")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(help="threads of torch on the CPU")] = 1,
    workers: Annotated[int, typer.Option(help="processes that draw samples")] = 0,
    teacher: Annotated[Path | None, typer.Option(help="raw YOLOX ONNX file")] = None,
    start_from: Annotated[Path | None, typer.Option(help="a detector.pt to go on from")] = None,
) -> None:
    """Train the person detector."""
    done = run(
        recipe,
        pack=pack,
        out=out,
        seconds=seconds,
        steps=steps,
        resume=resume,
        device=device,
        threads=threads,
        workers=workers,
        teacher=teacher,
        start_from=start_from,
    )
    typer.echo(f"averaged weights: {done}")


if __name__ == "__main__":
    typer.run(main)
