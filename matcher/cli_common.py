"""What the commands of edge-match share: flags, and whom they ask."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from matcher.config import LONGEST_S
from matcher.settings import SettingsError
from reid.tls import TlsFiles

if TYPE_CHECKING:
    from matcher.client import LocalSource, MatcherClient, Source
    from reid.v1.query_pb2 import SightingFilter

DEFAULT_SERVER = "127.0.0.1:7443"

Server = Annotated[
    str | None,
    typer.Option("--server", help=f"HOST:PORT; default {DEFAULT_SERVER}."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of a matcher; for reading one that does not run."),
]
TlsCa = Annotated[Path | None, typer.Option("--tls-ca", help="Who signed the other end.")]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", help="Our certificate.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="Its private key.")]
TlsDir = Annotated[
    Path | None, typer.Option("--tls-dir", help="Folder with ca.pem, cert.pem and key.pem.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Plain beyond loopback, where anybody can read along.")
]
Site = Annotated[str, typer.Option("--site", help="Only this site.")]
Camera = Annotated[
    list[str] | None, typer.Option("--camera", help="Only this camera; may be repeated.")
]
Since = Annotated[
    str, typer.Option("--since", help="Only from here: ISO time in UTC, or an age such as 90m, 2d.")
]
Until = Annotated[str, typer.Option("--until", help="Only before: as --since.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]


def tls_files(
    ca: Path | None, cert: Path | None, key: Path | None, folder: Path | None
) -> TlsFiles | None:
    """The certificates that flags name; None where none is."""
    given = [path for path in (ca, cert, key) if path is not None]
    if folder is not None:
        return TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    if not given:
        return None
    if ca is None or cert is None or key is None:
        raise SettingsError("--tls-ca, --tls-cert and --tls-key are given together, or --tls-dir")
    return TlsFiles(ca, cert, key)


@contextmanager
def connected(server: str | None, tls: TlsFiles | None, insecure: bool) -> Iterator[MatcherClient]:
    """A connection, closed at the end."""
    from matcher.client import MatcherClient
    from reid.web import WebError, parse_address  # imported late: it brings a web server

    try:
        parse_address(server or DEFAULT_SERVER, what="--server")
    except WebError as error:
        raise SettingsError(str(error)) from error
    client = MatcherClient(server or DEFAULT_SERVER, tls=tls, insecure=insecure)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def source(
    server: str | None, data_dir: Path | None, tls: TlsFiles | None, insecure: bool
) -> Iterator[Source]:
    """The server, or the files of one that does not run."""
    from matcher.client import LocalSource

    if server is not None and data_dir is not None:
        raise SettingsError("give --server or --data-dir, not both")
    if data_dir is None:
        with connected(server, tls, insecure) as client:
            yield client
        return
    local: LocalSource = LocalSource(data_dir)
    try:
        yield local
    finally:
        local.close()


def filter_of(site: str, cameras: list[str] | None, since: str, until: str) -> SightingFilter:
    """A filter from flags."""
    from reid.v1.query_pb2 import SightingFilter

    return SightingFilter(
        site=site,
        cameras=cameras or (),
        from_unix_nanos=instant("--since", since),
        to_unix_nanos=instant("--until", until),
    )


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """An age such as 90s, 15m, 2h or 30d, in seconds."""
    try:
        age = float(text[:-1]) * _UNITS[text[-1:]]
    except (ValueError, KeyError):
        age = math.nan
    if not 0.0 <= age <= LONGEST_S:
        raise SettingsError(f"{text!r} is no age; write 90s, 15m, 2h or 30d")
    return age


def instant(flag: str, text: str) -> int:
    """UTC in nanoseconds of an ISO time or an age; 0 for no text."""
    if not text:
        return 0
    if text[-1:] in _UNITS and "T" not in text and ":" not in text:
        return max(1, time.time_ns() - round(seconds(text) * 1e9))
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"{flag} {text!r}: write an ISO time such as 2026-05-01T08:30, or an age such as 90m"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    if not 0.0 <= moment.timestamp() < 9e9:
        raise SettingsError(f"{flag} {text!r}: give a time between 1970 and 2250")
    return round(moment.timestamp() * 1e9)


def counted(records: Iterator[Any], what: str) -> Iterator[Any]:
    """Show on a terminal how many have come: longer than two seconds wants a sign of life."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} " + what), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=None)
        for record in records:
            progress.advance(task)
            yield record
