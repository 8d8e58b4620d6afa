"""The box's configuration: one frozen model per concern, read once, checked once.

Promise: text becomes types here and nowhere else; unknown keys are refused; units end the names.
Flags beat environment (`EDGE_...`) beat file beat defaults; `edge.settings` joins those four.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Polygon = tuple[tuple[float, float], ...]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
LONGEST_S = 3.2e9  # a century: longer does not fit into nanoseconds of 64 bits
Seconds = Annotated[float, Field(gt=0.0, le=LONGEST_S)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    # An address may hold a password, which an error's text must not repeat.
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="constants", hide_input_in_errors=True
    )


class GateConfig(Section):
    """Where and when a camera is looked at: motion gate, zones, masks."""

    motion: bool = Field(
        True, description="Detect only while something moves or a tracklet lives; saves processor."
    )
    motion_min_area: Fraction = Field(
        0.0005,
        description="Share of the frame that must change; raising it ignores more.",
    )
    motion_hold_s: Seconds = Field(
        3.0, description="How long detection goes on after the last motion; raising it costs work."
    )
    zones: tuple[Polygon, ...] = Field(
        (), description="People whose feet are inside one of these polygons (0..1 of the frame)."
    )
    masks: tuple[Polygon, ...] = Field(
        (), description="Polygons (0..1 of the frame) that are painted out before detection."
    )

    @model_validator(mode="after")
    def _polygons_are_areas(self) -> GateConfig:
        for name, polygons in (("zones", self.zones), ("masks", self.masks)):
            for polygon in polygons:
                if len(polygon) < 3:
                    raise ValueError(f"{name}: a polygon needs 3 points or more, got {polygon}")
                if any(not 0.0 <= value <= 1.0 for point in polygon for value in point):
                    raise ValueError(f"{name}: points are shares of the frame, 0..1; got {polygon}")
        return self


class SourceConfig(Section):
    """One camera."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")
    url: str = Field(
        min_length=1,
        repr=False,
        description="file, rtsp://, http://, v4l2:/dev/video0, folder:PATH, synth://",
    )
    transport: Literal["tcp", "udp"] = Field(
        "tcp", description="How RTSP media travel; udp has less delay and loses packets."
    )
    live: bool | None = Field(
        None,
        description="http(s) only: a camera (true) or a file that ends (false). Unset: a file "
        "where the path ends like one (.mp4, .mkv, ...).",
    )
    open_timeout_s: Seconds = Field(5.0, description="Raising it waits longer for slow cameras.")
    frame_timeout_s: Seconds = Field(
        4.0, description="No frame for so long is a fault of a live source: it is opened anew."
    )
    retry_min_s: Seconds = Field(0.5, description="First wait before a reconnect.")
    retry_max_s: Seconds = Field(4.0, description="Longest wait between reconnects.")
    start_time: AwareDatetime | None = Field(
        None, description="Capture time of a file's first frame, with its offset from UTC."
    )
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _start_time_fits_the_wire(self) -> SourceConfig:
        if self.start_time is not None and not 1970 <= self.start_time.year < 2200:
            raise ValueError(
                f"start_time {self.start_time:%Y-%m-%d}: give a year from 1970 to 2199"
            )
        return self

    @model_validator(mode="after")
    def _retry_grows(self) -> SourceConfig:
        if self.retry_min_s > self.retry_max_s:
            raise ValueError(
                f"retry_min_s {self.retry_min_s} is above retry_max_s {self.retry_max_s}"
            )
        return self


class RuntimeConfig(Section):
    """How ONNX models run."""

    threads: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Threads of a session; 0: as many as the processor quota allows, at most 4."
    )
    spin: bool = Field(
        False, description="Idle threads of a session burn a core to wake faster; leave it off."
    )
    backend: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto", description="auto times what is admitted at first start and keeps the fastest."
    )
    watch_s: Seconds = Field(
        2.0, description="How often the models folder is looked at; raising it swaps later."
    )


class DetectConfig(Section):
    """Which detector, and what counts as a person."""

    model: str = Field("default", description="Name of a card in the models folder, or a file.")
    family: str | None = Field(None, description="Output layout; only where it cannot be read.")
    low_confidence: Fraction = Field(0.1, description="Below it nothing is even a weak detection.")
    nms_iou: Fraction | None = Field(None, description="Unset: what suits the model's family.")


class TrackConfig(Section):
    """Following people inside one camera."""

    high_confidence: Fraction = Field(0.6, description="Detections that may start a tracklet.")
    low_confidence: Fraction = Field(0.1, description="Detections that may continue one.")
    confirm_s: Seconds = Field(0.3, description="A tracklet younger than this is not reported.")
    confirm_hits: Annotated[int, Field(ge=1)] = Field(3, description="Nor one with fewer hits.")
    end_s: Seconds = Field(2.0, description="A tracklet without a hit for so long has ended.")
    relink: bool = Field(True, description="Appearance may join a lost tracklet and a new one.")


class ShotConfig(Section):
    """Which crops are worth an embedding."""

    min_height_px: Annotated[int, Field(ge=8)] = Field(40, description="Smaller: not embedded.")
    max_occluded: Fraction = Field(0.6, description="More covered by another box: not embedded.")
    interval_s: Seconds = Field(1.0, description="At most one embedding per tracklet in this time.")
    good_shots: Annotated[int, Field(ge=1, le=4)] = Field(4, description="Then only better crops.")
    budget_per_s: Annotated[float, Field(gt=0)] = Field(
        40.0, description="Crops per second that the whole box may embed."
    )


class EmbedConfig(Section):
    """Which embedder."""

    model: str = Field("default", description="Name of a card in the models folder, or a file.")
    max_batch: Annotated[int, Field(ge=1, le=64)] = Field(8, description="Crops in one run.")
    overlap_s: Annotated[float, Field(ge=0.0, le=LONGEST_S)] = Field(
        86400.0,
        description="How long the old embedder runs beside one of another space, so that "
        "identities bridge; raising it costs crops, 0 ends the old one at once.",
    )


class SpoolConfig(Section):
    """The durable queue on the box."""

    max_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        1 << 30, description="Database and WAL together; above it the stated eviction begins."
    )
    acked_keep_s: Seconds = Field(86400.0, description="How long acked rows are kept for a refill.")
    unacked_keep_s: Seconds | None = Field(None, description="Unset: unacked rows have no age cap.")
    ballast_bytes: Annotated[int, Field(ge=0)] = Field(8 << 20, description="Freed on a full disk.")
    group_s: Seconds = Field(0.05, description="Longest wait before a group of rows is committed.")
    queue_rows: Annotated[int, Field(ge=1)] = Field(512, description="Rows waiting for the writer.")
    key_file: Path | None = Field(None, description="A key here encrypts the spool at rest.")


class TlsConfig(Section):
    """Who we are and whom we believe."""

    ca: Path | None = Field(None, description="Certificate of whom we believe, PEM.")
    cert: Path | None = Field(None, description="Our certificate, PEM.")
    key: Path | None = Field(None, description="Our private key, PEM.")
    insecure: bool = Field(False, description="Plain text beyond loopback; warned at every start.")


class UplinkConfig(Section):
    """The stream to the matcher."""

    matchers: tuple[str, ...] = Field(("127.0.0.1:7443",), description="Addresses of one ledger.")
    tls: TlsConfig = TlsConfig()
    batch_sightings: Annotated[int, Field(ge=1, le=64)] = Field(
        64, description="Most sightings in a message."
    )
    batch_age_s: Seconds = Field(0.064, description="Longest wait of a live sighting for company.")
    heartbeat_s: Seconds = Field(5.0, description="How often the matcher hears that we live.")
    dead_after_s: Seconds = Field(20.0, description="No message for so long: a new channel.")
    connect_timeout_s: Seconds = Field(
        10.0, description="Longest wait for the matcher's Welcome; raising it suits slow links."
    )
    ack_timeout_s: Seconds = Field(
        60.0, description="Sightings in flight without any ack for so long: a new channel."
    )
    stream_age_s: Seconds = Field(
        3600.0, description="A stream is renewed after so long, so that names resolve afresh."
    )
    retry_min_s: Seconds = Field(0.5, description="First wait before a new stream.")
    retry_max_s: Seconds = Field(30.0, description="Longest wait before a new stream.")
    refused_retry_s: Seconds = Field(60.0, description="Wait after the matcher refused us.")
    encoding: Literal["float16", "float32", "int8"] = Field(
        "float16", description="How embeddings travel: 2, 4 or 1 byte a number."
    )
    accept_ledger: bool = Field(False, description="Refill a ledger of another id than last time.")

    @model_validator(mode="after")
    def _addresses_have_ports(self) -> UplinkConfig:
        for address in self.matchers:
            host, colon, port = address.rpartition(":")
            if not (host and colon and port.isdigit() and int(port) <= 65535):
                raise ValueError(f"{address!r} is not HOST:PORT, such as center.example:7443")
        return self


class CollectConfig(Section):
    """Crops of people kept on this box for adapting a model; off unless a folder is given."""

    folder: Path | None = Field(None, description="Where crops are kept. Unset: none are.")
    max_hours: Annotated[float, Field(gt=0)] = Field(
        24.0, description="Collecting ends after so long, all runs with the folder together."
    )
    max_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        1 << 30, description="No crop is written while so much is in the folder."
    )
    keep_hours: Annotated[float, Field(gt=0)] = Field(
        168.0, description="Older crops are deleted while the box runs with this folder."
    )


class StatusConfig(Section):
    """What the box shows."""

    metrics: str | None = Field("127.0.0.1:9464", description="Address of metrics and health.")
    preview: str | None = Field(None, description="Address of the preview page; off unless given.")
    log: Literal["text", "json"] = Field("text", description="Form of log lines.")
    summary: Literal["text", "json"] = Field("text", description="Form of the last words.")


class Config(Section):
    """Everything the box needs to run."""

    sources: tuple[SourceConfig, ...] = ()
    site: str = Field(
        "default",
        min_length=1,
        max_length=128,
        description="Boxes of one site see the same people.",
    )
    edge_id: str | None = Field(None, max_length=128, description="Unset: the host's name, kept.")
    new_edge_id: bool = Field(False, description="The data folder belongs to another box now.")
    data_dir: Path = Field(
        description="Spool, id, keys, chosen runtimes; --data-dir, or the XDG state folder."
    )
    models_dir: Path | None = Field(
        None, description="Models and cards, watched while running. Unset: the packaged ones."
    )
    fps: Annotated[float, Field(gt=0, le=120)] = Field(
        10.0, description="Analysed frames per second of a live camera; files: every frame."
    )
    shutdown_s: Seconds = Field(10.0, description="Longest drain after SIGTERM or Ctrl-C.")
    duration_s: Seconds | None = Field(None, description="End by itself after so long.")
    embedded: bool = Field(False, description="Start a matcher as a child; for a first look.")
    require_commercial: bool = Field(
        False, description="Refuse models whose card does not allow commercial use."
    )
    tracks: Path | None = Field(None, description="Write tracks in MOTChallenge format here.")
    detect: DetectConfig = DetectConfig()
    track: TrackConfig = TrackConfig()
    shots: ShotConfig = ShotConfig()
    embed: EmbedConfig = EmbedConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    spool: SpoolConfig = SpoolConfig()
    uplink: UplinkConfig = UplinkConfig()
    status: StatusConfig = StatusConfig()
    collect: CollectConfig = CollectConfig()

    @model_validator(mode="after")
    def _names_differ(self) -> Config:
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two cameras are called {name!r}; names must differ")
        if len(names) > 32:
            raise ValueError(f"{len(names)} cameras; a box takes at most 32")
        if self.track.low_confidence >= self.track.high_confidence:
            raise ValueError(
                f"track.low_confidence {self.track.low_confidence} is not below "
                f"track.high_confidence {self.track.high_confidence}"
            )
        return self
