"""The server's configuration: one frozen model per concern, read once, checked once.

Promise: text becomes types here and nowhere else; unknown keys are refused; units end the names.
Flags beat environment (`EDGE_MATCH_...`) beat file beat defaults; `matcher.settings` joins those.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matcher.records import Room
from reid.limits import CAMERAS, WINDOW_SIGHTINGS

LONGEST_S = 3.2e9  # a century: longer does not fit into nanoseconds of 64 bits
Seconds = Annotated[float, Field(gt=0.0, le=LONGEST_S)]
DAY_S = 86400.0


def default_data_dir() -> Path:
    """The XDG state folder of this user, or EDGE_MATCH_DATA_DIR (the image sets it)."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(os.environ.get("EDGE_MATCH_DATA_DIR") or Path(state) / "edge-match")


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsConfig(Section):
    """Certificates of the server; all three or none (then DATA_DIR/tls, where it exists)."""

    ca: Path | None = Field(None, description="Who signs the certificates of boxes and readers.")
    cert: Path | None = Field(None, description="The server's certificate.")
    key: Path | None = Field(None, description="Its private key.")
    insecure: bool = Field(False, description="Plain beyond loopback; warns at every start.")

    @model_validator(mode="after")
    def _together(self) -> TlsConfig:
        given = [name for name in ("ca", "cert", "key") if getattr(self, name) is not None]
        if 0 < len(given) < 3:
            raise ValueError(f"ca, cert and key are given together; only {', '.join(given)} is")
        return self


class LimitsConfig(Section):
    """What one box may do; beyond it the box is slowed or refused, and others do not notice."""

    window_sightings: Annotated[int, Field(ge=64, le=65536)] = Field(
        WINDOW_SIGHTINGS,
        description="Sightings in flight per box; raising it costs memory, helps on slow links.",
    )
    sightings_per_s: Annotated[float, Field(ge=0)] = Field(
        2000.0,
        description="Mean over a minute per box; 0: no limit. Live boxes make 1 to 50; the rest "
        "is room to catch up after an outage.",
    )
    cameras: Annotated[int, Field(ge=1, le=CAMERAS)] = Field(
        CAMERAS, description="Most cameras of a box."
    )
    writers: Annotated[int, Field(ge=16)] = Field(
        16384,
        description="Most starts of a box that are remembered; raising it lets a box start more "
        "often within the retention, and costs memory.",
    )
    ranges: Annotated[int, Field(ge=4096)] = Field(
        1 << 18,
        description="Most ranges of keys of a box, received and skipped; raising it lets a box "
        "whose cap drops every other sighting go on for longer, and costs memory.",
    )

    @property
    def room(self) -> Room:
        """What a box may take of the ledger's memory."""
        return Room(self.writers, self.ranges)

    @model_validator(mode="after")
    def _rate_is_workable(self) -> LimitsConfig:
        if 0 < self.sightings_per_s < 16:
            raise ValueError(
                f"sightings_per_s {self.sightings_per_s} is below 16: heartbeats would wait behind "
                "batches until the stream is taken for dead"
            )
        return self


class RetentionConfig(Section):
    """How long things are kept."""

    ledger_s: Seconds = Field(30 * DAY_S, description="Age at which sightings are deleted.")
    identity_s: Seconds = Field(
        DAY_S,
        description="Life of an identity after it was last seen: OSNet follows clothing, and "
        "clothing changes overnight.",
    )
    sweep_s: Seconds = Field(600.0, description="How often old rows are looked for.")


class AssociationConfig(Section):
    """How tracklets become identities."""

    thresholds: dict[str, Annotated[float, Field(gt=-1, lt=1)]] = Field(
        default_factory=dict,
        description="Cosine similarity at which two tracklets are one person, by space_id; raising "
        "it makes fewer wrong joins and more identities.",
    )
    default_threshold: Annotated[float, Field(gt=-1, lt=1)] = Field(
        0.80,
        description="For other spaces. 0.80 was measured for OSNet x0.25 trained on "
        "MSMT17 (docs/matcher.md): unrelated people already have 0.52 ± 0.10.",
    )
    window_s: Seconds = Field(
        DAY_S, description="How far back a tracklet may be joined; at most retention.identity_s."
    )
    uncertain_time_ms: Annotated[float, Field(ge=0)] = Field(
        2000.0,
        description="Times less certain than this are not used to forbid a join by overlap.",
    )


class MatcherConfig(Section):
    """Everything `edge-match serve` runs with."""

    listen: tuple[str, ...] = Field(
        ("127.0.0.1:7443",), min_length=1, description="HOST:PORT; several are one server."
    )
    data_dir: Path = Field(default_factory=default_data_dir)
    metrics: str = Field(
        "127.0.0.1:9465", description="HOST:PORT of /metrics, /healthz, /readyz; empty: off."
    )
    log: Literal["text", "json"] = Field("text", description="Form of the log on stderr.")
    shutdown_s: Seconds = Field(10.0, description="Longest time to drain after SIGTERM.")
    retry_after_s: Seconds = Field(2.0, description="What boxes are told to wait at shutdown.")
    lock_wait_s: Annotated[float, Field(ge=0, le=LONGEST_S)] = Field(
        10.0, description="How long to wait for a draining predecessor on the same folder."
    )
    maps: Path | None = Field(
        None,
        description="Folder of site maps (edge-models adapt --embeddings); unset: vectors are "
        "compared as they come.",
    )
    tls: TlsConfig = TlsConfig()
    limits: LimitsConfig = LimitsConfig()
    retention: RetentionConfig = RetentionConfig()
    association: AssociationConfig = AssociationConfig()

    @model_validator(mode="after")
    def _addresses_have_ports(self) -> MatcherConfig:
        for address in self.listen:
            host, colon, port = address.rpartition(":")
            if not (host and colon and port.isdigit() and int(port) <= 65535):
                raise ValueError(f"listen: {address!r} is not HOST:PORT, such as 127.0.0.1:7443")
        return self
