"""One training step of OSNet on a CPU thread: our kernels beside torch's own operators.

    python -m benchmarks.bench_train_step [--rounds N] [--steps N] [--inputs 64x32,128x64]

Forward, contrastive loss and backward of x0.25 AIN with a classifier, in training mode, channels
last, random images, no augmentation and no optimiser (they are the same in every way). The ways:
torch in float32, torch in bfloat16 (autocast), and ours in float32 (models/fused). They take turns,
round by round, so that a drift of the machine's speed meets all. Before the timing the gradients of
ours are compared with torch's float32. Last line: one JSON object with milliseconds an image.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.machine import cpu_name
from models import fused
from models.fused import Kernels, NoKernelsError
from models.losses import supervised_contrastive
from models.osnet import Architecture, OSNet

CLASSES = 743
MIN_COSINE = 0.999  # of all gradients, as one vector


def main() -> int:
    """Time every way at every input, print the table; 1 where a way is missing or wrong."""
    arguments = _arguments()
    torch.set_num_threads(1)
    try:
        kernels = Kernels.build()
    except NoKernelsError as error:
        print(f"our kernels cannot be built: {error}", file=sys.stderr)
        return 1
    facts = {
        "benchmark": "bench_train_step",
        "network": "x0.25 AIN, neck, classifier",
        "cpu": cpu_name(),
        "load_before": round(os.getloadavg()[0], 2),
        "threads": 1,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "steps_a_round": arguments.steps,
        "torch": torch.__version__,
    }
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(f"\n{'input':<9}{'way':<16}{'ms/image p50':>13}{'min':>8}{'max':>8}{'torch / ours':>14}")
    told: dict[str, dict[str, float]] = {}
    for size in arguments.inputs.split(","):
        height, width = (int(side) for side in size.split("x"))
        ways = _ways(arguments.batch, height, width, kernels)
        difference = _gradient_cosine(ways["torch float32"], ways["ours float32"])
        if not difference >= MIN_COSINE:
            print(f"gradients disagree at {size}: cosine {difference:.5f}", file=sys.stderr)
            return 1
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, (_, step) in ways.items():
                begin = time.perf_counter()
                for _ in range(arguments.steps):
                    step()
                spent = (time.perf_counter() - begin) / arguments.steps
                times[name].append(1e3 * spent / arguments.batch)
        ours = statistics.median(times["ours float32"])
        told[size] = {name: round(statistics.median(spent), 3) for name, spent in times.items()}
        told[size]["ratio"] = round(statistics.median(times["torch float32"]) / ours, 2)
        for name, spent in times.items():
            middle = statistics.median(spent)
            print(
                f"{size:<9}{name:<16}{middle:>13.2f}{min(spent):>8.2f}{max(spent):>8.2f}"
                f"{middle / ours:>14.2f}"
            )
    print(json.dumps(facts | {"ms_per_image": told}))
    return 0


Way = tuple[OSNet, Callable[[], None]]


def _ways(batch: int, height: int, width: int, kernels: Kernels) -> dict[str, Way]:
    torch.manual_seed(0)
    first = OSNet(Architecture(width=0.25, normalisation="ain", neck=True), classes=CLASSES)
    images = torch.randn(batch, 3, height, width).contiguous(memory_format=torch.channels_last)
    people = torch.arange(batch) // 4

    def way(heads: Callable[[OSNet], tuple[Tensor, Tensor, Tensor | None]]) -> Way:
        network = OSNet(first.arch, classes=CLASSES)
        network.load_state_dict(first.state_dict())
        network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]

        def step() -> None:
            network.zero_grad()
            _, embedding, logits = heads(network)
            assert logits is not None  # the network has a classifier
            loss = supervised_contrastive(embedding.float(), people, 0.1)
            loss = loss + torch.nn.functional.cross_entropy(logits.float(), people)
            loss.backward()  # type: ignore[no-untyped-call]

        return network, step

    def mixed(network: OSNet) -> tuple[Tensor, Tensor, Tensor | None]:
        with torch.autocast("cpu", torch.bfloat16):
            return network.heads(images)

    return {
        "torch float32": way(lambda network: network.heads(images)),
        "torch bfloat16": way(mixed),
        "ours float32": way(lambda network: fused.heads(network, images, kernels)),
    }


def _gradient_cosine(one: Way, other: Way) -> float:
    """Cosine of all gradients of two ways after one step each, which also warms them up."""
    vectors = []
    for network, step in (one, other):
        step()
        grads = [p.grad for p in network.parameters() if p.grad is not None]
        vectors.append(torch.cat([g.flatten() for g in grads]))
    return float(torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", default="64x32,128x64")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
