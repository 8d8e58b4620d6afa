"""A page with pictures for whoever mounts the camera: off by default, beside the box only.

Promise: pictures leave through this page and nowhere else; it needs a token that is made anew at
every start, shown once in the log, and turns into a cookie at its first use, after which the link
is dead. Pictures are made only while somebody looks.
Full: each camera keeps its newest frame only.
Threads: `show` from the inference thread; the rest from the web thread.
"""

from __future__ import annotations

import hmac
import html
import secrets
import threading
import time

import cv2
import numpy as np
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from edge.types import Frame, Image, TrackStep

COOKIE = "edge_preview"
# Pictures are drawn only for so long after the last request.
LOOKING_S = 5.0
_MAX_WIDTH = 960
_JPEG_QUALITY = 80


class Preview:
    """Keeps the newest picture of each camera and serves the page."""

    def __init__(self, cameras: list[str]) -> None:
        self._cameras = list(cameras)
        self._link_token: str | None = secrets.token_urlsafe(24)
        self._session_token = secrets.token_urlsafe(24)
        self._lock = threading.Lock()  # guards the token and the pictures
        self._newest: dict[str, tuple[Image, TrackStep, int]] = {}
        self._asked_s = float("-inf")

    def watch(self, cameras: list[str]) -> None:
        """Show these cameras from the next load of the page on."""
        with self._lock:
            self._cameras = list(cameras)
            self._newest = {name: shown for name, shown in self._newest.items() if name in cameras}

    def link(self, port: int, host: str = "127.0.0.1") -> str:
        """The address to open, good for one use."""
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/?token={self._link_token}"

    @property
    def wanted(self) -> bool:
        """Whether somebody looks just now."""
        return time.monotonic() - self._asked_s < LOOKING_S

    def show(self, frame: Frame, step: TrackStep) -> None:
        """Keep this as the camera's newest picture, where somebody looks."""
        if self.wanted:
            with self._lock:
                self._newest[frame.camera] = (frame.image, step, frame.index)

    def routes(self) -> list[BaseRoute]:
        """What the web server serves."""
        return [Route("/", self._page), Route("/camera/{number:int}.jpg", self._picture)]

    def _known(self, request: Request) -> bool:
        return _same(request.cookies.get(COOKIE, ""), self._session_token)

    def _redeem(self, token: str) -> bool:
        with self._lock:
            if self._link_token is None or not _same(token, self._link_token):
                return False
            self._link_token = None
            return True

    async def _page(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None and self._redeem(token):
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(COOKIE, self._session_token, httponly=True, samesite="strict")
            return answer
        if not self._known(request):
            return PlainTextResponse(
                "The preview's link is good for one browser. Restart edge-run for a new one.\n",
                status_code=403,
            )
        self._asked_s = time.monotonic()
        figures = "".join(
            f"<figure><figcaption>{html.escape(name)}</figcaption>"
            f'<img data-src="/camera/{number}.jpg" alt="camera {html.escape(name)}"></figure>'
            for number, name in enumerate(self._cameras)
        )
        return HTMLResponse(
            _PAGE.replace("FIGURES", figures),
            headers={"Cache-Control": "no-store", "Content-Security-Policy": _POLICY},
        )

    async def _picture(self, request: Request) -> Response:
        if not self._known(request):
            return PlainTextResponse("no\n", status_code=403)
        self._asked_s = time.monotonic()
        number = int(request.path_params["number"])
        if number >= len(self._cameras):
            return PlainTextResponse("no such camera\n", status_code=404)
        with self._lock:
            newest = self._newest.get(self._cameras[number])
        if newest is None:
            return Response(status_code=204)
        image, step, _ = newest
        drawn = annotate(image, step)
        ok, encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not ok:
            return Response(status_code=204)
        return Response(
            encoded.tobytes(), media_type="image/jpeg", headers={"Cache-Control": "no-store"}
        )


def _same(given: str, expected: str) -> bool:
    """Compare without telling by the time it takes; what was given may be anything."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def colour_of(number: int) -> tuple[int, int, int]:
    """A bright colour (BGR) that stays with a tracklet's number."""
    hue = (number * 0.61803398875) % 1.0
    pixel = np.array([[[int(hue * 179), 200, 255]]], np.uint8)
    b, g, r = cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0]
    return int(b), int(g), int(r)


def annotate(image: Image, step: TrackStep) -> Image:
    """A copy of the picture, at most 960 px wide, with boxes and numbers.

    Args:
        image: (h, w, 3) uint8, BGR.
        step: whom the tracker sees in it.
    """
    scale = min(1.0, _MAX_WIDTH / image.shape[1])
    drawn: Image = image.copy()
    if scale < 1.0:
        size = (_MAX_WIDTH, round(image.shape[0] * scale))
        drawn = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    for tracked in step.boxes:
        x1, y1, x2, y2 = (round(float(value) * scale) for value in tracked.box)
        colour = colour_of(tracked.tracklet)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, 2, cv2.LINE_AA)
        text = f"{tracked.tracklet}"
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        top = max(0, y1 - height - 8)
        cv2.rectangle(drawn, (x1, top), (x1 + width + 8, top + height + 8), colour, -1)
        cv2.putText(
            drawn,
            text,
            (x1 + 4, top + height + 3),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.5,
            (20, 20, 20),
            1,
            cv2.LINE_AA,
        )
    return drawn


_POLICY = (
    "default-src 'none'; img-src 'self' blob:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>edge-run preview</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body { margin: 0; padding: 16px; background: #15181c; color: #e6e8eb;
        font: 15px system-ui, sans-serif }
 h1 { font-size: 16px; font-weight: 600; margin: 0 0 4px } p { margin: 0 0 16px; color: #9aa3ad }
 main { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)) }
 figure { margin: 0; background: #1f242a; border-radius: 8px; overflow: hidden }
 figcaption { padding: 8px 12px; font-weight: 600 }
 img { display: block; width: 100%; min-height: 180px; background: #0e1013 }
 .stale { opacity: .45 }
</style></head><body>
<h1>edge-run preview</h1>
<p>Pictures stay on this machine. The matcher gets embeddings only.</p>
<main>FIGURES</main>
<script>
for (const img of document.querySelectorAll("img")) {
  const next = async () => {
    try {
      const answer = await fetch(img.dataset.src, { cache: "no-store" });
      if (answer.status === 200) {
        const old = img.src;
        img.src = URL.createObjectURL(await answer.blob());
        if (old) URL.revokeObjectURL(old);
        img.classList.remove("stale");
      } else if (answer.status !== 204) { img.classList.add("stale"); }
    } catch { img.classList.add("stale"); }
    setTimeout(next, 200);
  };
  next();
}
</script></body></html>
"""
