"""What a person at the terminal sees while the box runs: one table, redrawn twice a second.

Promise: draws from a `Snapshot` and nothing else; on anything that is no terminal it prints one
plain line now and then instead. A terminal that was closed, or a file on a full disk, ends the
drawing and nothing else. Threads: the main thread only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.status import Snapshot, byte_figures

REDRAW_S = 0.5
PLAIN_EVERY_S = 10.0

_STATE_STYLE = {"online": "green", "ended": "dim", "connecting": "yellow", "offline": "bold red"}


def human_bytes(count: float) -> str:
    """Bytes with a unit, three digits: 1.23 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def draw(now: Snapshot, before: Snapshot | None) -> Group:
    """The live table.

    Args:
        now: the state to show.
        before: an earlier one that rates are taken against.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("camera")
    table.add_column("state")
    for name in ("fps in", "analysed", "people", "tracklets", "embeddings/s", "video", "dropped"):
        table.add_column(name, justify="right")
    for name, camera in now.cameras.items():
        earlier = before.cameras.get(name) if before is not None else None
        span_s = now.wall_s - before.wall_s if before is not None else 0.0
        fps_in = embedded = 0.0
        if earlier is not None and span_s > 0:
            fps_in = (camera.frames_in - earlier.frames_in) / span_s
            embedded = (camera.embeddings - earlier.embeddings) / span_s
        table.add_row(
            name,
            Text(camera.state, style=_STATE_STYLE.get(camera.state, "")),
            f"{fps_in:.1f}",
            f"{camera.analysed_per_s:.1f}/s",
            str(camera.people_now),
            str(camera.tracklets),
            f"{embedded:.1f}",
            human_bytes(camera.bytes_video_in),
            str(camera.frames_dropped),
        )
    lines: list[Table | Text] = [table, Text(_delivery_line(now))]
    lines += [
        Text(f"camera {name}: {camera.error}", style="red")
        for name, camera in now.cameras.items()
        if camera.error
    ]
    lines += [Text(f"degraded: {text}", style="yellow") for text in now.warnings]
    return Group(*lines)


def _delivery_line(now: Snapshot) -> str:
    video, wire, ratio = byte_figures(now)
    delivery = now.delivery
    link = "connected to" if delivery.connected else "no connection to"
    share = f", {ratio:.0f} times less than the {human_bytes(video)} of video" if ratio else ""
    text = (
        f"{link} {delivery.address or 'a matcher'}: {delivery.acked} sightings acked, "
        f"{delivery.waiting} waiting; {human_bytes(wire)} sent{share}"
    )
    return text if delivery.connected or not delivery.problem else f"{text} ({delivery.problem})"


def plain_line(now: Snapshot) -> str:
    """The same in one line, for logs."""
    cameras = ", ".join(
        f"{name} {camera.state} {camera.analysed_per_s:.1f} fps {camera.people_now} people"
        for name, camera in now.cameras.items()
    )
    return f"{cameras}; {_delivery_line(now)}"


class LiveView:
    """Draws while the box runs; a context manager around the main loop.

    Args:
        console: where to draw (stderr: stdout belongs to the summary).
        snapshot: gives the state.
    """

    def __init__(self, *, console: Console, snapshot: Callable[[], Snapshot]) -> None:
        self._console = console
        self._snapshot = snapshot
        self._before: Snapshot | None = None
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )
        self._next_plain_s = time.monotonic() + PLAIN_EVERY_S

    def __enter__(self) -> LiveView:
        if self._live is not None:
            try:
                self._live.start()
            except OSError:
                self._end()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()

    def redraw(self) -> None:
        """Show the state now."""
        if self._live is not None:
            now = self._snapshot()
            try:
                self._live.update(draw(now, self._before), refresh=True)
            except OSError:  # the terminal was closed: plain lines from now on, for whoever comes
                self._end()
            if self._before is None or now.wall_s - self._before.wall_s > 2.0:
                self._before = now
        elif time.monotonic() >= self._next_plain_s:
            self._next_plain_s = time.monotonic() + PLAIN_EVERY_S
            with contextlib.suppress(OSError):  # readyz says it (reid.logs.problem)
                print(plain_line(self._snapshot()), file=self._console.file, flush=True)
