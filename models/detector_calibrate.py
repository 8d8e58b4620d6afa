"""Choose how a trained detector's two answers are mixed, and where its scores lie.

    python -m models.detector_calibrate out/detector/detector.pt --pack .pack/detector \\
        --reference ../shared/models/yolox_nano.onnx

Promise: prints AP50 and recall at precision 0.9 for each mix of the labels' answer with the
teacher's, on every n-th picture held out, and the shift of the logits that puts the score at
precision 0.9 where the reference has it on the same pictures. Chooses and writes nothing: the
shares go to edge-models export by hand. One forward pass a picture serves all mixes, since
both answers are linear in the same features (Detector.fold_teacher).
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from tqdm import tqdm

from models.detector import Detector, Head, cells
from models.detector_data import Image, read_coco
from models.detector_metrics import Found, Quality, average_precision
from models.detector_teacher import YoloxTeacher
from models.detector_torch import decode_people, letterboxed
from models.train_detector import load_detector

_SIDE = 416
_SHARES = (0.0, 0.25, 0.5, 0.75)
_LEAST = 0.01  # score of what still counts in a curve
_IOU = 0.6  # of suppression
_EDGE = 1e-6  # a score of exactly 0 or 1 has no logit


@torch.no_grad()
def both_answers(detector: Detector, image: Image) -> tuple[Tensor, Tensor, float]:
    """Rows (1, n, 5) of the answer learnt from labels and of the one from the teacher, and the
    scale of the letterbox."""
    batch, scale = letterboxed(image, _SIDE)
    levels = detector.pyramid(detector.backbone(batch * (1.0 / 128.0) - 1.0))
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for head, level in zip(detector.heads, levels, strict=True):
        assert isinstance(head, Head)
        features = head.body(level)
        for kept, layer in zip(rows, (head.answer, head.imitate), strict=True):
            kept.append(layer(features).flatten(2))
    own, taught = (torch.cat(kept, dim=2).transpose(1, 2) for kept in rows)
    return own, taught, scale


def shift_between(ours: Quality, reference: Quality) -> float:
    """What to add to our logits so that precision 0.9 begins at the reference's score; nan if it
    is never reached."""

    def logit(score: float) -> float:
        inside = min(max(score, _EDGE), 1.0 - _EDGE)  # nan stays nan
        return math.log(inside / (1.0 - inside))

    return logit(reference.threshold) - logit(ours.threshold)


def main(
    checkpoint: Annotated[Path, typer.Argument(help="detector.pt of a training run")],
    pack: Annotated[Path, typer.Option(help="folder made by models.detector_pack")],
    reference: Annotated[Path, typer.Option(help="raw YOLOX ONNX file")],
    every: Annotated[int, typer.Option(help="every n-th picture held out")] = 6,
) -> None:
    """Print what each mix of the two answers gives."""
    torch.set_num_threads(1)
    detector = load_detector(checkpoint)
    teacher = YoloxTeacher(reference, _SIDE)
    pictures = read_coco(pack / "held_out.tar")[::every]
    truth = [(p.boxes, p.ignore) for p in pictures]
    grid = cells(_SIDE, _SIDE)
    mixes = list(product(_SHARES, _SHARES))
    found: dict[tuple[float, float], list[Found]] = {mix: [] for mix in mixes}
    of_reference: list[Found] = []
    for picture in tqdm(pictures, unit=" pictures", mininterval=2.0):
        image = picture.decode()
        of_reference.append(teacher.find(image, _LEAST))
        own, taught, scale = both_answers(detector, image)
        for score_share, box_share in mixes:
            score = own[..., :1].lerp(taught[..., :1], score_share)
            box = own[..., 1:].lerp(taught[..., 1:], box_share)
            rows = torch.cat([score, box], dim=2)
            found[score_share, box_share].append(
                decode_people(rows, grid, scale, least=_LEAST, iou=_IOU)
            )
    judged = average_precision(of_reference, truth)
    typer.echo(f"reference: AP50 {judged.ap50:.3f}, recall {judged.recall:.3f}")
    typer.echo("score share, box share: AP50, recall at precision 0.9, shift of the logits")
    for mix in mixes:
        ours = average_precision(found[mix], truth)
        typer.echo(
            f"{mix[0]:.2f} {mix[1]:.2f}: {ours.ap50:.3f} {ours.recall:.3f} "
            f"{shift_between(ours, judged):+.2f}"
        )


if __name__ == "__main__":
    typer.run(main)
