"""What a source of frames is, and how it fails.

Promise: a source opens, reads one picture after the other and closes. It knows nothing of
retrying, of queues or of other cameras; `reconnect.CameraThread` does that for all of them alike.
Failing: every failure is one of the errors below, whose text says what, where and what to do, and
never holds a credential (addresses are masked, texts of libraries that repeat them are dropped).
Threads: one source is used by one thread at a time; only the counters may be read from others.

    SourceError
    ├── SourceUnreachableError   nobody answers at the address
    ├── SourceUnauthorisedError  it answers and refuses the user or the password
    ├── SourceNotFoundError      no such file, folder, device or path on the camera
    ├── SourceNotVideoError      it is there and is nothing that can be decoded
    ├── SourceTimedOutError      no data within the stated time
    ├── SourceEndedError         no more frames (files: done; live: a fault)
    └── SourceBrokenError        reading failed in the middle and cannot go on
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge.config import SourceConfig
from edge.sources.urls import SourceKind, parse
from edge.types import CaptureTime, Image
from reid.clock import Clock, SystemClock
from reid.logs import mask_address


class SourceError(Exception):
    """A source cannot be opened or read.

    Attributes:
        where: the source's address, masked.
        what: what happened.
        cure: what a person can do about it.
    """

    default_cure = "run edge-run --check with this source"

    def __init__(self, where: str, what: str, cure: str | None = None) -> None:
        self.where = mask_address(where)
        self.what = what
        self.cure = cure or self.default_cure
        super().__init__(f"{self.where}: {self.what}; {self.cure}")


class SourceUnreachableError(SourceError):
    """Nobody answers at the address."""

    default_cure = "check that the camera is on, its cable, the address and the port"


class SourceUnauthorisedError(SourceError):
    """The other side refuses the user name or the password."""

    default_cure = "check user and password (percent-encode @ : / ? # in them)"


class SourceNotFoundError(SourceError):
    """No such file, folder, device, or path on the camera."""

    default_cure = "check the path for spelling"


class SourceNotVideoError(SourceError):
    """It is there, and holds no video that can be decoded."""

    default_cure = "give a video file, a folder of pictures or the address of a stream"


class SourceTimedOutError(SourceError):
    """No data came within the stated time."""

    default_cure = "check camera, cable and load of the network"


class SourceEndedError(SourceError):
    """There are no more frames. Files: all were read. Live: a fault.

    Attributes:
        missing_s: how much a file is shorter than it says; 0.0: nothing is known to miss.
    """

    default_cure = "a camera that ends its stream has usually restarted: it is opened anew"

    def __init__(
        self, where: str, what: str, cure: str | None = None, *, missing_s: float = 0.0
    ) -> None:
        self.missing_s = missing_s
        super().__init__(where, what, cure)


class SourceBrokenError(SourceError):
    """Reading failed in the middle and cannot go on from there."""

    default_cure = "check the file or the camera; what was read before stays good"


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One decoded picture that is not converted to BGR yet.

    Attributes:
        to_bgr: converts; call it once, from any one thread, only for pictures that are used.
            Returns (height, width, 3) uint8, BGR, contiguous.
        width, height: pixels.
        captured: when it was exposed.
        corrupt: the decoder flagged or concealed errors in it, or builds on a frame that had some.
    """

    to_bgr: Callable[[], Image]
    width: int
    height: int
    captured: CaptureTime
    corrupt: bool = False

    @staticmethod
    def of_image(image: Image, captured: CaptureTime, corrupt: bool = False) -> Reading:
        """A reading of a picture that is BGR already."""
        return Reading(lambda: image, image.shape[1], image.shape[0], captured, corrupt)


class Source(Protocol):
    """Frames in. The constructor opens nothing; `close` may come twice and after a failed open."""

    @property
    def live(self) -> bool:
        """True: time does not wait for us, only the newest frame counts, an end is a fault."""

    @property
    def bytes_in(self) -> int:
        """Bytes of compressed video read so far (pictures on disk: of their files)."""

    @property
    def undecodable(self) -> int:
        """Packets or pictures so far that were damaged and gave no frame at all."""

    def open(self) -> None:
        """Open the source. Raises: SourceError."""

    def read(self) -> Reading:
        """The next picture; blocks. Raises: SourceEndedError after the last one; SourceError."""

    def close(self) -> None:
        """Let go of everything; never raises."""


def open_source(config: SourceConfig, clock: Clock | None = None) -> Source:
    """The source that an address names, not opened yet.

    Args:
        config: one camera; `config.url` is a file path, rtsp[s]://, http[s]://, v4l2:DEVICE,
            folder:PATH or synth://SCENE.
        clock: replaced in tests.
    Raises:
        ValueError: an address nothing can be made of; the text says what is accepted, masked.
    """
    clock = clock or SystemClock()
    address = parse(config.url)
    # imported late: a box that reads RTSP only should not pay for the others
    if address.kind is SourceKind.FOLDER:
        from edge.sources.folder import FolderSource

        return FolderSource(config=config, clock=clock)
    if address.kind is SourceKind.V4L2:
        from edge.sources.v4l2 import V4l2Source

        return V4l2Source(config=config, clock=clock)
    if address.kind is SourceKind.SYNTH:
        from edge.sources.synth import SynthSource

        return SynthSource(config=config, clock=clock)
    from edge.sources.av import AvSource

    return AvSource(config=config, clock=clock)
