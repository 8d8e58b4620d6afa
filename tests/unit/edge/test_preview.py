"""The preview page: a one-time token, boxes drawn, nothing for strangers; in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from edge.preview import COOKIE, Preview, annotate, colour_of
from edge.types import CaptureTime, Frame, TimeSource, TrackedBox, TrackStep
from reid.web import WebServer
from tests.conftest import skip_or_fail

STEP = TrackStep((TrackedBox(7, np.array([40, 30, 80, 150], np.float32), 0.9, True),))


def frame(camera: str = "gate") -> Frame:
    image = np.full((240, 320, 3), 90, np.uint8)
    return Frame(camera, 0, image, CaptureTime(1, 1, TimeSource.FILE, 0.0))


@pytest.fixture
def served() -> Iterator[tuple[Preview, WebServer]]:
    preview = Preview(["gate", "<b>yard</b>"])
    server = WebServer("127.0.0.1:0", preview.routes(), what="preview")
    server.start()
    yield preview, server
    server.stop()


def client(server: WebServer) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", follow_redirects=True, trust_env=False
    )


def test_the_link_opens_the_page_once_and_then_is_dead(
    served: tuple[Preview, WebServer],
) -> None:
    preview, server = served
    link = preview.link(server.port)

    with client(server) as first, client(server) as second:
        opened = first.get(link)
        again = first.get("/")
        stranger = second.get(link)

    assert (opened.status_code, again.status_code, stranger.status_code) == (200, 200, 403)
    assert "token" not in str(opened.url)
    assert "&lt;b&gt;yard" in opened.text


def test_pictures_are_refused_without_the_cookie(served: tuple[Preview, WebServer]) -> None:
    preview, server = served

    with client(server) as stranger:
        stranger.cookies.set(COOKIE, "guessed")
        guessed = stranger.get("/camera/0.jpg")
        odd = stranger.get("/?token=%C3%A9")

    assert (guessed.status_code, odd.status_code) == (403, 403)
    assert not preview.wanted


def test_a_picture_shows_the_boxes(served: tuple[Preview, WebServer]) -> None:
    preview, server = served

    with client(server) as person:
        person.get(preview.link(server.port))
        preview.show(frame(), STEP)
        answer = person.get("/camera/0.jpg")
        nothing_yet = person.get("/camera/1.jpg")
        unknown = person.get("/camera/9.jpg")

    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    edge_pixel = picture[90, 40].astype(int)
    assert np.abs(edge_pixel - np.array(colour_of(7))).max() < 60
    assert (nothing_yet.status_code, unknown.status_code) == (204, 404)


def test_nothing_is_kept_while_nobody_looks() -> None:
    preview = Preview(["gate"])

    preview.show(frame(), STEP)

    assert not preview.wanted
    assert preview._newest == {}


def test_wide_pictures_are_made_smaller_and_the_frame_stays_untouched() -> None:
    image = np.zeros((1080, 1920, 3), np.uint8)

    drawn = annotate(image, STEP)

    assert drawn.shape == (540, 960, 3)
    assert not image.any()


def test_the_page_works_in_a_browser(served: tuple[Preview, WebServer], tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        skip_or_fail("chromium is not installed")
    assert chromium is not None
    preview, server = served
    preview._asked_s = float("inf")  # somebody looks for as long as the browser starts
    preview.show(frame(), STEP)
    shot, profile = tmp_path / "page.png", tmp_path / "profile"

    subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={profile}", f"--screenshot={shot}"),
            *("--window-size=900,640", "--virtual-time-budget=3000", preview.link(server.port)),
        ],
        check=True,
        capture_output=True,
        timeout=90,
    )

    picture = cv2.imread(str(shot))
    assert picture is not None
    near = np.abs(picture.astype(int) - np.array(colour_of(7))).max(axis=2) < 40
    assert near.sum() > 200, "the tracklet's box is on the page"
