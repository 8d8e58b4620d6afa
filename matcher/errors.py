"""What can go wrong at the matcher.

MatcherError
├── LedgerUnusable     the ledger cannot be opened or is damaged: the process ends with 6
│   └── LedgerLocked   another edge-match has it open
├── StorageFailed      the ledger cannot store for the time being: nothing was committed
│   └── StorageFull    no room on the disk
├── NotFound           an identity, tracklet or site that is not known
├── NotAllowed         a request that makes no sense: exit code or INVALID_ARGUMENT
└── ServerFault        a thread of ours died: the process ends with 70
"""

from __future__ import annotations

import enum
from pathlib import Path


class ExitCode(enum.IntEnum):
    """The exit codes of edge-match."""

    DONE = 0  # done or drained
    USAGE = 2  # usage or configuration
    REFUSED = 5  # the server cannot be reached or refuses us
    LEDGER = 6  # the ledger is unusable
    FAULT = 70  # our own fault


class MatcherError(Exception):
    """Base of the matcher's errors."""


class LedgerUnusable(MatcherError):
    """The ledger cannot be used; the text says why and what to do.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, problem: str, cure: str) -> None:
        super().__init__(f"{path}: {problem}; {cure}")
        self.path = path


class LedgerLocked(LedgerUnusable):
    """Another process has the ledger open."""


class StorageFailed(MatcherError):
    """The ledger could not store; nothing of the group was committed and nothing is acked."""


class StorageFull(StorageFailed):
    """No room on the disk of the ledger."""


class NotFound(MatcherError):
    """What was asked for is not known."""


class NotAllowed(MatcherError):
    """What was asked for makes no sense; the text says why."""


class ServerFault(MatcherError):
    """A thread of the server died."""
