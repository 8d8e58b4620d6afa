"""Addresses of sources: told apart, named, and written without their credentials.

Promise: whoever prints an address prints `reid.logs.mask_address(address)`; no text that is made
here holds a user, a password or a token.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from reid.logs import mask_address, query_has_password

MAX_NAME = 64
ACCEPTED = "a file, rtsp://HOST/PATH, rtsps://, http(s)://, v4l2:/dev/video0, folder:PATH or synth://street"

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_NETWORK = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
# An http address that ends so is a file that ends, not a camera.
FILE_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".mpeg"})


class SourceKind(enum.Enum):
    """What an address names."""

    FILE = "file"
    RTSP = "rtsp"
    HTTP = "http"
    V4L2 = "v4l2"
    FOLDER = "folder"
    SYNTH = "synth"


@dataclass(frozen=True, slots=True)
class Address:
    """An address taken apart.

    Attributes:
        kind: what it names.
        target: what to open: the path of a file, folder or device; the whole URL otherwise.
        options: query values of v4l2:, folder: and synth: (others: empty).
        host, path: of a URL, without credentials; empty otherwise.
        has_password: it carries a password (in argv others on the machine can read it).
    """

    kind: SourceKind
    target: str = field(repr=False)
    options: dict[str, str] = field(default_factory=dict)
    host: str = ""
    path: str = ""
    has_password: bool = False


def parse(text: str) -> Address:
    """Take an address apart.

    Raises:
        ValueError: no address, an unknown scheme, or a URL whose host or port cannot be read. The
            text names what is accepted and is masked.
    """
    if not text.strip():
        raise ValueError(f"an empty source address; accepted: {ACCEPTED}")
    for prefix, kind in (("v4l2:", SourceKind.V4L2), ("folder:", SourceKind.FOLDER)):
        if text.startswith(prefix):
            target, _, query = text.removeprefix(prefix).partition("?")
            if not target:
                raise ValueError(f"{text!r} names no path; give {prefix}PATH")
            return Address(kind, target, _options(query, text))
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Address(SourceKind.FILE, text)
    name = scheme.group(1).lower()
    if name == "file":
        return Address(SourceKind.FILE, unquote(urlsplit(text).path))
    if name == "synth":
        parts = urlsplit(text)
        return Address(
            SourceKind.SYNTH, text, _options(parts.query, text), host=parts.netloc, path=parts.path
        )
    if name not in _NETWORK:
        raise ValueError(
            f"{mask_address(text)}: unknown kind of source {name!r}; accepted: {ACCEPTED}"
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # the original text may repeat the password
        host, port = None, None
    if not host or port == 0:
        raise ValueError(
            f"{mask_address(text)}: its host or port cannot be read; "
            "percent-encode @ : / ? # [ ] in user and password"
        ) from None
    return Address(
        SourceKind.RTSP if name.startswith("rtsp") else SourceKind.HTTP,
        text,
        host=host,
        path=parts.path,
        has_password=bool(parts.password) or query_has_password(parts.query),
    )


def _options(query: str, text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"{text!r}: options are written ?name=value&name=value") from None
    return dict(pairs)


def read_argument(text: str) -> str:
    """The address itself, or the first line of FILE where the argument is @FILE.

    Blank lines, lines that begin with # and a byte order mark (some editors write one) count as
    nothing.

    Raises:
        ValueError: the file cannot be read or is empty.
    """
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"the source address in {path} cannot be read: {reason}") from None
    stripped = (line.strip() for line in lines)
    address = next((line for line in stripped if line and not line.startswith("#")), None)
    if address is None:
        raise ValueError(f"{path} is empty; write the source's address on its first line")
    return address


def camera_name(text: str) -> str:
    """A name for a camera after its host and path, or the last part of a path.

    >>> camera_name("rtsp://admin:secret@10.0.0.7:8554/stream/main")
    '10.0.0.7-stream-main'
    """
    address = parse(text)
    if address.kind in (SourceKind.RTSP, SourceKind.HTTP):
        raw = f"{address.host}{unquote(address.path)}"
    elif address.kind is SourceKind.SYNTH:
        raw = f"{address.host}{address.path}" or "synth"
    elif address.kind is SourceKind.FILE:
        raw = Path(address.target).stem
    else:
        raw = Path(address.target).resolve().name
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", raw).strip("-._")
    return slug[:MAX_NAME].rstrip("-._") or "camera"


def name_cameras(addresses: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """A different name for each address, in order; the second "hall" is called "hall-2"."""
    used = set(taken)
    names = []
    for address in addresses:
        base = name = camera_name(address)
        count = 1
        while name in used:
            count += 1
            suffix = f"-{count}"
            name = base[: MAX_NAME - len(suffix)] + suffix
        used.add(name)
        names.append(name)
    return names
