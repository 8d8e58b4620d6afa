"""What has to be right before the first frame, and how the process ends where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge.collect import CollectError
from edge.embedded import EmbeddedError
from edge.exit_codes import ExitCode
from edge.identity import EdgeIdMismatch, IdentityUnreadable, InvalidEdgeId
from edge.spool_errors import SpoolError
from edge.track.motfile import TracksFileError
from reid.model_errors import ModelError
from reid.tls import TlsError
from reid.web import WebError


class CannotStart(Exception):
    """Something that has to be right before the first frame is not.

    Attributes:
        code: how the process ends.
    """

    def __init__(self, code: ExitCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the errors of the parts into an exit code and one message."""
    try:
        yield
    except (
        EdgeIdMismatch,
        InvalidEdgeId,
        EmbeddedError,
        CollectError,
        TlsError,
        WebError,
        TracksFileError,
    ) as error:
        raise CannotStart(ExitCode.USAGE, str(error)) from error
    except ModelError as error:
        raise CannotStart(ExitCode.MODEL, str(error)) from error
    except (SpoolError, IdentityUnreadable) as error:
        raise CannotStart(ExitCode.SPOOL, str(error)) from error
