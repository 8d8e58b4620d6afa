"""Logs of both processes: plain lines for people, JSON for machines, never a secret.

Promise: after `configure` every record goes to stderr in one form; credentials in URLs are masked
in every value before it is written. `configure` is called once, from the main thread.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO, cast

import structlog

_CREDENTIALS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/@\s'\"]+@")
_QUERY_SECRET = re.compile(
    r"(?P<name>[?&](?:token|password|passwd|pwd|auth|key|secret)=)[^&\s'\"]+", re.I
)


def mask(text: str) -> str:
    """Replace the user and password of every URL in a text, and secrets in its query, by ***."""
    return _QUERY_SECRET.sub(r"\g<name>***", _CREDENTIALS.sub(r"\g<scheme>***@", text))


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
    """Whatever sys.stderr is just now: a live table puts itself there while it is drawn."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def configure(form: Literal["text", "json"], *, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to stderr in the given form.

    Args:
        form: text (one readable line per record) or json (one object per line).
        stream: instead of stderr; for tests.
    """
    target = cast(TextIO, stream if stream is not None else _CurrentStderr())
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
