"""Recipes: what a training run is, as a frozen tree read from TOML.

Promise: `read_recipe` gives a checked `Recipe` or names the key that is wrong and what was found;
unknown keys are refused. Every part of the recipe is a switch: its zero turns it off. A recipe
depends on nothing but the standard library, so that a bare GPU machine can run it.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.osnet import Architecture


class RecipeError(Exception):
    """A recipe cannot be read as one; the message names file, key and value."""


@dataclass(frozen=True)
class DataPart:
    """Which images are trained on.

    Attributes:
        packs: files of `edge-models pack`, relative to --data.
        sources: "set:part" of those packs; empty takes all of them.
        batches: "mixed", people of all sets together, or "by_set", each batch of one set alone.
        evaluate_query, evaluate_gallery: sources for the curve of mAP; empty measures none.
    """

    packs: tuple[str, ...]
    sources: tuple[str, ...] = ()
    batches: Literal["mixed", "by_set"] = "mixed"
    evaluate_query: tuple[str, ...] = ()
    evaluate_gallery: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A stretch of the run at one input size; small first, since it costs a quarter per halving.

    Attributes: epochs; height, width of the input in pixels.
    """

    epochs: int
    height: int = 256
    width: int = 128

    def __post_init__(self) -> None:
        _within(self, 1, 100_000, "epochs")
        _within(self, 16, 1024, "height", "width")


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image; probabilities in 0..1, 0 turns a change off.

    Attributes:
        flip: probability of mirroring.
        shift: largest shift, as a fraction of the side (random crop after padding).
        zoom: largest relative change of scale.
        rotate_deg: largest rotation.
        erase: probability that a rectangle of 2..40 % is removed (arXiv 1708.04896). Raises
            accuracy in the same place and lowers it in another one (field notes §3).
        jitter: strength of brightness, contrast, saturation and gamma changes. Helps elsewhere.
        hue_deg: largest rotation of the hue.
        grey: probability of no colour.
        cast: largest relative change of red and of blue against green, as white balances differ.
        blur: probability of losing detail, as a small or soft crop has.
    """

    flip: float = 0.5
    shift: float = 0.06
    zoom: float = 0.08
    rotate_deg: float = 0.0
    erase: float = 0.0
    jitter: float = 0.0
    hue_deg: float = 0.0
    grey: float = 0.0
    cast: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        _within(self, 0, 1, "flip", "shift", "zoom", "erase", "jitter", "grey", "cast", "blur")
        _within(self, 0, 180, "rotate_deg", "hue_deg")


@dataclass(frozen=True)
class Losses:
    """Weights of the losses; 0 turns one off.

    Attributes:
        classes: weight of the classifier's cross-entropy.
        classes_from_epoch: epochs before it joins, where another loss teaches faster at first.
        contrastive: weight of the supervised contrastive loss (arXiv 2004.11362) on embeddings.
        contrastive_temperature: of its similarities.
        smoothing: label smoothing of the classifier's cross-entropy (arXiv 1512.00567).
        triplet: weight of the batch-hard triplet loss (arXiv 1703.07737).
        margin: its margin; 0 takes the soft margin.
        triplet_from_epoch: epochs of classification alone before it joins. From random weights the
            hardest triplets can shrink all distances to zero before anything was learned.
        distil_logits: weight of the divergence to the teacher's classes, temperature^2 included.
        distil_relations: weight of matching the teacher's similarities inside the batch.
        temperature: softens both classifiers' outputs for distillation.
    """

    classes: float = 1.0
    classes_from_epoch: int = 0
    contrastive: float = 0.0
    contrastive_temperature: float = 0.1
    smoothing: float = 0.1
    triplet: float = 1.0
    margin: float = 0.3
    triplet_from_epoch: int = 0
    distil_logits: float = 0.0
    distil_relations: float = 0.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        weights = ("classes", "contrastive", "triplet", "distil_logits", "distil_relations")
        _within(self, 0, 1e6, *weights, "margin", "classes_from_epoch", "triplet_from_epoch")
        _within(self, 1e-3, 1e3, "contrastive_temperature", "temperature")
        _within(self, 0, 0.999, "smoothing")

    def teach(self, epoch: int, *, teacher: bool) -> bool:
        """Whether any of them is on in an epoch, counted from 0."""
        return bool(
            (self.classes and epoch >= self.classes_from_epoch)
            or (self.triplet and epoch >= self.triplet_from_epoch)
            or self.contrastive
            or (teacher and (self.distil_logits or self.distil_relations))
        )


@dataclass(frozen=True)
class Optimise:
    """How the weights move.

    Attributes:
        optimiser: "adamw"; "sgd" (Nesterov momentum 0.9); or "muon", whose steps of the matrices
            are orthogonal (models/muon.py), with AdamW for the rest.
        classifier_rate: the identity classifier's learning rate, as a factor of the others'.
        learning_rate: the peak, after warm-up.
        weight_decay: on weights of convolutions and linear layers only.
        warmup_steps: linear rise to the peak.
        schedule: "cosine" to zero, or "steps": times 0.1 at each fraction in `milestones`.
        ema: decay of the averaged weights that are kept in the end; 0 keeps the last ones.
        people, images: P and K of the sampler; a batch is their product.
        precision: "float32", or "bfloat16" for mixed precision.
    """

    optimiser: Literal["adamw", "sgd", "muon"] = "adamw"
    learning_rate: float = 2e-3
    classifier_rate: float = 1.0
    weight_decay: float = 0.02
    warmup_steps: int = 500
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = (0.43, 0.64, 0.86)
    ema: float = 0.998
    people: int = 16
    images: int = 4
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        _within(self, 0, 100, "learning_rate", "classifier_rate", "weight_decay")
        _within(self, 0, 0.999999, "ema")
        _within(self, 2, 4096, "people")
        _within(self, 1, 4096, "images")
        _within(self, 0, 10**9, "warmup_steps")


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        kind: "osnet"; detectors have recipes of their own.
        name: names the run's folder and the weights that come out of it.
        seed: fixes initial weights, order and augmentation.
        teacher: checkpoint whose outputs the student also learns from; empty for none.
        init: checkpoint to start from in place of random weights; empty for none.
            Both are relative to the recipe's file, or to the run's folder where there is no file.
    """

    kind: Literal["osnet"]
    name: str
    data: DataPart
    stages: tuple[Stage, ...]
    seed: int = 1
    teacher: str = ""
    init: str = ""
    architecture: Architecture = field(default_factory=lambda: Architecture(neck=True))
    augment: Augment = field(default_factory=Augment)
    losses: Losses = field(default_factory=Losses)
    optimise: Optimise = field(default_factory=Optimise)

    def __post_init__(self) -> None:
        losses, taught = self.losses, bool(self.teacher)
        if not losses.teach(0, teacher=taught):
            raise ValueError("no loss is on in the first epoch, so nothing would be learned")
        if (losses.distil_logits or losses.distil_relations) and not taught:
            raise ValueError("losses.distil_... is set without a teacher to learn from")
        if (losses.contrastive or losses.triplet) and self.optimise.images < 2:
            raise ValueError("contrastive and triplet need two images a person: optimise.images")
        for stage in self.stages:
            if not self.architecture.takes(stage.height, stage.width):
                raise ValueError(
                    f"a stage of {stage.height}x{stage.width} leaves AIN's last layers one cell to "
                    "normalise over; take 32x16 or more"
                )
        if bool(self.data.evaluate_query) != bool(self.data.evaluate_gallery):
            raise ValueError("data.evaluate_query and evaluate_gallery go together")

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def stage_at(self, epoch: int) -> Stage:
        """The stage that an epoch, counted from 0, belongs to."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        return self.stages[-1]


def read_recipe(path: Path) -> Recipe:
    """A recipe from its TOML file.

    Raises:
        RecipeError: the file is missing, is no TOML, or has a key or value that does not fit.
    """
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise RecipeError(f"{path} does not exist; recipes lie in models/recipes") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    recipe: Recipe = build(Recipe, table, str(path))
    if not recipe.stages:
        raise RecipeError(f"{path}: stages must hold at least one epoch")
    near = path.resolve().parent
    return dataclasses.replace(
        recipe,
        teacher=str(near / recipe.teacher) if recipe.teacher else "",
        init=str(near / recipe.init) if recipe.init else "",
    )


def _within(part: Any, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; expected {low:g} to {high:g}")


def _needed(part: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return part.default is missing and part.default_factory is missing


def build(kind: Any, value: Any, where: str) -> Any:
    """`value`, as read from TOML, turned into the annotated type `kind`, or a RecipeError."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise RecipeError(f"{where}: expected a table, found {value!r}")
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(value) - set(hints))
        if unknown:
            raise RecipeError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(hints)}")
        lacking = [f.name for f in dataclasses.fields(kind) if f.name not in value and _needed(f)]
        if lacking:
            raise RecipeError(f"{where}: {lacking[0]} is missing")
        built = {name: build(hints[name], item, f"{where}: {name}") for name, item in value.items()}
        try:
            return kind(**built)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{where}: {error}") from error
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: expected a list, found {value!r}")
        return tuple(build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where}: {value!r} is none of {', '.join(map(repr, arguments))}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise RecipeError(f"{where}: expected {kind.__name__}, found {value!r}")
    return value
