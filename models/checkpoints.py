"""Checkpoints: published torchreid state dicts, and our own runs; always key for key.

Promise: a network comes out whose every value was in the file, or an error that names the keys
that are missing or left over; nothing is dropped. Files are read with `weights_only`, so a
checkpoint cannot run code.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.osnet import FULL_CHANNELS, Architecture, OSNet
from models.recipe import RecipeError, build

State = dict[str, Tensor]
# What torch's unpickler gives, for it has no error of its own, on text and on torn files.
_NO_CHECKPOINT = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    OSError,
)
SHOWN = 4


class CheckpointError(Exception):
    """A checkpoint cannot be loaded; the message names file and keys."""


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint file.

    Raises:
        CheckpointError: missing, cut short, or holding more than tensors and plain values.
    """
    if path.suffix.lower() == ".onnx":
        raise CheckpointError(
            f"{path} is an exported model; give the checkpoint (.pth) that it was exported from"
        )
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except pickle.UnpicklingError as error:
        # torch's text advises to load it without weights_only, which would run its code
        raise CheckpointError(
            f"{path} is not a whole checkpoint of tensors alone; get it again"
        ) from error
    except _NO_CHECKPOINT as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # what a torn archive gives
            raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{path} is not a whole checkpoint ({first}); get it again"
        ) from error
    if not isinstance(contents, dict):
        raise CheckpointError(f"{path} holds a {type(contents).__name__}, expected a state dict")
    return contents


def is_detector(contents: dict[str, Any]) -> bool:
    """Whether it is a detector.pt of ours (models.train_detector)."""
    return {"shape", "weights", "recipe"} <= contents.keys()


def load(path: Path, *, heads: bool = False) -> OSNet:
    """A network from a checkpoint of ours or a published one, in evaluation mode.

    Args:
        heads: keep the classifier; else it is left out, which is the one thing that may be.
    """
    contents = read(path)
    if is_detector(contents):
        raise CheckpointError(f"{path} is a detector's; edge-models export makes a model of it")
    if {"weights", "average"} <= contents.keys():
        raise CheckpointError(
            f"{path} is what a detector's run goes on from; export detector.pt beside it"
        )
    if "architecture" in contents:
        state = contents.get("ema") or contents["model"]
        try:
            arch = build(Architecture, contents["architecture"], str(path))
        except RecipeError as error:
            raise CheckpointError(str(error)) from error
    else:
        state = published_state(contents.get("state_dict", contents), path)
        arch = published_architecture(state, path)
    classes = len(state["classifier.weight"]) if "classifier.weight" in state else 0
    network = OSNet(arch, classes=classes if heads else 0)
    if not heads:
        state = {k: v for k, v in state.items() if not k.startswith("classifier.")}
    load_strictly(network, state, path)
    return network.eval()


def save(path: Path, network: OSNet, **more: Any) -> None:
    """Write a checkpoint of ours, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or is full; what was there stays.
    """
    held = io.BytesIO()  # torch's own writer says of a full disk only where it stood
    torch.save({"architecture": asdict(network.arch), "model": network.state_dict(), **more}, held)
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(held.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def published_state(state: dict[str, Any], path: Path) -> State:
    """torchreid's names → ours: `module.` of data parallelism, and AIN's own arrangement."""
    named = {str(key).removeprefix("module."): value for key, value in state.items()}
    strangers = [key for key, value in named.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(f"{path}: {strangers[0]!r} is no tensor; expected a state dict")
    if not any(".layers." in key for key in named):
        return named
    return {_from_ain(key): value for key, value in named.items()}


def _from_ain(key: str) -> str:
    """`conv2.0.conv2.1.layers.0.x` → `conv2.0.conv2b.0.x`, `pool2.x` → `conv2.2.x`."""
    parts = key.split(".")
    if parts[0] in ("pool2", "pool3"):
        return ".".join([parts[0].replace("pool", "conv"), "2", *parts[1:]])
    if len(parts) > 5 and parts[2] == "conv2" and parts[4] == "layers":
        stream = int(parts[3])
        layer = [] if stream == 0 else [parts[5]]
        return ".".join([*parts[:2], f"conv2{'abcd'[stream]}", *layer, *parts[6:]])
    # both variants call their norm IN; AIN's stands inside the residual
    return ".".join("norm_inside" if part == "IN" else part for part in parts)


def published_architecture(state: State, path: Path) -> Architecture:
    """Width and normalisation, read off a published state dict.

    Raises:
        CheckpointError: it is no OSNet.
    """
    stem = state.get("conv1.conv.weight")
    if stem is None or stem.dim() != 4:
        raise CheckpointError(f"{path}: no conv1.conv.weight (out, 3, 7, 7); this is no OSNet")
    width = len(stem) / FULL_CHANNELS[0]
    if "conv2.0.norm_inside.weight" in state:
        return Architecture(width=width, normalisation="ain")
    return Architecture(
        width=width, normalisation="ibn" if "conv2.0.IN.weight" in state else "plain"
    )


def load_strictly(network: OSNet, state: State, path: Path) -> None:
    """Put a state into a network.

    Raises:
        CheckpointError: a key is missing, left over, or of another shape.
    """
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    for keys, problem in ((missing, "lacks"), (extra, "has left over"), (other, "misshapes")):
        if keys:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            raise CheckpointError(f"{path} {problem} {', '.join(keys[:SHOWN])}{more}")
    network.load_state_dict(state, strict=True)
