"""Wait for a condition with a deadline; a failure prints the last state."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(
    condition: Callable[[], bool], *, within_s: float, state: Callable[[], object] = lambda: ""
) -> float:
    """Wait until the condition holds; returns the seconds that took.

    Raises: AssertionError: it did not hold within `within_s`; the text holds the last state.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < within_s, f"not so after {waited:.1f} s; last state: {state()}"
        time.sleep(0.02)
    return time.monotonic() - began
