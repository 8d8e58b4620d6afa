"""A function in a process of its own, which may crash, hang or take memory without hurting ours.

Promise: `run_in_child` returns what the function returned, or raises TrialFailed; the child has
ended then, in either case. It also ends when its parent does, however that came.
Threads: any; the caller waits.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")


class TrialFailed(Exception):
    """The child crashed or gave no answer in time. The text says which."""


def run_in_child(function: Callable[..., T], *arguments: object, timeout_s: float) -> T:
    """Call a function of a module in a fresh process, and wait.

    Args:
        function: importable by name; it and what it takes and returns can be pickled.
        timeout_s: longest time, the process's own start included.
    Raises:
        TrialFailed: it ended without an answer, or was ended for taking too long.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    with receiver:
        child.start()
        sender.close()  # so that the child's end is seen
        try:
            if not receiver.poll(timeout_s):
                raise TrialFailed(f"gave no answer in {timeout_s:g} s")
            answer: T = receiver.recv()
            return answer
        except EOFError as error:
            child.join()
            raise TrialFailed(_how_it_ended(child.exitcode)) from error
        finally:
            child.kill()
            child.join()
            child.close()


def _answer(
    sender: Connection, function: Callable[..., Any], arguments: tuple[object, ...]
) -> None:
    threading.Thread(target=_end_with_parent, name="trial-parent", daemon=True).start()
    sender.send(function(*arguments))


def _end_with_parent() -> None:
    """A parent that was killed, or left without a word, must not leave a busy process behind."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"crashed the process that tried it ({signal.Signals(-code).name})"
    return f"ended the process that tried it (exit code {code})"
