"""libav's errors as ours. Its own texts repeat the address with its password: they are not used."""

from __future__ import annotations

import errno

import av.error

from edge.sources.base import (
    SourceBrokenError,
    SourceError,
    SourceNotFoundError,
    SourceNotVideoError,
    SourceTimedOutError,
    SourceUnauthorisedError,
    SourceUnreachableError,
)

# What the network says when nobody is there; libav makes EIO of a host name nobody knows.
_NOBODY = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL})


def translate(
    error: Exception, where: str, media: str, *, opening: bool, silent: bool = False
) -> SourceError:
    """Our error for one of libav.

    Args:
        error: what libav raised.
        where: the source's address, not masked.
        media: "file", or what is at the other end: "camera", "server", "device".
        opening: it came from the open, not from a read.
        silent: the open took as long as its time-out.
    """
    number = getattr(error, "errno", None)
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return SourceUnauthorisedError(where, f"the {media} refuses user or password")
    if isinstance(error, av.error.HTTPNotFoundError):
        return SourceNotFoundError(
            where, f"the {media} answers, but has no such path", "check the path in its manual"
        )
    if isinstance(error, FileNotFoundError):
        return SourceNotFoundError(where, f"there is no such {media}")
    if isinstance(error, PermissionError):
        return SourceUnauthorisedError(
            where, f"this user may not read the {media}", "check its owner and mode"
        )
    if isinstance(error, TimeoutError | av.error.ExitError) or silent:
        return SourceTimedOutError(where, f"the {media} sent nothing in time")
    if isinstance(error, ConnectionRefusedError):
        return SourceUnreachableError(where, "the connection was refused: nobody listens there")
    if isinstance(error, ConnectionError):
        return SourceUnreachableError(where, f"the {media} broke the connection")
    if number in _NOBODY or (number == errno.EIO and opening and media != "file"):
        return SourceUnreachableError(where, "no such host, or no way to it")
    if number == errno.EBUSY:
        return SourceUnreachableError(
            where, f"the {media} is in use", "end the other program that reads it"
        )
    reason = getattr(error, "strerror", None) or type(error).__name__
    if not opening:
        return SourceBrokenError(where, f"reading failed: {reason}")
    if isinstance(error, av.error.InvalidDataError | UnicodeError):
        return SourceNotVideoError(
            where, f"the {media} is not a video, or its beginning is damaged"
        )
    if media == "file":
        return SourceNotVideoError(where, f"the file cannot be read as video: {reason}")
    return SourceBrokenError(where, f"the {media} answers with an error: {reason}")
