"""Which family a detector's outputs belong to, read from what the file says and from one run.

Promise: a family is taken only when nothing else fits; two that fit are refused by name.
The card's `family` and the flag win over what is read here, yet must fit the shapes. Then, in this
order: shapes; what Ultralytics writes into its files about the head, which decides where it is
there; values of one run and names of the outputs, which must not speak for different families.

    outputs                                  family
    (1, cells, 5+classes)                    yolox, yolox-decoded: sizes below 0 are logarithms;
                                             yolov6: objectness is 1 in every cell
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
from types import MappingProxyType

from edge.detect import detr, end2end, nanodet, ssd, ultralytics, yolox
from edge.detect.adapter import Adapter
from edge.runtime import Array
from reid.model_errors import FamilyAmbiguous, FamilyUnknown, WrongKind

FAMILIES: Mapping[str, type[Adapter]] = {
    adapter.family: adapter
    for adapter in (
        yolox.YoloxRaw,
        yolox.YoloxDecoded,
        yolox.YoloV6,
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


_FOREIGN: Mapping[frozenset[str], tuple[str, str]] = {
    frozenset({"logits", "pred_boxes"}): ("rfdetr", "DETR, RT-DETR and D-FINE of Transformers"),
}  # names by which others export a shape that a family here has, fed or scored in another way
_READABLE_TASKS = ("detect", "pose")  # poses stand behind the same columns and are not looked at


def recognise(
    where: Path | str,
    height: int,
    width: int,
    outputs: Sequence[Array],
    *,
    names: Sequence[str] = (),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> tuple[type[Adapter], str]:
    """The adapter for a model, and what decided: `metadata` or `recognised`.

    Args:
        where: the file, for messages.
        height, width: of its input, pixels.
        outputs: of one run on a picture.
        names: of the outputs, in that order.
        metadata: the file's own key-value pairs.

    Raises:
        WrongKind: its exporter says that it was made for another task.
        FamilyUnknown: nothing fits.
        FamilyAmbiguous: two fit.
    """
    verify_task(where, metadata)
    shaped = [
        adapter for adapter in FAMILIES.values() if adapter.shapes_fit(height, width, outputs)
    ]
    allowed = _said_by_exporter(metadata)
    said = [adapter for adapter in shaped if adapter.family in allowed]
    if allowed and not said:
        raise FamilyUnknown(
            where,
            f"its exporter's note is of {' or '.join(allowed)}, yet its outputs are "
            f"{shapes_text(outputs)} for an input of {width}×{height}",
            "export it for pictures of 128 px a side or more, or say --detector-family",
        )
    if len(said) == 1:
        return said[0], "metadata"
    if any(output.size == 0 for output in outputs):
        valued = shaped  # nothing was seen in the picture of noise: no values that could tell
    else:
        valued = [adapter for adapter in shaped if adapter.values_fit(height, width, outputs)]
    if not valued:
        raise FamilyUnknown(
            where,
            f"no detector family known here has outputs {shapes_text(outputs)} "
            f"for an input of {width}×{height}" + _nearly(shaped),
            "take an export of one of these: " + ", ".join(FAMILIES),
        )
    _refuse_foreign(where, names, valued)
    named = [adapter for adapter in shaped if set(names) == adapter.output_names]
    found = [adapter for adapter in valued if adapter in named] if named else valued
    if not found:
        called = "its output is called" if len(names) == 1 else "its outputs are called"
        raise FamilyAmbiguous(
            where,
            _families(valued + named),
            f"{called} {', '.join(names)} as of {' or '.join(_families(named))}, "
            f"the values of one run are of {' or '.join(_families(valued))}",
        )
    if len(found) > 1:
        raise FamilyAmbiguous(
            where,
            _families(found),
            "the shapes of its outputs are the same and the values of one run fit both",
        )
    return found[0], "recognised"


def verify_task(where: Path | str, metadata: Mapping[str, str]) -> None:
    """Refuse what its exporter made for something else than finding people.

    Raises:
        WrongKind: a classifier, rotated boxes, masks.
    """
    task = metadata.get("task", _READABLE_TASKS[0])
    if metadata.get("author") == "Ultralytics" and task not in _READABLE_TASKS:
        raise WrongKind(where, f"was made for {task}, as it says itself", "take a detector")


def _said_by_exporter(metadata: Mapping[str, str]) -> Sequence[str]:
    """Families that Ultralytics' own note in the file allows; none: no such note.

    Read from files of its version 8.4.190, which writes the class of the head; before it did, it
    wrote whether the head is an end-to-end one, which RT-DETR's is never said to be.
    """
    if metadata.get("author") != "Ultralytics":
        return ()
    if "head" in metadata:
        transformer = metadata["head"] == "RTDETRDecoder"
        return ("yolo-rtdetr",) if transformer else ("ultralytics", "yolo26")
    return ("yolo26",) if metadata.get("end2end") == "True" else ()


def _refuse_foreign(
    where: Path | str, names: Sequence[str], found: Sequence[type[Adapter]]
) -> None:
    family, makers = _FOREIGN.get(frozenset(names), ("", ""))
    if family in _families(found):
        raise FamilyUnknown(
            where,
            f"its outputs are called {', '.join(names)}, as {makers} call them, which are not fed "
            f"as {family} is",
            f"say --detector-family {family} and its input on the card, if its scores are sigmoids",
        )


def _families(adapters: Sequence[type[Adapter]]) -> list[str]:
    return [adapter.family for adapter in adapters]


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
    names = ", ".join(_families(shaped))
    return f" (the shapes are those of {names}, the values are not)" if names else ""
