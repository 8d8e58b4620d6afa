"""Mirrors on loopback that behave as a test wants, pulls from them, a catalogue of one entry."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from pathlib import Path

from models.catalogue import Entry, pull
from reid import toml


class Mirror(http.server.ThreadingHTTPServer):
    """A mirror on loopback that behaves as a test wants; remembers what it was asked."""

    daemon_threads = True

    def __init__(self, behave: Callable[[Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.ranges: list[str | None] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        self.server.behave(self)

    def log_message(self, *_: object) -> None:
        """Tests print enough."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


Start = Callable[[Callable[[Handler], None]], Mirror]


def whole(content: bytes) -> Callable[[Handler], None]:
    """A proper server, with ranges."""

    def behave(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked:
            at = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.answer(206, content[start:], Content_Range=at)
        else:
            handler.answer(200, content, Content_Length=str(len(content)))

    return behave


def pulled(entry: Entry, folder: Path, *mirrors: str, **options: float) -> Path:
    return pull(entry, folder, accept=lambda card: True, mirrors=mirrors, **options)


def written(folder: Path, entry: Entry) -> Path:
    """A catalogue of one entry."""
    path = folder / "own.toml"
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    path.write_text(toml.dumps({"model": [{"urls": list(entry.urls), "card": card}]}))
    return path
