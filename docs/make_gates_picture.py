"""Draws docs/gates.png: what the aggregation gate of each block gives to each stream.

    python docs/make_gates_picture.py CHECKPOINT [--out docs/gates.png]

Inputs are figures of our own rendered street, at the network's input size. Per block and input, one
row per stream (3, 5, 7 or 9 pixels wide) and one column per channel: dark is little, bright is
much, on one scale for each block. What differs between inputs is what "omni-scale" means: the
picture chooses the scale, channel by channel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.bench_embed import rendered_crops
from models import checkpoints
from models.augment import normalise
from models.osnet import OmniScaleBlock, OSNet

INPUTS = 4
FIELDS = ("3×3", "5×5", "7×7", "9×9")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the gates' picture.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("gates.png"))
    arguments = parser.parse_args()
    contents = checkpoints.read(arguments.checkpoint)
    stage = contents.get("input", {})
    size = (stage.get("width", 128), stage.get("height", 256))
    crops = rendered_crops(60)[:: 60 // INPUTS][:INPUTS]
    pictures = [cv2.resize(crop, size)[:, :, ::-1] for crop in crops]
    batch = torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy()).float() / 255

    gates = gate_values(checkpoints.load(arguments.checkpoint), normalise(batch))

    blocks = list(gates)
    figure, axes = plt.subplots(
        INPUTS,
        1 + len(blocks),
        figsize=(11, 1.5 * INPUTS),
        width_ratios=[1, *[2.4] * len(blocks)],
        layout="constrained",
    )
    for row in range(INPUTS):
        axes[row, 0].imshow(pictures[row])
        axes[row, 0].axis("off")
        for column, block in enumerate(blocks, start=1):
            axis, values = axes[row, column], gates[block]
            low, high = np.percentile(values, [2, 98])
            axis.imshow(values[row], aspect="auto", vmin=low, vmax=high, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks(range(len(FIELDS)), FIELDS if column == 1 else [], fontsize=6)
            if row == 0:
                axis.set_title(f"{block}: {low:.2f} to {high:.2f}", fontsize=8)
    figure.savefig(arguments.out, dpi=110)
    print(f"{arguments.out}: {INPUTS} inputs, {len(blocks)} blocks")


def gate_values(network: OSNet, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Per block, (n, T, channels): the gate's values for each input and stream."""
    found: dict[str, np.ndarray] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, OmniScaleBlock):

            def note(
                block: OmniScaleBlock, inputs: tuple[torch.Tensor, ...], _: object, name: str = name
            ) -> None:
                values = block.gate_values(block.stream_outputs(inputs[0]))
                found[name] = torch.stack([v.flatten(1) for v in values], 1).numpy()

            hooks.append(module.register_forward_hook(note))
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


if __name__ == "__main__":
    main()
