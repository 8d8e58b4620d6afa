"""Which family a detector's outputs belong to, read from the shapes and values of one run.

Promise: a family is taken only when nothing else fits; two that fit are refused by name.
The card's `family` and the flag win over what is read here, yet must fit the shapes.

    outputs                                  family
    (1, cells, 5+classes)                    yolox, yolox-decoded: sizes below 0 are logarithms
    (1, 4+classes, cells)                    ultralytics (YOLOv8, YOLO11)
    (1, rows, 6)                             yolo26, yolo-rtdetr: boxes inside out are centres
    (1, cells with stride 64, classes+32)    nanodet-plus
    labels, boxes, scores                    dfine (D-FINE, DEIM, RT-DETR)
    (1, q, 4) and (1, q, classes)            rfdetr
    (1, 1, rows, 7)                          omz-ssd
    (rows, 5) and (rows,)                    omz-boxes
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.detect import detr, end2end, nanodet, ssd, ultralytics, yolox
from edge.detect.adapter import Adapter
from edge.runtime import Array
from reid.model_errors import FamilyAmbiguous, FamilyUnknown, WrongKind

FAMILIES: Mapping[str, type[Adapter]] = {
    adapter.family: adapter
    for adapter in (
        yolox.YoloxRaw,
        yolox.YoloxDecoded,
        ultralytics.UltralyticsDense,
        end2end.Yolo26,
        end2end.YoloRtDetr,
        nanodet.NanoDetPlus,
        detr.DFine,
        detr.RfDetr,
        ssd.OmzSsd,
        ssd.OmzBoxes,
    )
}


def recognise(
    where: Path | str, height: int, width: int, outputs: Sequence[Array]
) -> type[Adapter]:
    """The adapter for a model.

    Args:
        where: the file, for messages.
        height, width: of its input, pixels.
        outputs: of one run on a picture.

    Raises:
        FamilyUnknown: nothing fits.
        FamilyAmbiguous: two fit.
    """
    shaped = [
        adapter for adapter in FAMILIES.values() if adapter.shapes_fit(height, width, outputs)
    ]
    if any(output.size == 0 for output in outputs):
        found = shaped  # nothing was seen in the picture of noise: no values that could tell
    else:
        found = [adapter for adapter in shaped if adapter.values_fit(height, width, outputs)]
    if not found:
        raise FamilyUnknown(
            where,
            f"no detector family known here has outputs {shapes_text(outputs)} "
            f"for an input of {width}×{height}" + _nearly(shaped),
            "take an export of one of these: " + ", ".join(FAMILIES),
        )
    if len(found) > 1:
        raise FamilyAmbiguous(
            where,
            [adapter.family for adapter in found],
            "the shapes of its outputs are the same and the values of one run fit both",
        )
    return found[0]


def named_family(
    where: Path | str, family: str, height: int, width: int, outputs: Sequence[Array]
) -> type[Adapter]:
    """The adapter that a card or a flag names.

    Raises:
        FamilyUnknown: there is no such family, or the outputs cannot be its.
    """
    adapter = FAMILIES.get(family)
    if adapter is None:
        raise FamilyUnknown(
            where, f"there is no family {family!r}", "take one of " + ", ".join(FAMILIES)
        )
    if not adapter.shapes_fit(height, width, outputs):
        raise FamilyUnknown(
            where,
            f"is said to be {family}, yet its outputs are {shapes_text(outputs)} "
            f"for an input of {width}×{height}",
            "leave family out to have it recognised, or mend it",
        )
    return adapter


def person_class(where: Path | str, metadata: Mapping[str, str]) -> int | None:
    """The class person by the names an exporter left in the model; None: no names there.

    Raises:
        WrongKind: there are several names and none is person.
    """
    try:
        names = ast.literal_eval(metadata.get("names", "{}"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None  # free text of an exporter: no names that we can read
    if not isinstance(names, dict) or all(str(name).isdigit() for name in names.values()):
        return None  # no names, or numbers where nobody gave any
    for index, name in names.items():
        if isinstance(index, int) and str(name).lower() in ("person", "people", "pedestrian"):
            return index
    if len(names) == 1:
        return 0
    raise WrongKind(
        where,
        f"detects {', '.join(str(name) for name in list(names.values())[:5])}… and no people",
        "set person_class in its card if one of its classes is people, or take another model",
    )


def shapes_text(outputs: Sequence[Array]) -> str:
    """Shapes for a message."""
    return ", ".join("×".join(str(size) for size in output.shape) for output in outputs)


def _nearly(shaped: Sequence[type[Adapter]]) -> str:
    names = ", ".join(adapter.family for adapter in shaped)
    return f" (the shapes are those of {names}, the values are not)" if names else ""
