"""Let faults happen for as long as asked, and say what became of the sightings.

    python -m tests.faults.run --n 500 --seed 1

Kinds take turns in a random order, so that each comes as often as the others. The last line is one
JSON object: faults, acked, lost, doubled, missing (by reason), and what else was wrong. Exit code 0
means that the guarantee held.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.judge import Verdict
from tests.faults.world import World, WorldBroken


def schedule(kinds: list[str], count: int, seed: int) -> list[str]:
    """Which faults, in which order: every kind equally often, as far as count allows."""
    chance = random.Random(seed)
    order: list[str] = []
    while len(order) < count:
        round_of_kinds = sorted(kinds)
        chance.shuffle(round_of_kinds)
        order.extend(round_of_kinds)
    return order[:count]


def run(
    folder: Path,
    *,
    count: int,
    seed: int,
    kinds: list[str] | None = None,
    plant: str = "",
    say: bool = False,
    minutes: float = 1e9,
    order: list[str] | None = None,
) -> tuple[World, Verdict]:
    """A world, so many faults (or as many as fit into `minutes`), and the verdict.

    Args:
        order: these faults, one after the other, instead of a drawn order.
    """
    with World(folder, seed=seed, plant=plant) as world:
        possible = [k for k in world.faults() if kinds is None or k in kinds]
        began = time.monotonic()
        world.run_for(0.8, 1.0)
        for number, kind in enumerate(order or schedule(possible, count, seed), start=1):
            if time.monotonic() - began > minutes * 60:
                break
            world.happen(kind)
            if say:
                spent = time.monotonic() - began
                print(f"{number:4d}/{count} {kind:<18} {spent:7.1f} s", file=sys.stderr)
        return world, world.settle()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--n", type=int, default=50, help="how many faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no fault after these")
    parser.add_argument("--kinds", help="only these, separated by commas")
    parser.add_argument("--folder", type=Path, help="where; kept afterwards")
    parser.add_argument("--plant", default="", help="a bug to build in, to see it caught")
    options = parser.parse_args()
    kinds = options.kinds.split(",") if options.kinds else None
    folder = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    began = time.monotonic()
    try:
        world, verdict = run(
            folder / "world",
            count=options.n,
            seed=options.seed,
            kinds=kinds,
            plant=options.plant,
            say=True,
            minutes=options.minutes,
        )
    except WorldBroken as error:
        print(f"the world did not recover: {error}\nseed {options.seed}, folder {folder}")
        return 2
    print(f"{'fault':<20}{'times':>6}")
    for kind, times in sorted(world.counts.items()):
        print(f"{kind:<20}{times:>6}")
    for problem in verdict.problems:
        print(f"problem: {problem}")
    print(
        json.dumps(
            {
                "faults": sum(world.counts.values()),
                "captured": verdict.captured,
                "acked": verdict.acked,
                "lost": verdict.lost,
                "holes": verdict.holes,
                "doubled": verdict.doubled,
                "missing": verdict.missing,
                "lost_before_spool": verdict.lost_before_spool,
                "alarms": verdict.alarms,
                "exempt_writers": verdict.exempt,
                "processes": len(world.journals),
                "problems": len(verdict.problems),
                "kinds": world.counts,
                "slow_ends": world.slow_ends,
                "seed": options.seed,
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )
    if options.folder is None and verdict.holds:
        shutil.rmtree(folder)
    elif not verdict.holds:
        print(f"everything is kept in {folder}", file=sys.stderr)
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
