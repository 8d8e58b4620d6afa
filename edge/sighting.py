"""Turns a tracklet into the Sighting that travels.

Promise: pure functions of what they are given; the message satisfies `reid.limits.check_sighting`.
The message is serialised once, here; nobody on the box parses it again.
Fails: `reid.codec.EmbeddingError` for an embedding that is not finite or has no length.
Threads: a `SightingBuilder` belongs to one thread (the one that makes tracklets).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge.delivery import NewSighting, SpaceUse
from edge.types import CaptureTime, Floats, Shot, TimeSource, Tracklet
from reid import limits
from reid.codec import EncodingName, encode
from reid.v1 import sighting_pb2 as pb

_SOURCES = {
    TimeSource.SENDER_REPORT: pb.TIME_SOURCE_SENDER_REPORT,
    TimeSource.ARRIVAL: pb.TIME_SOURCE_ARRIVAL,
    TimeSource.FILE: pb.TIME_SOURCE_FILE,
    TimeSource.GIVEN: pb.TIME_SOURCE_GIVEN,
}


def tracklet_id(writer_id: str, number: int) -> str:
    """The wire id of a tracklet: the process's writer and the tracklet's number in it."""
    return f"{writer_id}/{number}"


def sighting_from_tracklet(
    tracklet: Tracklet,
    *,
    site: str,
    edge_id: str,
    writer_id: str,
    revision: int,
    boot_id: str,
    encoding: EncodingName = "float16",
    variants: Mapping[str, str],
) -> pb.Sighting:
    """Describe a tracklet at one revision.

    Args:
        tracklet: as the tracker knows it now.
        site, edge_id: who we are, 1..128 bytes each.
        writer_id: the process's writer, 32 hexadecimal digits.
        revision: counts this tracklet's sightings, from 1.
        boot_id: the boot whose monotonic clock the capture times carry.
        encoding: how embeddings are written.
        variants: space_id -> variant_id of the running embedders, the main one first: the
            tracklet's similarity statistics belong to that one.
    Raises:
        reid.codec.EmbeddingError: an embedding is not finite or of length zero.
        KeyError: a shot carries a space that `variants` does not name.
    """
    message = pb.Sighting(
        site=site,
        edge_id=edge_id,
        camera=tracklet.camera,
        tracklet_id=tracklet_id(writer_id, tracklet.number),
        revision=revision,
        final=tracklet.final,
        first_seen=_time(tracklet.first_seen, boot_id),
        last_seen=_time(tracklet.last_seen, boot_id),
        shots=[
            _shot(shot, boot_id=boot_id, encoding=encoding, variants=variants)
            for shot in tracklet.shots[: limits.SHOTS]
            if shot.embeddings
        ],
        seen_with=[
            tracklet_id(writer_id, other)
            for other in sorted(tracklet.seen_with)[-limits.SEEN_WITH :]
        ],
        frame_width=tracklet.frame_width,
        frame_height=tracklet.frame_height,
    )
    start = tracklet.first_seen.monotonic_nanos
    for point in tracklet.path[: limits.PATH_POINTS]:
        message.path.add(
            offset_nanos=max(0, point.captured.monotonic_nanos - start),
            box=_box(point.box_normalised),
        )
    main = next(iter(variants), None)
    if main is not None and tracklet.embedding_count > 0:
        message.statistics.add(
            space_id=main,
            count=tracklet.embedding_count,
            similarity_mean=min(1.0, max(-1.0, tracklet.similarity_mean)),
            similarity_variance=max(0.0, tracklet.similarity_variance),
        )
    return message


def _time(captured: CaptureTime, boot_id: str) -> pb.CaptureTime:
    return pb.CaptureTime(
        unix_nanos=captured.unix_nanos,
        source=_SOURCES[captured.source],
        uncertainty_ms=captured.uncertainty_ms,
        monotonic_nanos=captured.monotonic_nanos,
        boot_id=boot_id,
    )


def _box(box: Floats) -> pb.Box:
    # Rounding in float32 may leave a corner a hair outside the frame; the contract does not.
    x1, y1, x2, y2 = (float(value) for value in np.clip(box, 0.0, 1.0))
    return pb.Box(x1=min(x1, x2), y1=min(y1, y2), x2=max(x1, x2), y2=max(y1, y2))


def _shot(
    shot: Shot, *, boot_id: str, encoding: EncodingName, variants: Mapping[str, str]
) -> pb.Shot:
    return pb.Shot(
        captured=_time(shot.captured, boot_id),
        box=_box(shot.box_normalised),
        quality=min(1.0, max(0.0, shot.quality)),
        detector_score=min(1.0, max(0.0, shot.detector_score)),
        embeddings=[
            encode(vector, space_id=space, variant_id=variants[space], encoding=encoding)
            for space, vector in shot.embeddings.items()
        ],
    )


class SightingBuilder:
    """Makes the sightings of one process: counts revisions, serialises once.

    Args:
        site, edge_id, writer_id, boot_id, encoding, variants: as `sighting_from_tracklet`.
    """

    def __init__(
        self,
        *,
        site: str,
        edge_id: str,
        writer_id: str,
        boot_id: str,
        encoding: EncodingName,
        variants: Mapping[str, str],
    ) -> None:
        self._site = site
        self._edge_id = edge_id
        self._writer_id = writer_id
        self._boot_id = boot_id
        self._encoding: EncodingName = encoding
        self._variants = dict(variants)
        # Tracklets that have not ended: number -> their last revision.
        self._revisions: dict[int, int] = {}

    def use(self, variants: Mapping[str, str]) -> None:
        """The embedders have changed; spaces of shots already taken stay known.

        Args:
            variants: space_id -> variant_id of those that run now, the main one first.
        """
        self._variants = {
            **variants,
            **{k: v for k, v in self._variants.items() if k not in variants},
        }

    def build(self, tracklet: Tracklet, *, triggered_monotonic_nanos: int = 0) -> NewSighting:
        """The next revision of this tracklet, ready for `Spool.put`.

        Args:
            tracklet: its state now.
            triggered_monotonic_nanos: the machine's monotonic clock when the frame that caused this
                was captured; 0: unknown. For latency figures only.
        """
        revision = self._revisions.get(tracklet.number, 0) + 1
        message = sighting_from_tracklet(
            tracklet,
            site=self._site,
            edge_id=self._edge_id,
            writer_id=self._writer_id,
            revision=revision,
            boot_id=self._boot_id,
            encoding=self._encoding,
            variants=self._variants,
        )
        if tracklet.final:
            self._revisions.pop(tracklet.number, None)
        else:
            self._revisions[tracklet.number] = revision
        dimensions = {
            space: len(vector)
            for shot in tracklet.shots
            for space, vector in shot.embeddings.items()
        }
        return NewSighting(
            payload=message.SerializeToString(),
            camera=tracklet.camera,
            tracklet=tracklet.number,
            revision=revision,
            final=tracklet.final,
            spaces=tuple(
                SpaceUse(space, dimension, self._variants[space])
                for space, dimension in sorted(dimensions.items())
            ),
            triggered_monotonic_nanos=triggered_monotonic_nanos,
        )
