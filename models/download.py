"""Fetch one file of known length and checksum from a list of places.

Promise: what stands under the final name has the expected bytes; it appears there in one step.
A cut transfer goes on where it stopped (HTTP Range), also in a later call; a place that sends more
than expected, something else, or nothing for `timeout_s` is left for the next one. Places are
http(s) addresses or local folders and files. User and password in an address go to that host alone,
as HTTP's basic authentication; no redirect and no message gets them.
Fails: DownloadError with every place and its reason; what was fetched whole but wrong is deleted,
what was cut is kept as `.NAME.part`.
Threads: any; one download of a file at a time.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from reid.logs import mask

Progress = Callable[[int, int], None]  # bytes so far, bytes in all

CHUNK = 64 * 1024
ATTEMPTS = 3  # per place; each goes on where the last one was cut
LEAST_BYTES_PER_S = 4096.0  # a place slower than this for the whole file is no place
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_AGENT = "edge-models"


class DownloadError(Exception):
    """No place gave the file.

    Attributes:
        name: the file.
        reasons: (place, reason) in the order tried; credentials masked.
    """

    def __init__(self, name: str, reasons: Sequence[tuple[str, str]]) -> None:
        self.name = name
        self.reasons = tuple((mask(place), mask(reason)) for place, reason in reasons)
        tried = "; ".join(f"{place}: {reason}" for place, reason in self.reasons)
        super().__init__(
            f"{name} could not be fetched ({tried or 'no address is known'}); "
            "check the network, name a mirror (--mirror URL_OR_FOLDER), or put the file into the "
            "models folder by hand"
        )


class _PlaceFailed(Exception):
    """This place did not give the file; another may. `cut`: trying again may go on."""

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        self.cut = cut
        super().__init__(reason)


def fetch(
    places: Sequence[str],
    target: Path,
    *,
    sha256: str,
    size: int,
    timeout_s: float = 20.0,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file.

    Args:
        places: http(s) addresses, folders that hold a file of the target's name, or files.
        target: where it will stand.
        sha256, size: what it must be.
        timeout_s: longest silence of a place.
        progress: told after every chunk.

    Returns:
        target.

    Raises:
        DownloadError: no place gave it.
        OSError: the target's folder cannot be written, or is full; what came stays for later.
    """
    part = target.with_name(f".{target.name}.part")
    told = progress or (lambda done, total: None)
    reasons: list[tuple[str, str]] = []
    for place in places:
        for _ in range(ATTEMPTS):
            resumed = part.exists()
            try:
                if place.startswith(("http://", "https://")):
                    _download(place, part, size, timeout_s, told)
                else:
                    _copy(Path(place), target.name, part, size, told)
                _verify(part, sha256, size, resumed=resumed)
            except _PlaceFailed as failure:
                if failure.cut:
                    reason = f"{failure}, tried {ATTEMPTS} times"
                    continue
                reason = str(failure)
                break
            part.replace(target)
            return target
        reasons.append((place, reason))
    raise DownloadError(target.name, reasons)


def _download(url: str, part: Path, size: int, timeout_s: float, told: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return  # whole already; the checksum decides
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    deadline = time.monotonic() + max(3.0 * timeout_s, size / LEAST_BYTES_PER_S)
    try:
        address, credentials = _without_credentials(url)
        request = urllib.request.Request(address, headers=headers)
        if credentials:
            request.add_unredirected_header("Authorization", credentials)
        with _opener().open(request, timeout=timeout_s) as answer:
            if have and not _goes_on_at(answer, have):
                part.unlink()
                have = 0
            _receive(answer, part, have, size, deadline, told)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # it has fewer bytes than we hold: ours are not its
            part.unlink(missing_ok=True)
            raise _PlaceFailed("does not hold what an earlier transfer began", cut=True) from error
        raise _PlaceFailed(f"answers {error.code} {error.reason}") from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        _raise_if_ours(error, part)
        reason = getattr(error, "reason", None) or error
        raise _PlaceFailed(f"{type(error).__name__}: {reason}", cut=part.exists()) from error


def _without_credentials(url: str) -> tuple[str, str]:
    """The address without user and password, and the header that says them; empty: none.

    Raises:
        ValueError: no address; the text does not repeat it, for it may hold a password.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        user, password, _ = parts.username, parts.password, parts.port
    except ValueError:
        raise ValueError("is no valid address") from None
    if user is None:
        return url, ""
    pair = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password or '')}"
    host = parts.netloc.rpartition("@")[2]
    return (
        urllib.parse.urlunsplit(parts._replace(netloc=host)),
        "Basic " + base64.b64encode(pair.encode()).decode("ascii"),
    )


def _opener() -> urllib.request.OpenerDirector:
    """http and https only: a redirect to a file or to ftp goes nowhere."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _goes_on_at(answer: http.client.HTTPResponse, have: int) -> bool:
    begins = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    return answer.status == 206 and begins


def _receive(
    answer: IO[bytes], part: Path, have: int, size: int, deadline: float, told: Progress
) -> None:
    with part.open("ab" if have else "wb") as file:
        while chunk := answer.read(CHUNK):
            have += len(chunk)
            if have > size:
                file.close()
                part.unlink()
                raise _PlaceFailed(f"sends more than the {size} bytes that the file has")
            file.write(chunk)
            told(have, size)
            if time.monotonic() > deadline:
                raise _PlaceFailed(f"too slow: {have} of {size} bytes", cut=True)
        file.flush()
        os.fsync(file.fileno())
    if have < size:
        raise _PlaceFailed(f"cut after {have} of {size} bytes", cut=True)


def _copy(place: Path, name: str, part: Path, size: int, told: Progress) -> None:
    source = place / name if place.is_dir() else place
    try:
        found = source.stat().st_size
        if found != size:
            raise _PlaceFailed(f"has {found} bytes, the file has {size}")
        with source.open("rb") as read, part.open("wb") as write:
            while chunk := read.read(CHUNK):
                write.write(chunk)
            write.flush()
            os.fsync(write.fileno())
    except OSError as error:
        _raise_if_ours(error, part)
        raise _PlaceFailed(f"{error.strerror or error}") from error
    told(size, size)


def _raise_if_ours(error: Exception, part: Path) -> None:
    """Raise what is wrong with our own folder; no place is to blame, and no other would help."""
    if isinstance(error, OSError) and (error.errno in _FULL or error.filename == str(part)):
        raise OSError(error.errno, error.strerror, str(part.parent)) from error


def _verify(part: Path, sha256: str, size: int, *, resumed: bool) -> None:
    content = part.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if len(content) != size or found != sha256:
        part.unlink()
        reason = f"gave another file: sha256 {found[:12]}…, expected {sha256[:12]}…"
        raise _PlaceFailed(reason, cut=resumed)  # an old beginning may be to blame: from the start
