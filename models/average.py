"""The mean of two checkpoints of one run's lineage, weight by weight.

    python -m models.average BEFORE.pth AFTER.pth OUT.pth

Weights before and after further training on other pictures; their mean keeps more of what the
earlier ones knew (Wortsman et al., arXiv 2109.01903, section 3, equation 1 with alpha 0.5). It
costs nothing at run time. The training people of both are on the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models import checkpoints


def average(before: Path, after: Path, out: Path) -> None:
    """Write the mean; name and input are those of `after`.

    Raises:
        CheckpointError: a file is no checkpoint of ours, or the two networks differ.
    """
    first, second = checkpoints.load(before), checkpoints.load(after)
    if first.arch != second.arch:
        raise checkpoints.CheckpointError(f"{before} and {after} hold different networks")
    one, other = first.state_dict(), second.state_dict()
    second.load_state_dict(
        {k: (one[k] + v) / 2 if v.is_floating_point() else v for k, v in other.items()}
    )
    contents = checkpoints.read(after)
    seen = [
        *checkpoints.trained_on(checkpoints.read(before), before),
        *checkpoints.trained_on(contents, after),
    ]
    checkpoints.save(
        out,
        second,
        name=contents.get("name"),
        trained_on=list(dict.fromkeys(seen)),
        input=contents.get("input"),
    )


def main(
    before: Annotated[Path, typer.Argument(help="Checkpoint.")],
    after: Annotated[Path, typer.Argument(help="Checkpoint trained on from it.")],
    out: Annotated[Path, typer.Argument(help="Checkpoint to write.")],
) -> None:
    """Write the mean of two checkpoints."""
    try:
        average(before, after, out)
    except (checkpoints.CheckpointError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
