"""How a process ends; documented, and the same in every release."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The exit codes of edge-run."""

    DONE = 0  # done or drained
    USAGE = 2  # usage or configuration
    MODEL = 3  # a model was refused
    NO_SOURCE = 4  # no source could be opened (files, or --check)
    REFUSED = 5  # files only: all read, but the matcher refuses us; the rows stay spooled
    SPOOL = 6  # the spool is unusable
    FAULT = 70  # our own fault
