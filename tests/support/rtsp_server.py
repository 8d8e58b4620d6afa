"""A real RTSP server that plays clips as endless cameras; for tests and for `make image`.

Run with the system's Python, since GStreamer's bindings are not in a virtual environment:

    /usr/bin/python3 tests/support/rtsp_server.py --mount /main=clip.mp4 [--port 8554]

Clips are MP4 or MKV files with H.264, H.265 or motion JPEG without B-frames. `FILE+FILE` plays one
after the other, as a camera whose picture changes its size. Prints `READY PORT` once clients can
come.
Debian: gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-{base,good,bad}.
"""

from __future__ import annotations

import argparse
import itertools
import signal

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstApp, GstRtsp, GstRtspServer  # noqa: E402, F401

# by the demuxer's name of the codec: what cuts the stream into pictures, and what sends them
CODECS = {
    "video/x-h264": (
        "h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au",
        "h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96",
    ),
    "video/x-h265": (
        "h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au",
        "h265parse config-interval=-1 ! rtph265pay name=pay0 pt=96",
    ),
    "image/jpeg": ("jpegparse", "rtpjpegpay name=pay0 pt=26"),
}


class Clip:
    """The pictures of one clip as they were encoded, in memory."""

    def __init__(self, path: str) -> None:
        codec = _codec(path)
        parser, self.payloader = CODECS[codec]
        pipeline = _playing(f"{_demuxed(path)} ! {parser} ! appsink name=out sync=false")
        sink = pipeline.get_by_name("out")
        self.units: list[bytes] = []
        self.caps = None
        while (sample := sink.try_pull_sample(10 * Gst.SECOND)) is not None:
            self.caps = sample.get_caps()
            buffer = sample.get_buffer()
            self.units.append(buffer.extract_dup(0, buffer.get_size()))
        pipeline.set_state(Gst.State.NULL)
        if not self.units:
            raise SystemExit(f"{path} holds no {codec} that can be read")
        found, numerator, denominator = self.caps.get_structure(0).get_fraction("framerate")
        self.interval = Gst.SECOND * denominator // numerator if found and numerator else 40_000_000

    def then(self, other: Clip) -> None:
        """Play another clip after this one."""
        if other.payloader != self.payloader:
            raise SystemExit("clips that follow each other have one codec")
        self.units += other.units


def _demuxed(path: str) -> str:
    demuxer = "matroskademux" if path.endswith(".mkv") else "qtdemux"
    return f'filesrc location="{path}" ! {demuxer}'


def _playing(launch: str):
    pipeline = Gst.parse_launch(launch)
    pipeline.set_state(Gst.State.PLAYING)
    return pipeline


def _codec(path: str) -> str:
    """What the demuxer calls the clip's codec."""
    pipeline = _playing(f"{_demuxed(path)} ! appsink name=out sync=false")
    sample = pipeline.get_by_name("out").try_pull_sample(10 * Gst.SECOND)
    pipeline.set_state(Gst.State.NULL)
    found = sample.get_caps().get_structure(0).get_name() if sample else "no video"
    if found not in CODECS:
        raise SystemExit(f"{path} holds {found}, not one of {', '.join(CODECS)}")
    return found


class Player:
    """Pushes the units of a clip into one media, over and over, with growing timestamps."""

    def __init__(self, clip: Clip, source) -> None:
        self._clip = clip
        self._count = itertools.count()
        source.set_property("caps", clip.caps)
        source.connect("need-data", self._push)

    def _push(self, source, _wanted: int) -> None:
        number = next(self._count)
        buffer = Gst.Buffer.new_wrapped(self._clip.units[number % len(self._clip.units)])
        buffer.pts = buffer.dts = number * self._clip.interval
        buffer.duration = self._clip.interval
        source.emit("push-buffer", buffer)


def mount(server, path: str, clip: Clip) -> None:
    """Serve one clip as a camera that all clients share."""
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( appsrc name=src is-live=true format=time ! {clip.payloader} )")
    factory.set_shared(True)
    # kept here, since the bindings would forget a Player that nobody holds
    players = []

    def configure(_factory, media) -> None:
        players.append(Player(clip, media.get_element().get_by_name_recurse_up("src")))

    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory(path, factory)


def protect(server, user: str, password: str, method: str) -> None:
    """Ask every client for this user and password."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if method == "basic":
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    server.set_auth(auth)


def permit(server, paths: list[str]) -> None:
    """Let the known user construct and see each path."""
    for path in paths:
        factory = server.get_mount_points().match(path)[0]
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)


def main() -> None:
    parser = argparse.ArgumentParser(description="Play clips as endless RTSP cameras.")
    parser.add_argument("--mount", action="append", required=True, metavar="/PATH=FILE")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="0", help="0: a free one, printed")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--auth", choices=["basic", "digest"], default="digest")
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="end when standard input closes: a test that dies leaves no server behind",
    )
    arguments = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(arguments.host)
    server.set_service(arguments.port)
    clips: dict[str, Clip] = {}
    paths = []
    for entry in arguments.mount:
        path, _, file = entry.partition("=")
        if file not in clips:
            first, *others = file.split("+")
            clips[file] = Clip(first)
            for other in others:
                clips[file].then(Clip(other))
        mount(server, path, clips[file])
        paths.append(path)
    if arguments.user:
        protect(server, arguments.user, arguments.password or "", arguments.auth)
        permit(server, paths)
    if not server.attach(None):
        raise SystemExit(f"port {arguments.port} of {arguments.host} cannot be used")
    print("READY", server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    if arguments.exit_with_parent:
        GLib.io_add_watch(0, GLib.IO_HUP | GLib.IO_IN, lambda *_: loop.quit())
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, loop.quit)
    loop.run()


if __name__ == "__main__":
    main()
