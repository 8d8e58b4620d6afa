"""Logs of both processes: plain lines for people, JSON for machines, never a secret.

Promise: after `configure` every record goes to stderr in one form; credentials in addresses are
masked in every value before it is written. A line that nobody takes (a full disk, a terminal that
was closed, a reader that ended) is lost and never an error of whoever logs; `problem` says it.
`configure` is called once, from the main thread.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO, cast
from urllib.parse import unquote

import structlog

MASKED = "***"
# Cameras take credentials as query values too; the names are those of the common makers.
_SECRET_KEY = re.compile(
    r"(?i)^(.*(pass|pwd|psw|secret|token|auth|sig|credential|session).*|user(name)?|usr|login|key|"
    r"api_?key|access_?key|loginuse|loginpas)$"
)
_USER_KEY = re.compile(r"(?i)^(user(name)?|usr|login|loginuse)$")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# An address inside a text, without the punctuation that the text puts behind it.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S*[^\s'\"()\[\]{}<>,;:.]")


def mask(text: str) -> str:
    """Replace user, password and tokens of every address in a text by ***."""
    return _ADDRESS.sub(lambda found: mask_address(found.group()), text)


def mask_address(text: str) -> str:
    """One address without user, password and tokens; a text without any comes back as it is.

    >>> mask_address("rtsp://admin:pa@ss@10.0.0.7/main?token=abc&subtype=0")
    'rtsp://***@10.0.0.7/main?token=***&subtype=0'
    """
    scheme = _SCHEME.search(text)  # a blank or a byte order mark may stand before it
    if scheme is None:
        return text
    rest = text[scheme.end() :]
    # Up to the last @, since a password that was not encoded may hold @, / or ?
    _, at, tail = rest.rpartition("@")
    head, question, query = (tail if at else rest).partition("?")
    if question:
        query = "&".join(_mask_pair(pair) for pair in query.split("&"))
    return f"{text[: scheme.end()]}{MASKED + '@' if at else ''}{head}{question}{query}"


def query_has_password(query: str) -> bool:
    """Whether an address's query ("user=a&pwd=b") gives a password or a token.

    >>> query_has_password("user=admin&pwd=secret"), query_has_password("user=admin&subtype=0")
    (True, False)
    """
    pairs = (pair.partition("=") for pair in query.split("&"))
    keys = (unquote(key) for key, _, value in pairs if value)
    return any(_SECRET_KEY.match(key) and not _USER_KEY.match(key) for key in keys)


def _mask_pair(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    return f"{key}={MASKED}" if equals and _SECRET_KEY.match(unquote(key)) else pair


def _mask_values(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = mask(value)
        elif isinstance(value, BaseException):
            event[key] = mask(f"{type(value).__name__}: {value}")
    return event


class _CurrentStderr:
    """Whatever sys.stderr is just now: a live table puts itself there while it is drawn.

    Attributes:
        problem: why the last line could not be written; empty: it was.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._refused = False

    def write(self, text: str) -> int:
        try:
            sys.stderr.write(text)
        except OSError as error:
            self._cannot(error)
        return len(text)

    def flush(self) -> None:
        """Called after each line."""
        try:
            sys.stderr.flush()
        except OSError as error:
            self._cannot(error)
        if not self._refused:
            self.problem = ""
        self._refused = False

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def _cannot(self, error: OSError) -> None:
        self._refused = True
        self.problem = error.strerror or str(error)


_STDERR = _CurrentStderr()


def problem() -> str:
    """Why log lines are being lost; empty: they are not. Any thread may ask."""
    return f"log lines cannot be written: {_STDERR.problem}" if _STDERR.problem else ""


def configure(form: Literal["text", "json"], *, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to stderr in the given form.

    Args:
        form: text (one readable line per record) or json (one object per line).
        stream: instead of stderr; for tests.
    """
    target = cast(TextIO, stream if stream is not None else _STDERR)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask_values,
    ]
    renderer: Any
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=target.isatty(), pad_event_to=0, pad_level=False, sort_keys=False
        )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
