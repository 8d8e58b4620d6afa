"""Files, RTSP and HTTP through libav (PyAV).

Promise: every decoded frame comes out once, in order, with its capture time; frames that hold
concealed errors, and those that build on them, are marked corrupt until the next key frame.
Failing: errors of libav become the errors of `base`; their own texts repeat the address with its
password, so only their kind is kept.
Threads: as in `base`. libav cannot be interrupted from outside; its time-outs are set so that a
hung call ends by itself after once to twice the configured time.
"""

from __future__ import annotations

import stat
import struct
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from edge.config import SourceConfig
from edge.sources.av_errors import translate
from edge.sources.base import (
    Reading,
    SourceEndedError,
    SourceNotFoundError,
    SourceNotVideoError,
)
from edge.sources.capture_time import (
    GIVEN_UNCERTAINTY_MS,
    MTIME_UNCERTAINTY_MS,
    FileTimes,
    Instant,
    LiveTimes,
)
from edge.sources.urls import FILE_SUFFIXES, SourceKind, parse
from edge.types import Image, TimeSource
from reid.clock import Clock

# Decoder threads count against the cores of the box. Live: one, since frame threads also hold
# frames back. Files: two, so that decoding keeps up with analysis.
LIVE_THREADS = 1
FILE_THREADS = 2
# Frames of a stream that never sends another key frame (gradual refresh) are good again by then.
MAX_DAMAGE_S = 10.0
# Packets whose frames are still in the decoder; more than any reordering depth.
MAX_PENDING = 64
FALLBACK_FPS = 25.0
# A file that is shorter than it says by more than this, and this share, is cut off.
MISSING_S = 0.5
MISSING_SHARE = 0.02
# libav reads any text file as a video of letters.
TEXT_FORMATS = frozenset({"tty"})
# creation_time has whole seconds, and is written when a recorder gets round to it
CREATED_UNCERTAINTY_MS = 1_000.0
# AVProducerReferenceTime: int64 microseconds since 1970, int flags.
_PRFT = struct.Struct("=qi")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to hand to libav.

    Attributes:
        url: address in libav's form.
        live: as in Source.
        format: demuxer to force; None: found out.
        options: of demuxer and protocol; only ones that are known to work.
        media: what it is called in messages.
    """

    url: str = field(repr=False)
    live: bool
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    media: str = "file"


def plan(config: SourceConfig) -> Plan:
    """How a file, RTSP or HTTP address is opened."""
    address = parse(config.url)
    socket_us = str(round(config.frame_timeout_s * 1e6))
    if address.kind is SourceKind.RTSP:
        options = {
            "rtsp_transport": config.transport,
            "timeout": socket_us,
            "allowed_media_types": "video",  # sound is never even asked for
            # what libav reads before it gives the first frame; 3 s at 10 frames/s otherwise
            "analyzeduration": "500000",
            "fpsprobesize": "0",
        }
        return Plan(config.url, live=True, options=options, media="camera")
    if address.kind is SourceKind.HTTP:
        guessed = Path(address.path).suffix.lower() not in FILE_SUFFIXES
        live = guessed if config.live is None else config.live
        return Plan(config.url, live=live, options={"rw_timeout": socket_us}, media="server")
    # "file:" keeps names with a colon from being read as a protocol; the list keeps a playlist
    # from opening anything on the network.
    return Plan(
        f"file:{address.target}", live=False, options={"protocol_whitelist": "file,crypto,data"}
    )


class Damage:
    """Decides which frames to distrust: from an error to the next sound key frame."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def error(self, now_s: float) -> None:
        """Data was lost or could not be decoded."""
        self._since_s = now_s

    def distrusts(self, *, key_frame: bool, corrupt: bool, now_s: float) -> bool:
        """Whether the frame decoded now holds, or builds on, damaged data."""
        if corrupt:
            self._since_s = now_s
        elif key_frame or (self._since_s is not None and now_s - self._since_s > MAX_DAMAGE_S):
            self._since_s = None
        return self._since_s is not None


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What is known of a packet, kept until its frame comes out of the decoder."""

    instant: Instant
    report_unix_nanos: int | None


class AvSource:
    """One file, stream or device read through libav."""

    def __init__(self, *, config: SourceConfig, clock: Clock, how: Plan | None = None) -> None:
        """Args: how: None: a file, RTSP or HTTP address, by `plan`."""
        self.live = (how or plan(config)).live
        self.bytes_in = 0
        self.undecodable = 0
        self._how = how or plan(config)
        self._config = config
        self._clock = clock
        self._container: InputContainer | None = None
        self._stream: VideoStream | None = None
        self._packets: Iterator[av.Packet[VideoStream]] = iter(())
        self._ready: deque[Reading] = deque()
        self._arrived: OrderedDict[int, _Arrived] = OrderedDict()
        self._damage = Damage()
        self._live_times = LiveTimes()
        self._file_times: FileTimes | None = None
        self._interval_s = 1.0 / FALLBACK_FPS
        self._first_pts_s: float | None = None
        self._offset_s: float | None = None
        self._length_s: float | None = None

    def open(self) -> None:
        address = parse(self._config.url)
        if address.kind is SourceKind.FILE:
            self._check_file(Path(address.target))
        began_s = self._now_s()
        network = self._how.media != "file"
        timeouts = (self._config.open_timeout_s, self._config.frame_timeout_s)
        try:
            container = av.open(
                self._how.url,
                format=self._how.format,
                options=dict(self._how.options),
                timeout=timeouts if network else None,
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, UnicodeError) as error:
            # libav reports a silent camera as invalid data, once its own time-out has passed
            silent = network and self._now_s() - began_s > 0.6 * min(timeouts)
            raise translate(
                error, self._config.url, self._how.media, opening=True, silent=silent
            ) from None
        self._container = container
        kinds = {stream.type for stream in container.streams}
        if container.format.name in TEXT_FORMATS or kinds == {"subtitle"}:
            raise SourceNotVideoError(self._config.url, "this is a text, not a video")
        if not container.streams.video:
            found = ", ".join(sorted(kinds)) or "nothing"
            raise SourceNotVideoError(self._config.url, f"it holds no video, only {found}")
        stream = container.streams.video[0]
        if stream.codec_context is None:  # which PyAV's types do not tell
            raise SourceNotVideoError(
                self._config.url,
                "its video is in a form that cannot be decoded here",
                "set it to H.264, H.265 or motion JPEG",
            )
        stream.codec_context.thread_count = LIVE_THREADS if self.live else FILE_THREADS
        stream.codec_context.thread_type = "SLICE" if self.live else "AUTO"
        rate = stream.average_rate or stream.guessed_rate
        if rate:
            self._interval_s = 1.0 / float(rate)
        self._stream = stream
        if not self.live:
            self._file_times = self._times_of_file(container, address.target)
            self._length_s = _length_s(container, stream)
        self._packets = container.demux(stream)

    def read(self) -> Reading:
        while not self._ready:
            self._read_packet()
        return self._ready.popleft()

    def close(self) -> None:
        container, self._container = self._container, None
        self._packets = iter(())
        self._stream = None
        if container is not None:
            container.close()

    # -- opening ----------------------------------------------------------------------------

    def _check_file(self, path: Path) -> None:
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise SourceNotFoundError(
                self._config.url, f"there is no such file (looked from {Path.cwd()})"
            ) from None
        except OSError as error:  # a folder on the way that is closed to us, a name too long
            raise translate(error, self._config.url, "file", opening=True) from None
        if stat.S_ISDIR(found.st_mode):
            raise SourceNotVideoError(
                self._config.url, "this is a folder", f"for a folder of pictures: folder:{path}"
            )
        if stat.S_ISREG(found.st_mode) and found.st_size == 0:
            raise SourceNotVideoError(self._config.url, "the file is empty")

    def _times_of_file(self, container: InputContainer, target: str) -> FileTimes:
        monotonic_ns = self._clock.monotonic_nanos()
        given = self._config.start_time
        if given is not None:
            return FileTimes(
                start_unix_nanos=round(given.timestamp() * 1e6) * 1000,
                start_monotonic_nanos=monotonic_ns,
                source=TimeSource.GIVEN,
                uncertainty_ms=GIVEN_UNCERTAINTY_MS,
            )
        unix_ns = _created(container.metadata.get("creation_time"))
        uncertainty_ms = CREATED_UNCERTAINTY_MS
        if unix_ns is None:
            # the file was last written when its recording ended
            duration_ns = (container.duration or 0) * 1000
            path = Path(target)
            wrote_ns = path.stat().st_mtime_ns if path.is_file() else self._clock.unix_nanos()
            unix_ns, uncertainty_ms = wrote_ns - duration_ns, MTIME_UNCERTAINTY_MS
        return FileTimes(
            start_unix_nanos=unix_ns,
            start_monotonic_nanos=monotonic_ns,
            source=TimeSource.FILE,
            uncertainty_ms=uncertainty_ms,
        )

    # -- reading ----------------------------------------------------------------------------

    def _read_packet(self) -> None:
        """One packet through the decoder; its frames, if any, go to `_ready`."""
        stream = self._stream
        if stream is None:
            raise SourceEndedError(self._config.url, "it is not open")
        try:
            packet = next(self._packets, None)
        except av.error.FFmpegError as error:
            raise translate(error, self._config.url, self._how.media, opening=False) from None
        if packet is None:
            raise self._ended()
        arrival = Instant(self._clock.unix_nanos(), self._clock.monotonic_nanos())
        now_s = arrival.monotonic_nanos * 1e-9
        self.bytes_in += packet.size
        if packet.pts is not None:
            self._arrived[packet.pts] = _Arrived(arrival, _report(packet))
            while len(self._arrived) > MAX_PENDING:
                self._arrived.popitem(last=False)
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.InvalidDataError:
            self.undecodable += 1
            self._damage.error(now_s)
            return
        except av.error.FFmpegError as error:
            raise translate(error, self._config.url, self._how.media, opening=False) from None
        for frame in frames:
            if isinstance(frame, av.VideoFrame):
                self._ready.append(self._reading(frame, arrival, stream.time_base))
        if packet.is_corrupt:
            # the demuxer knows of a hole: what was decoded from it is not to be trusted
            self._damage.error(now_s)

    def _reading(self, frame: av.VideoFrame, now: Instant, time_base: Fraction | None) -> Reading:
        pts = frame.pts
        base = frame.time_base or time_base
        pts_s = None if pts is None or base is None else float(pts * base)
        arrived = self._arrived.pop(pts, None) if pts is not None else None
        if self._file_times is None:
            captured = self._live_times.captured(
                arrival=arrived.instant if arrived else now,
                pts_s=pts_s,
                report_unix_nanos=arrived.report_unix_nanos if arrived else None,
            )
        else:
            captured = self._file_times.captured(self._next_offset_s(pts_s))
        corrupt = self._damage.distrusts(
            key_frame=bool(frame.key_frame),
            corrupt=bool(frame.is_corrupt),
            now_s=now.monotonic_nanos * 1e-9,
        )
        return Reading(lambda: _bgr(frame), *_upright_size(frame), captured, corrupt)

    def _ended(self) -> SourceEndedError:
        missing_s = 0.0
        if self._length_s is not None:
            missing_s = self._length_s - (self._offset_s or 0.0) - self._interval_s
        if missing_s <= max(MISSING_S, MISSING_SHARE * (self._length_s or 0.0)):
            return SourceEndedError(self._config.url, "the stream has ended")
        return SourceEndedError(
            self._config.url,
            f"the stream has ended {missing_s:.1f} s before the length the file states",
            "the file is cut off: copy it again",
            missing_s=missing_s,
        )

    def _next_offset_s(self, pts_s: float | None) -> float:
        """Seconds from a file's first frame; repaired where its timestamps go back or miss."""
        due_s = 0.0 if self._offset_s is None else self._offset_s + self._interval_s
        if pts_s is None:
            self._offset_s = due_s
        elif self._first_pts_s is None:
            self._first_pts_s, self._offset_s = pts_s - due_s, due_s
        else:
            offset_s = pts_s - self._first_pts_s
            grown = self._offset_s is None or offset_s > self._offset_s
            self._offset_s = offset_s if grown else due_s
        return self._offset_s

    def _now_s(self) -> float:
        return self._clock.monotonic_nanos() * 1e-9


def _report(packet: av.Packet[VideoStream]) -> int | None:
    """UTC of a packet by the camera's sender reports, ns since 1970."""
    if not packet.has_sidedata("prft"):
        return None
    micros, _flags = _PRFT.unpack_from(bytes(packet.get_sidedata("prft")))
    return int(micros) * 1000


def _created(tag: str | None) -> int | None:
    """A container's creation_time (ISO 8601), ns since 1970; None: absent, unset or no time."""
    try:
        created = datetime.fromisoformat(tag or "")
    except ValueError:
        return None
    if created.tzinfo is None:
        created = created.replace(tzinfo=UTC)
    # recorders without a clock write 1970 or 1904; what is far ahead does not fit the wire
    return round(created.timestamp()) * 10**9 if 1990 < created.year < 2200 else None


def _length_s(container: InputContainer, stream: VideoStream) -> float | None:
    """How long the video is by the file's own account; None: it gives none."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base
    return None  # the whole file's length may be that of its sound


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height as a person sees it: telephones record turned pictures."""
    turned = frame.rotation % 180 == 90
    return (frame.height, frame.width) if turned else (frame.width, frame.height)


def _bgr(frame: av.VideoFrame) -> Image:
    image: Image = frame.to_ndarray(format="bgr24")  # type: ignore[assignment]  # 8 bits
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image
