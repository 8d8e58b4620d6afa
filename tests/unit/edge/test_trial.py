"""What crashes or hangs in a process of its own hurts nobody else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge.trial import TrialFailed, run_in_child
from tests.conftest import ROOT
from tests.support.waiting import eventually

LONG_S = 60.0


def doubled(number: int) -> int:
    return 2 * number


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(9)


def hang() -> None:
    threading.Event().wait()


def hang_and_tell(path: Path) -> None:
    path.write_text(str(os.getpid()))
    hang()


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and nobody has asked for its exit code yet


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    command = (
        "from pathlib import Path; from edge.trial import run_in_child; "
        "from tests.unit.edge.test_trial import hang_and_tell; "
        f"run_in_child(hang_and_tell, Path({str(told)!r}), timeout_s=60.0)"
    )
    parent = subprocess.Popen([sys.executable, "-c", command], cwd=ROOT)
    try:
        eventually(lambda: told.exists() and told.read_text() != "", within_s=60.0)
    finally:
        parent.kill()
        parent.wait()
    child = int(told.read_text())
    try:
        eventually(lambda: not runs(child), within_s=20.0)
    finally:
        if runs(child):
            os.kill(child, signal.SIGKILL)


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
