"""The sample clip: verified, bounded in time, and never an exception."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge.sources.sample import NAME, SHA256, fetch_sample

CLIP = bytes(range(256)) * 800  # stands for the clip; the checksum is handed in
SUM = hashlib.sha256(CLIP).hexdigest()


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """A server on loopback: whole, wrong, truncated, slow, missing."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if kind == "missing":
                self.send_error(404)
                return
            body = CLIP[::-1] if kind == "wrong" else CLIP
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if kind == "truncated":
                self.wfile.write(body[: len(body) // 2])
                return
            if kind == "slow":  # a byte now and then: no single read times out
                for k in range(len(body)):
                    if over.wait(0.2):
                        return
                    try:
                        self.wfile.write(body[k : k + 1])
                    except OSError:  # the reader was killed: what the test waits for
                        return
                return
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{NAME}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(folder: Path, *addresses: str, timeout_s: float = 20.0) -> tuple[Path | None, str]:
    said: list[str] = []
    clip = fetch_sample(
        folder,
        said.append,
        addresses=addresses,
        package=None,
        sha256=SUM,
        timeout_s=timeout_s,
    )
    return clip, "\n".join(said)


def test_a_whole_clip_is_kept_and_taken_from_the_cache_next_time(tmp_path: Path) -> None:
    with serving("whole") as address:
        first, _ = fetch(tmp_path, address)

    second, said = fetch(tmp_path)

    assert first == second == tmp_path / NAME
    assert first.read_bytes() == CLIP
    assert said == ""
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]


def test_a_truncated_answer_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with serving("truncated") as address:
        clip, said = fetch(tmp_path, address)

    assert clip is None
    assert "cut off after 102400 bytes" in said
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused_by_its_checksum(tmp_path: Path) -> None:
    with serving("wrong") as address:
        clip, said = fetch(tmp_path, address)

    assert clip is None
    assert "another checksum" in said


def test_the_next_mirror_is_asked_where_the_first_has_nothing(tmp_path: Path) -> None:
    with serving("missing") as empty, serving("whole") as full:
        clip, said = fetch(tmp_path, empty, full)

    assert clip is not None
    assert "Not Found" in said


def test_a_server_that_drips_is_given_up_in_time(tmp_path: Path) -> None:
    with serving("slow") as address:
        began = time.monotonic()
        clip, said = fetch(tmp_path, address, timeout_s=1.5)
        took_s = time.monotonic() - began

    assert clip is None
    assert "gave up" in said
    assert took_s < 10  # 200,000 bytes at five a second would take half a day


def test_nobody_at_the_address_is_said_and_no_exception(tmp_path: Path) -> None:
    with serving("whole") as address:
        gone = address

    clip, said = fetch(tmp_path, gone)

    assert clip is None
    assert "refused" in said


def test_a_damaged_clip_in_the_cache_is_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"half a clip")

    with serving("whole") as address:
        clip, _ = fetch(tmp_path, address)

    assert clip is not None
    assert clip.read_bytes() == CLIP


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    clip, said = fetch(blocked / "cache")

    assert clip is None
    assert "cannot be kept" in said


@pytest.mark.shared
def test_the_checksum_is_that_of_the_clip_we_measure_with(shared_dir: Path) -> None:
    clip = shared_dir / "data" / "pets2009_s2l1" / "vtest.avi"

    assert hashlib.sha256(clip.read_bytes()).hexdigest() == SHA256
