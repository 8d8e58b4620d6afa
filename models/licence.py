"""What training data allow a card to say.

Promise: no card of ours allows commercial use of an embedder that learned from people whose
pictures are for research, or from nobody knows whom. What others state of their own sets is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.data.readers import READERS
from models.evaluate import set_of

# "folder" reads a user's own pictures; "rendered" people are in no list of readers.
RESEARCH_SETS = frozenset(map(set_of, READERS)) - {"folder"}
NOT_KNOWN = "people not known"  # as a run says of a checkpoint that it began from


class LicenceUntrue(Exception):
    """The card would allow what the training data do not.

    Attributes: path (of the checkpoint), sources (those that do not; empty: none are known).
    """

    def __init__(self, path: Path, sources: Sequence[str]) -> None:
        self.path, self.sources = path, tuple(sources)
        why, cure = "does not say whom it was trained on", "say it with --trained-on, or "
        if sources:
            why = f"was trained on {', '.join(sources)}: for research only, or not known"
            cure = ""
        super().__init__(f"{path} {why}; {cure}leave out --commercial-use")


def all_sources(own: Sequence[str], told: Sequence[str]) -> tuple[str, ...]:
    """What a card lists: what a checkpoint itself names stays, whatever else is told of it.

    Args:
        own: "set:part" each, as the checkpoint names them.
        told: as its owner does; they stand in for people that are not known.
    """
    known = [name for name in own if not (told and name.endswith(NOT_KNOWN))]
    return tuple(dict.fromkeys((*known, *told)))


def refuse_commercial_use(path: Path, sources: Sequence[str]) -> None:
    """Refuse to allow commercial use of weights that learned from closed data.

    Args:
        path: the checkpoint.
        sources: "set:part" each, as the card will name them.

    Raises:
        LicenceUntrue: a source is for research only or not known, or none is named.
    """
    closed = [name for name in sources if set_of(name) in RESEARCH_SETS]
    closed += [name for name in sources if name.endswith(NOT_KNOWN)]
    if closed or not sources:
        raise LicenceUntrue(path, closed)
