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
from typing import Any, cast

import torch
from torch import Tensor

from models.osnet import FULL_CHANNELS, Architecture, OSNet
from models.recipe import RecipeError, build
from reid.card import LEAST_SIDE, MOST_SIDE

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
HEADS = ("classifier", "attributes")


class CheckpointError(Exception):
    """A checkpoint cannot be loaded; the message names file and keys."""


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint file.

    Raises:
        CheckpointError: it cannot be read, is cut short, or holds more than tensors and plain
            values.
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
            raise CheckpointError(
                f"{path} cannot be read ({error.strerror or error}); check the path and its rights"
            ) from error
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
        heads: keep classifier and attributes; else they are left out, the one thing that may be.

    Raises:
        CheckpointError: it is none of an OSNet, lacks or has left over a key, or has values that
            are no numbers.
    """
    contents = read(path)
    if is_detector(contents):
        raise CheckpointError(f"{path} is a detector's; edge-models export makes a model of it")
    if {"weights", "average"} <= contents.keys():
        raise CheckpointError(
            f"{path} is what a detector's run goes on from; export detector.pt beside it"
        )
    if "architecture" in contents:
        state = _state(contents.get("ema") or contents.get("model"), path)
        arch = _architecture(contents["architecture"], path)
    else:
        state = published_state(contents.get("state_dict", contents), path)
        arch = published_architecture(state, path)
    if heads:
        classes, attributes = (_rows(state, f"{head}.weight") for head in HEADS)
        network = OSNet(arch, classes=classes, attributes=attributes)
    else:
        network = OSNet(arch)
        own = tuple(f"{head}." for head in HEADS)
        state = {key: value for key, value in state.items() if not key.startswith(own)}
    load_strictly(network, state, path)
    broken = [name for name, value in network.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{path}: {broken[0]} has values that are no numbers; take an earlier checkpoint"
        )
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


def input_size(contents: dict[str, Any], path: Path) -> tuple[int, int] | None:
    """Height and width in pixels that a run of ours trained at last; None: it does not say.

    Raises:
        CheckpointError: what it says is no size.
    """
    stage = contents.get("input")
    if stage is None:
        return None
    said = stage if isinstance(stage, dict) else {}
    height, width = said.get("height"), said.get("width")
    for side in (height, width):
        if not isinstance(side, int) or not LEAST_SIDE <= side <= MOST_SIDE:
            raise CheckpointError(
                f"{path}: input is {stage}, expected height and width of {LEAST_SIDE} to "
                f"{MOST_SIDE} px"
            )
    return cast(int, height), cast(int, width)


def trained_on(contents: dict[str, Any], path: Path) -> tuple[str, ...]:
    """All people that the weights have seen, "set:part" each; empty where it does not say.

    Raises:
        CheckpointError: what it says is no list.
    """
    sources = contents.get("trained_on", ())
    if not isinstance(sources, list | tuple):
        raise CheckpointError(f"{path}: trained_on is {sources!r}, expected a list")
    return tuple(str(source) for source in sources)


def _state(value: object, path: Path) -> State:
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} has no weights where they should be; expected a state dict")
    strangers = [key for key, item in value.items() if not isinstance(item, Tensor)]
    if strangers:
        raise CheckpointError(f"{path}: {strangers[0]!r} is no tensor; expected a state dict")
    return {str(key): item for key, item in value.items()}


def _rows(state: State, key: str) -> int:
    """Outputs of a head; 0 where there is none (what is no matrix is left over then)."""
    weight = state.get(key)
    return 0 if weight is None or weight.dim() != 2 else len(weight)


def published_state(state: object, path: Path) -> State:
    """torchreid's names → ours: `module.` of data parallelism, and AIN's own arrangement.

    Raises:
        CheckpointError: it is no state dict.
    """
    named = {key.removeprefix("module."): value for key, value in _state(state, path).items()}
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
    after = "ibn" if "conv2.0.IN.weight" in state else "plain"
    inside = "conv2.0.norm_inside.weight" in state
    switches = {"normalisation": "ain" if inside else after}
    return _architecture({"width": len(stem) / FULL_CHANNELS[0]} | switches, path)


def _architecture(switches: object, path: Path) -> Architecture:
    try:
        return cast(Architecture, build(Architecture, switches, str(path)))
    except RecipeError as error:
        raise CheckpointError(str(error)) from error


def load_strictly(network: OSNet, state: State, path: Path) -> None:
    """Put a state into a network.

    Raises:
        CheckpointError: a key is missing, left over, of another shape, or sparse or the like.
    """
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    odd = [key for key, value in state.items() if not _plain(value)]
    for keys, problem in (
        (missing, "lacks"), (extra, "has left over"), (other, "misshapes"),
        (odd, "has no plain numbers in"),
    ):  # fmt: skip
        if keys:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            raise CheckpointError(f"{path} {problem} {', '.join(keys[:SHOWN])}{more}")
    network.load_state_dict(state, strict=True)


def _plain(value: Tensor) -> bool:
    dense = value.layout is torch.strided and not value.is_meta
    return dense and not value.is_quantized and not value.is_complex()
