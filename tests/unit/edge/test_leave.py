"""The process ends with its own code, whatever native code a thread of it is stuck in."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A thread that is always inside OpenCV, as one is inside an open or an inference that takes long;
# and something that makes taking the interpreter down last until that thread has come back.
_STUCK = """
import sys, threading, time
import cv2, numpy as np

class Last:
    def __del__(self, sleep=time.sleep):
        sleep(1.0)

def stuck():
    picture = np.zeros((600, 600, 3), np.uint8)
    while True:
        cv2.GaussianBlur(picture, (31, 31), 0)
        began.set()

last, began = Last(), threading.Event()
threading.Thread(target=stuck, daemon=True).start()
began.wait()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _STUCK + code], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("code", [0, 6])
def test_a_thread_stuck_in_native_code_does_not_abort_the_process(code: int) -> None:
    ended = run(f"from edge.leave import leave; print('said', end=''); leave({code})")

    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "said", "")


def test_a_reason_in_words_is_said_and_is_a_failure() -> None:
    ended = run("from edge.leave import leave; leave('no room')")

    assert (ended.returncode, ended.stderr) == (1, "no room\n")


def test_edge_run_ends_so() -> None:
    ended = run("from edge.cli import main; sys.argv = ['edge-run', '--version']; main()")

    assert (ended.returncode, ended.stderr) == (0, "")
