"""What crashes or hangs in a process of its own hurts nobody else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import pytest

from edge.trial import TrialFailed, run_in_child

LONG_S = 60.0


def doubled(number: int) -> int:
    return 2 * number


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(9)


def hang() -> None:
    threading.Event().wait()


def test_the_child_gives_back_what_the_function_returned() -> None:
    assert run_in_child(doubled, 21, timeout_s=LONG_S) == 42


def test_a_crash_of_the_child_is_said_with_its_signal() -> None:
    with pytest.raises(TrialFailed, match="SIGSEGV"):
        run_in_child(crash, timeout_s=LONG_S)


def test_a_child_that_leaves_without_an_answer_is_said_with_its_exit_code() -> None:
    with pytest.raises(TrialFailed, match="exit code 9"):
        run_in_child(leave, timeout_s=LONG_S)


def test_a_child_that_hangs_is_ended() -> None:
    with pytest.raises(TrialFailed, match=r"no answer in 0\.5 s"):
        run_in_child(hang, timeout_s=0.5)

    assert not multiprocessing.active_children()
