"""An Ultralytics checkpoint as ONNX with a card, through the optional extra `export`.

Promise: the file is recognised by the box's own adapters before it is left in place; its card says
AGPL-3.0 and no commercial use, since that is how Ultralytics licenses code, weights and exports
(an enterprise licence is the operator's to state on the card). The box itself never imports
Ultralytics and needs none of it to run the file.
Fails: YoloExportError: the extra is missing, the checkpoint cannot be read, the export failed;
ModelError: the result is no detector of people that the box reads.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

from models.check import draft_card
from reid.card import Card, card_path, write_card

LICENCE = "AGPL-3.0 (Ultralytics; other terms by its enterprise licence)"


# It has no errors of its own; these are what a foreign or damaged checkpoint gives.
_FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    ImportError,
    EOFError,
    AssertionError,
    pickle.UnpicklingError,
    SyntaxError,
)


class YoloExportError(Exception):
    """The checkpoint was not exported.

    Attributes: path, what, cure.
    """

    def __init__(self, path: Path, what: str, cure: str) -> None:
        self.path, self.what, self.cure = path, what, cure
        super().__init__(f"{path}: {what}; {cure}")


def export_yolo(path: Path, out: Path, *, size: int = 416, end_to_end: bool = True) -> Card:
    """Export a YOLO checkpoint.

    Args:
        path: the .pt file; it is never downloaded.
        out: the ONNX file to write; its card lands beside it.
        size: side of the square input, pixels, a multiple of 32.
        end_to_end: the head that needs no suppression, where the model has one (YOLO26, YOLOv10).

    Returns:
        The card.

    Raises:
        YoloExportError: as in the module's text.
        ModelError: the box would refuse the result.
        OSError: `out` cannot be written.
    """
    if not path.is_file():
        raise YoloExportError(path, "there is no such file", "fetch the checkpoint yourself")
    ultralytics = _ultralytics(path)
    with tempfile.TemporaryDirectory() as folder:
        # Ultralytics writes beside the checkpoint: give it a copy of its own
        copy = Path(shutil.copy(path, folder))
        try:
            made = _export(ultralytics, copy, size, end_to_end).rename(Path(folder) / out.name)
        except _FAILURES as error:
            reason = str(error).replace(str(copy), str(path)).partition("\n")[0][:300]
            raise YoloExportError(
                path,
                f"could not be exported ({type(error).__name__}: {reason})",
                "check the checkpoint",
            ) from error
        card = draft_card(
            made, licence=LICENCE, commercial_use=False, made_by="Ultralytics, exported here"
        )
        content = made.read_bytes()
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.part")
    try:
        beside.write_bytes(content)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    write_card(card, card_path(out))
    return card


def _ultralytics(path: Path) -> ModuleType:
    try:
        import ultralytics
    except ImportError as error:
        raise YoloExportError(
            path, f"Ultralytics is not installed ({error})", "pip install 'edge-reid[export]'"
        ) from error
    module: ModuleType = ultralytics
    return module


def _export(ultralytics: ModuleType, path: Path, size: int, end_to_end: bool) -> Path:
    model = ultralytics.YOLO(str(path), task="detect")
    made = model.export(
        format="onnx",
        imgsz=size,
        dynamic=False,
        simplify=False,
        opset=17,
        verbose=False,
        nms=False if end_to_end else None,  # False: "NMS-free head if available"
    )
    return Path(made)
