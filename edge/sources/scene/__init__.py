"""A rendered street with walking people, in several cameras, with exact ground truth."""

from edge.sources.scene.params import CLOTHES, LIGHTS, VIEWS, SceneError, SceneParams
from edge.sources.scene.scene import SynthScene
from edge.sources.scene.truth import TruthBox, write_truth
from edge.sources.scene.video import write_video

__all__ = [
    "CLOTHES",
    "LIGHTS",
    "VIEWS",
    "SceneError",
    "SceneParams",
    "SynthScene",
    "TruthBox",
    "write_truth",
    "write_video",
]
