"""Addresses: told apart, named, and never written with their credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.config import SourceConfig
from edge.sources.base import SourceError, SourceUnreachableError
from edge.sources.urls import SourceKind, camera_name, name_cameras, parse, read_argument
from reid.logs import mask_address


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("clip.mp4", SourceKind.FILE, "clip.mp4"),
        ("/videos/a:b.avi", SourceKind.FILE, "/videos/a:b.avi"),
        ("file:///videos/a%20b.avi", SourceKind.FILE, "/videos/a b.avi"),
        ("rtsp://cam/main", SourceKind.RTSP, "rtsp://cam/main"),
        ("RTSPS://cam/main", SourceKind.RTSP, "RTSPS://cam/main"),
        ("http://cam/mjpg", SourceKind.HTTP, "http://cam/mjpg"),
        ("v4l2:/dev/video0?size=640x480", SourceKind.V4L2, "/dev/video0"),
        ("folder:pictures?fps=5", SourceKind.FOLDER, "pictures"),
        ("synth://street?people=8", SourceKind.SYNTH, "synth://street?people=8"),
    ],
)
def test_an_address_is_told_by_its_scheme(text: str, kind: SourceKind, target: str) -> None:
    address = parse(text)

    assert (address.kind, address.target) == (kind, target)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("ftp://user:hunter2@host/x", "unknown kind of source 'ftp'"),
        ("rtsp:///main", "host or port"),
        ("rtsp://host:port/main", "host or port"),
        ("rtsp://u:hun/ter2@host/main", "percent-encode"),
        ("rtsp://u:hun#ter2@host/main", "percent-encode"),
        ("folder:", "names no path"),
        ("v4l2:/dev/video0?size", "?name=value"),
    ],
)
def test_what_cannot_be_an_address_is_refused_with_what_is_accepted(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)

    assert says in str(caught.value)
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://10.0.0.7/main", "rtsp://10.0.0.7/main"),
        ("rtsp://admin:secret@10.0.0.7/main", "rtsp://***@10.0.0.7/main"),
        ("rtsp://admin@10.0.0.7/main", "rtsp://***@10.0.0.7/main"),
        ("rtsp://admin:s@e/c?r#t@10.0.0.7/main", "rtsp://***@10.0.0.7/main"),
        ("http://c/v?user=a&pwd=b&channel=1", "http://c/v?user=***&pwd=***&channel=1"),
        ("http://c/v?loginuse=a&loginpas=b", "http://c/v?loginuse=***&loginpas=***"),
        ("http://c/v?access_token=abc", "http://c/v?access_token=***"),
        ("clip@home.mp4", "clip@home.mp4"),
        (" rtsp://admin:secret@10.0.0.7/main", " rtsp://***@10.0.0.7/main"),
        ("\ufeffrtsp://admin:secret@10.0.0.7/main", "\ufeffrtsp://***@10.0.0.7/main"),
    ],
)
def test_masked_addresses_keep_what_helps_and_lose_what_is_secret(text: str, masked: str) -> None:
    assert mask_address(text) == masked


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20, alphabet=st.characters(codec="utf-8")))
def test_no_password_survives_masking_however_it_is_written(password: str) -> None:
    secret = f"XX{password}XX"

    masked = mask_address(f"rtsp://admin:{secret}@10.0.0.7/main")

    assert "XX" not in masked
    assert "admin" not in masked


def test_an_error_of_a_source_holds_no_password() -> None:
    error: SourceError = SourceUnreachableError("rtsp://a:hunter2@cam/x?token=t0ken", "refused")

    assert "rtsp://***@cam/x?token=***: refused; check" in str(error)
    assert "hunter2" not in repr(error)
    assert "t0ken" not in repr(error)


def test_a_source_that_fails_validation_does_not_show_its_password() -> None:
    with pytest.raises(ValidationError) as caught:
        SourceConfig.model_validate(
            {"name": "gate", "url": "rtsp://a:hunter2@cam/x", "transport": "smoke"}
        )

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(SourceConfig(name="gate", url="rtsp://a:hunter2@cam/x"))


def test_a_password_in_an_address_is_noticed() -> None:
    assert parse("rtsp://a:b@cam/x").has_password
    assert parse("http://cam/video.cgi?user=admin&pwd=secret").has_password
    assert not parse("http://cam/video.cgi?user=admin&subtype=0").has_password
    assert not parse("rtsp://cam/x").has_password


def test_an_at_sign_reads_the_address_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "gate.url"
    file.write_text("rtsp://a:b@cam/x\n# the second line is not read\n")

    assert read_argument(f"@{file}") == "rtsp://a:b@cam/x"
    assert read_argument("rtsp://cam/x") == "rtsp://cam/x"


@pytest.mark.parametrize(
    "written",
    [b"\xef\xbb\xbfrtsp://a:b@cam/x\r\n", b"\n# the gate's camera\n  rtsp://a:b@cam/x  \n"],
)
def test_what_editors_and_people_put_before_an_address_is_not_taken_for_one(
    tmp_path: Path, written: bytes
) -> None:
    file = tmp_path / "gate.url"
    file.write_bytes(written)

    assert read_argument(f"@{file}") == "rtsp://a:b@cam/x"


def test_a_missing_or_empty_address_file_says_which(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()

    with pytest.raises(ValueError, match=r"nowhere cannot be read: No such file"):
        read_argument(f"@{tmp_path}/nowhere")
    with pytest.raises(ValueError, match="is empty; write"):
        read_argument(f"@{empty}")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("rtsp://admin:secret@10.0.0.7:8554/stream/main?x=1", "10.0.0.7-stream-main"),
        ("http://[::1]/video", "1-video"),
        ("/data/Lobby north.mp4", "Lobby-north"),
        ("v4l2:/dev/video0?size=640x480", "video0"),
        ("folder:/data/frames/", "frames"),
        ("synth://street?people=8", "street"),
        ("видео.mp4", "camera"),
    ],
)
def test_cameras_are_named_after_host_and_path(address: str, name: str) -> None:
    assert camera_name(address) == name
    assert SourceConfig(name=name, url=address).name == name


def test_two_cameras_of_one_name_are_numbered() -> None:
    names = name_cameras(["a/hall.mp4", "b/hall.mp4", "c/hall.mp4"], taken=["hall-2"])

    assert names == ["hall", "hall-3", "hall-4"]
    assert all(len(name) <= 64 for name in name_cameras(["x" * 90, "x" * 90]))
