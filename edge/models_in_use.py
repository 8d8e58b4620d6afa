"""The detector and the embedders of the running box, opened before the first frame."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from edge.config import Config
from edge.detect.detector import Detector, open_detector
from edge.embed import Embedder, open_embedder
from edge.models_dir import find_model
from edge.status import BoxStatus

log = structlog.get_logger("edge.models")


class ModelsInUse:
    """What the pipelines look with; satisfies `edge.pipeline.Models`."""

    def __init__(self, detector: Detector, embedders: Sequence[Embedder]) -> None:
        self._detector = detector
        self._embedders = tuple(embedders)

    def detector(self) -> Detector:
        """The detector of this frame."""
        return self._detector

    def embedders(self) -> Sequence[Embedder]:
        """The embedders of this frame, the main one first."""
        return self._embedders

    @property
    def variants(self) -> dict[str, str]:
        """space_id -> variant_id, the main embedder's first."""
        return {embedder.space_id: embedder.variant_id for embedder in self._embedders}


def open_models(config: Config, status: BoxStatus) -> ModelsInUse:
    """Open what the configuration names, and say which it is and under which licence.

    Raises:
        ModelError: not found, or not what its card says: exit code 3.
    """
    detector_file = find_model(config.detect.model, "detector", config.models_dir)
    embedder_file = find_model(config.embed.model, "embedder", config.models_dir)
    detector = open_detector(detector_file, config.runtime, config.detect)
    embedder = open_embedder(embedder_file, config.runtime, config.embed)
    log.info("detector", name=detector.name, because=detector_file.why, licence=detector.licence)
    log.info("embedder", name=embedder.name, because=embedder_file.why, licence=embedder.licence)
    status.models = {
        "detector": {
            "name": detector.name,
            "space_id": "",
            "variant_id": detector.precision,
            "runtime": detector.runtime,
        },
        "embedder": {
            "name": embedder.name,
            "space_id": embedder.space_id,
            "variant_id": embedder.variant_id,
            "runtime": embedder.runtime,
        },
    }
    return ModelsInUse(detector, [embedder])
