"""`edge-run`: flags into settings, settings into a running box, its end into an exit code.

Exit codes: 0 done or drained; 2 usage or configuration; 3 a model refused; 4 no source could be
opened (files, or --check); 5 files only: all read, but the matcher refuses us (the rows stay
spooled); 6 the spool is unusable; 70 our own fault.
"""

from __future__ import annotations

import os
import sys
import traceback
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge.config import Config
from edge.exit_codes import ExitCode
from edge.leave import leave
from edge.settings import Settings, SettingsError, load
from edge.sources.urls import name_cameras, parse, read_argument
from reid import SOFTWARE
from reid.logs import mask

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# Grouped as a person looks for them in --help.
_what = partial(typer.Option, rich_help_panel="What to watch")
_where = partial(typer.Option, rich_help_panel="Where sightings go")
_how = partial(typer.Option, rich_help_panel="How it works")
_seen = partial(typer.Option, rich_help_panel="What it shows")


@app.command(
    help="Read cameras, find and follow people, and stream only their embeddings to a matcher.\n\n"
    "A camera:  edge-run --rtsp rtsp://10.0.0.7/main --matcher center:7443\n\n"
    "A first look, with nothing else installed or running:  edge-run --sample --embedded",
    epilog="Every key of the configuration file can also come from the environment: EDGE_FPS, "
    "EDGE_TRACK__END_S ... Exit codes: 0 done, 2 usage or configuration, 3 a model refused, 4 no "
    "source, 5 the matcher refuses us, 6 spool unusable, 70 our own fault.",
)
def run(
    rtsp: Annotated[
        list[str] | None,
        _what(metavar="URL", help="A camera; @FILE reads the URL from a file. Repeatable."),
    ] = None,
    source: Annotated[
        list[str] | None,
        _what(
            metavar="NAME=URL",
            help="A named source: file, rtsp://, http://, v4l2:/dev/video0, folder:PATH, "
            "synth://street. Repeatable.",
        ),
    ] = None,
    sample: Annotated[
        bool, _what("--sample", help="Watch a public sample clip, or our rendered scene.")
    ] = False,
    start_time: Annotated[
        str | None,
        _what(metavar="UTC", help="When a file's first frame was taken, 2026-01-31T08:00:00Z."),
    ] = None,
    fps: Annotated[
        float | None, _what(help="Frames a second to analyse of each live camera.")
    ] = None,
    matcher: Annotated[
        list[str] | None,
        _where(metavar="HOST:PORT", help="The matcher; several of one ledger. Repeatable."),
    ] = None,
    embedded: Annotated[
        bool,
        _where("--embedded", help="Start a matcher of our own beside the box, for a first look."),
    ] = False,
    tls_ca: Annotated[Path | None, _where(help="Whom we believe.")] = None,
    tls_cert: Annotated[Path | None, _where(help="Our certificate.")] = None,
    tls_key: Annotated[Path | None, _where(help="Our private key.")] = None,
    insecure: Annotated[bool, _where("--insecure", help="Plain text beyond loopback.")] = False,
    accept_ledger: Annotated[
        bool, _where("--accept-ledger", help="The matcher's ledger is new and right: refill it.")
    ] = False,
    site: Annotated[str | None, _where(help="The site this box belongs to.")] = None,
    edge_id: Annotated[str | None, _where(help="This box; at first start the host's name.")] = None,
    new_edge_id: Annotated[
        bool, _where("--new-edge-id", help="This data folder belongs to another box from now on.")
    ] = False,
    config: Annotated[Path | None, _how(metavar="FILE.toml", help="Settings.")] = None,
    data_dir: Annotated[Path | None, _how(help="Spool and keys.")] = None,
    models_dir: Annotated[Path | None, _how(help="Models and their cards.")] = None,
    detector: Annotated[str | None, _how(metavar="NAME|FILE", help="The detector.")] = None,
    detector_family: Annotated[
        str | None, _how(help="The detector's output layout, where file and card leave it open.")
    ] = None,
    embedder: Annotated[str | None, _how(metavar="NAME|FILE", help="The embedder.")] = None,
    require_commercial: Annotated[
        bool, _how("--require-commercial", help="Refuse models that forbid commercial use.")
    ] = False,
    duration: Annotated[float | None, _how(metavar="SECONDS", help="End after this time.")] = None,
    check: Annotated[
        bool, _how("--check", help="Open everything, run one frame, say what was found.")
    ] = False,
    print_config: Annotated[
        bool, _how("--print-config", help="Show every setting and where it comes from.")
    ] = False,
    spool_status: Annotated[
        bool,
        _how("--spool-status", help="Show what waits in the spool; as JSON with --summary json."),
    ] = False,
    resend: Annotated[
        bool, _how("--resend", help="With --spool-status: send dead letters again.")
    ] = False,
    summary: Annotated[str | None, _seen(metavar="text|json", help="The last words.")] = None,
    log: Annotated[str | None, _seen(metavar="text|json", help="The form of log lines.")] = None,
    metrics: Annotated[
        str | None, _seen(metavar="HOST:PORT", help="Metrics and health; 'off' for none.")
    ] = None,
    preview: Annotated[
        str | None,
        _seen(metavar="HOST:PORT", help="A page with pictures for whoever mounts the camera."),
    ] = None,
    tracks: Annotated[
        Path | None, _seen(metavar="FILE", help="Write tracks in MOTChallenge format.")
    ] = None,
    collect: Annotated[
        Path | None,
        _seen(
            metavar="DIR",
            help="Keep crops of people here, on this box, to adapt a model; off by default.",
        ),
    ] = None,
    collect_keep: Annotated[
        float | None, _seen(metavar="HOURS", help="Delete older crops.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(SOFTWARE)
        raise typer.Exit
    given: dict[tuple[str, ...], tuple[Any, str]] = {}

    def put(path: tuple[str, ...], value: Any, flag: str) -> None:
        if value is not None and value is not False and value != []:
            given[path] = (value, flag)

    try:
        sources = _sources(rtsp or [], source or [], os.environ, start_time)
        given_here = "--rtsp, --source" if rtsp or source else "environment EDGE_RTSP, EDGE_SOURCE"
        put(("sources",), sources, given_here)
        put(("fps",), fps, "--fps")
        put(("uplink", "matchers"), matcher, "--matcher")
        put(("embedded",), embedded, "--embedded")
        put(("uplink", "tls", "ca"), tls_ca, "--tls-ca")
        put(("uplink", "tls", "cert"), tls_cert, "--tls-cert")
        put(("uplink", "tls", "key"), tls_key, "--tls-key")
        put(("uplink", "tls", "insecure"), insecure, "--insecure")
        put(("uplink", "accept_ledger"), accept_ledger, "--accept-ledger")
        put(("site",), site, "--site")
        put(("edge_id",), edge_id, "--edge-id")
        put(("new_edge_id",), new_edge_id, "--new-edge-id")
        put(("data_dir",), data_dir, "--data-dir")
        put(("models_dir",), models_dir, "--models-dir")
        put(("detect", "model"), detector, "--detector")
        put(("detect", "family"), detector_family, "--detector-family")
        put(("embed", "model"), embedder, "--embedder")
        put(("require_commercial",), require_commercial, "--require-commercial")
        put(("duration_s",), duration, "--duration")
        put(("status", "summary"), summary, "--summary")
        put(("status", "log"), log, "--log")
        put(("status", "metrics"), metrics, "--metrics")
        put(("status", "preview"), preview, "--preview")
        put(("tracks",), tracks, "--tracks")
        put(("collect", "folder"), collect, "--collect")
        put(("collect", "keep_hours"), collect_keep, "--collect-keep")
        file = config or (Path(value) if (value := os.environ.get("EDGE_CONFIG")) else None)

        def reread() -> Config:
            return load(flags=given, environ=os.environ, file=file).config

        settings = load(flags=given, environ=os.environ, file=file)
    except SettingsError as error:
        _fail(str(error), ExitCode.USAGE)
    if print_config:
        _print_config(settings)
        raise typer.Exit
    # Imported here: --help, --print-config and --spool-status answer at once.
    if spool_status:
        from edge.spool_view import show

        raise typer.Exit(int(show(settings.config, resend=resend)))
    from edge import app as box

    if check:
        code = box.check(settings.config, sample=sample)
    else:
        code = box.run(settings.config, sample=sample, reread=reread)
    raise typer.Exit(int(code))


def _sources(
    rtsp: list[str], named: list[str], environ: os._Environ[str], start_time: str | None
) -> list[dict[str, Any]]:
    """The cameras of --rtsp and --source, or of EDGE_RTSP and EDGE_SOURCE where neither is given.

    Raises:
        SettingsError: not NAME=URL, an address nothing can be made of, a @FILE that is unreadable.
    """
    if not rtsp and not named:
        rtsp = [u for u in environ.get("EDGE_RTSP", "").split() if u]
        named = [u for u in environ.get("EDGE_SOURCE", "").split() if u]
    else:
        for text in [*rtsp, *named]:
            _warn_of_password(text.partition("=")[2] if text in named else text)
    cameras: list[dict[str, Any]] = []
    try:
        for text in named:
            name, equals, url = text.partition("=")
            if not equals or not name or not url or "/" in name or ":" in name:
                raise SettingsError(
                    f"--source {text!r}: give NAME=URL, such as lobby=video.mp4 or "
                    "gate=rtsp://10.0.0.7/main"
                )
            cameras.append({"name": name, "url": read_argument(url)})
        urls = [read_argument(text) for text in rtsp]
        names = name_cameras(urls, taken=[camera["name"] for camera in cameras])
        cameras += [{"name": name, "url": url} for name, url in zip(names, urls, strict=True)]
        for camera in cameras:
            parse(camera["url"])
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if start_time is not None:
        begun = _utc(start_time)
        for camera in cameras:
            camera["start_time"] = begun
    return cameras


def _utc(text: str) -> datetime:
    try:
        begun = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"--start-time {text!r}: {error}; give 2026-01-31T08:00:00Z") from None
    return begun if begun.tzinfo is not None else begun.replace(tzinfo=UTC)


def _warn_of_password(text: str) -> None:
    try:
        exposed = not text.startswith("@") and parse(text).has_password
    except ValueError:
        return
    if exposed:
        typer.echo(
            "warning: a password on the command line can be read by every user of this machine; "
            "write the URL into a file and give --rtsp @FILE",
            err=True,
        )


def _print_config(settings: Settings) -> None:
    table = Table("setting", "value", "comes from", box=None, pad_edge=False)
    for row in settings.rows():
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _fail(text: str, code: ExitCode) -> None:
    typer.echo(f"edge-run: {text}", err=True)
    raise typer.Exit(int(code))


def main() -> None:
    """Entry point of the console script; what nobody foresaw ends with 70."""
    try:
        app()
    except SystemExit as end:
        leave(end.code)
    except Exception as fault:  # noqa: BLE001  said in words, with its trace, and ends the process
        trace = "".join(traceback.format_exception(fault))
        typer.echo(f"edge-run: our own fault, please report it:\n{mask(trace)}", err=True)
        leave(ExitCode.FAULT)


if __name__ == "__main__":
    main()
