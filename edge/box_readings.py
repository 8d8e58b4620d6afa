"""What the status says of the running parts, read from them when somebody asks.

Promise: nothing here changes a part; every reading is a copy. Any thread may call.
"""

from __future__ import annotations

from typing import Any

from edge.sources.reconnect import CameraThread
from edge.spool import Spool
from edge.status import DeliverySnapshot
from edge.uplink import Uplink


def read_camera(camera: CameraThread) -> dict[str, Any]:
    """State, counters and last error of one camera, as `BoxStatus.read_camera` wants them."""
    counters = camera.counters()
    error = camera.last_error
    return {
        "state": camera.state.value,
        "error": str(error) if error is not None else None,
        "frames_in": counters.frames_in,
        "frames_dropped": counters.frames_dropped,
        "corrupt": counters.corrupt,
        "reconnects": counters.reconnects,
        "bytes_video_in": counters.bytes_video_in,
        "last_frame_age_s": camera.last_frame_age_s,
    }


def read_delivery(spool: Spool, uplink: Uplink) -> DeliverySnapshot:
    """What was committed, acked, skipped and waits, and how the stream stands."""
    stored, stream = spool.counters(), uplink.status()
    return DeliverySnapshot(
        committed=stored.committed,
        acked=stored.acked,
        superseded=stored.superseded,
        skipped=dict(stored.skipped),
        told=stream.told_skipped,
        lost_before_spool=stored.lost_before_spool,
        waiting=stored.backlog,
        waiting_bytes=stored.backlog_bytes,
        spool_bytes=stored.bytes,
        lag_s=stored.lag_s,
        connected=stream.connected,
        address=stream.address,
        problem=stream.refused or stream.last_error or None,
        refused=bool(stream.refused),
        wire_out=stream.bytes_out,
        dead_letters=stored.dead_letters,
    )
