"""How the process ends.

A thread in native code (a camera that hangs in opening, an inference that takes long) cannot be
ended. One that comes back while the interpreter is being taken down meets a C++ library that calls
std::terminate (OpenCV, ONNX Runtime): "terminate called without an active exception", and the
process dies of SIGABRT instead of its exit code. Main thread only.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import NoReturn


def leave(code: int | str | None) -> NoReturn:
    """End the process with this code (as `sys.exit`); whatever must be kept is on disk by now.

    Where a daemon thread is left the interpreter is not taken down: only what was printed and
    logged is written out.
    """
    _flush()
    if not any(thread.daemon for thread in threading.enumerate()):
        sys.exit(code)
    logging.shutdown()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    _flush()
    os._exit(code or 0)


def _flush() -> None:
    """Write out what was printed; what nobody takes must not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a full disk, or whoever read it has gone: the interpreter would exit 120
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
