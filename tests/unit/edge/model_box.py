"""A box's folders of models and data, and model keepers on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.config import Config, EmbedConfig, RuntimeConfig
from edge.model_keeper import ModelEvent, ModelKeeper
from edge.model_pointer import Pointer, read_pointer, write_pointer
from tests.unit.edge.tiny_models import (
    constant_detector,
    detector_card,
    embedder_card,
    mean_embedder,
    yolox_rows,
)

FRAME = np.zeros((64, 64, 3), np.uint8)


class Clock:
    """UTC seconds that stand still until moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Box:
    """A models folder, a data folder, and keepers on them."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.data = folder / "data"
        self.models.mkdir()
        self.data.mkdir()
        self.clock = Clock()
        self.events: list[ModelEvent] = []
        self.detector("d", score=0.9)
        self.embedder("e", space_id="space-a", seed=1)
        write_pointer(self.models, Pointer().using("detector", "d").using("embedder", "e"))

    def detector(self, name: str, *, score: float, **card: object) -> Path:
        rows = yolox_rows([(16, 30, 16, 40, score)], raw=True)
        path = constant_detector(self.models / f"{name}.onnx", {"output": rows})
        detector_card(path, **card)
        return path

    def embedder(self, name: str, *, space_id: str, seed: int, **card: object) -> Path:
        path = mean_embedder(self.models / f"{name}.onnx", seed=seed)
        embedder_card(path, space_id=space_id, **card)
        return path

    def use(self, kind: str, name: str) -> None:
        write_pointer(self.models, read_pointer(self.models).using(kind, name))

    def keeper(self, **config: object) -> ModelKeeper:
        fields: dict[str, object] = {
            "data_dir": self.data,
            "models_dir": self.models,
            "runtime": RuntimeConfig(threads=1, backend="onnxruntime", watch_s=0.01),
            "embed": EmbedConfig(overlap_s=3600.0),
        }
        keeper = ModelKeeper(
            config=Config.model_validate({**fields, **config}),
            clock=self.clock,
            on_event=self.events.append,
        )
        keeper.open()
        return keeper

    def told(self, what: str) -> list[ModelEvent]:
        return [event for event in self.events if event.what == what]


def settle(keeper: ModelKeeper) -> None:
    """Two looks: the first sees a change, the second that it stands still."""
    keeper.look()
    keeper.look()


def score(keeper: ModelKeeper) -> float:
    return round(float(keeper.detector().detect(FRAME).scores[0]), 3)
