"""edge-match: the command line. Turns flags into calls, and errors into messages and exit codes.

Exit codes: matcher.errors.ExitCode (0 done or drained, 2 usage or configuration, 5 the server
cannot be reached or refuses us, 6 the ledger is unusable, 70 our own fault).
"""

from __future__ import annotations

import os
import sys

# Two cores: a matrix product of association must not take the core that ingest runs on.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import datetime
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from matcher import certs as certificates
from matcher.config import MatcherConfig, default_data_dir
from matcher.errors import ExitCode, LedgerUnusable, MatcherError
from matcher.settings import SettingsError, load
from reid import logs
from reid.tls import TlsError, TlsFiles

if TYPE_CHECKING:
    from matcher.client import LocalSource, MatcherClient, Source
    from matcher.server import MatcherServer
    from reid.v1.query_pb2 import SightingFilter

DEFAULT_SERVER = "127.0.0.1:7443"
app = typer.Typer(
    name="edge-match",
    help="Takes the embeddings of many boxes and says who was seen where and when.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)
certs_app = typer.Typer(
    help="Make certificates: first init, then server, then one per box and reader.",
    no_args_is_help=True,
)
app.add_typer(certs_app, name="certs")

# --- flags that several commands share ------------------------------------------------------------

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


@app.callback()
def _edge_match() -> None:
    """Takes the embeddings of many boxes and says who was seen where and when."""


# --- the server -----------------------------------------------------------------------------------


@app.command()
def serve(
    listen: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT, default 127.0.0.1:7443; may be repeated. Port 0: free."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the ledger lies.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file.")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of /metrics, /healthz, /readyz; 'off' for none."),
    ] = None,
    log: Annotated[str | None, typer.Option(help="text or json.")] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure: Insecure = False,
    max_rate: Annotated[
        float | None,
        typer.Option(help="Sightings per second a box may send, mean over a minute; 0: no limit."),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written when the server listens: one JSON object.")
    ] = None,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="End when standard input closes.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the configuration and exit.")
    ] = False,
) -> None:
    """Run the server until SIGTERM (the default command).

    Prints one line of JSON when it listens: {"event": "listening", "address", "ports", ...}.
    """
    from matcher.native_log import NativeLog
    from matcher.server import serve as run

    flags: dict[str, Any] = {
        "listen": tuple(listen) if listen else None,
        "data_dir": data_dir,
        "metrics": "" if metrics == "off" else metrics,
        "log": log,
        "tls.ca": tls_ca,
        "tls.cert": tls_cert,
        "tls.key": tls_key,
        "tls.insecure": insecure or None,
        "limits.sightings_per_s": max_rate,
    }
    settings = load(file=config, flags=flags, environment=os.environ)
    if print_config:
        print(settings.model_dump_json(indent=2))
        return
    native = NativeLog()  # before gRPC's first use: it explains refused handshakes
    try:
        logs.configure(settings.log)
        code = run(
            settings,
            ready=lambda server: _ready(settings, server, ready_file),
            watch_stdin=exit_with_parent,
        )
    finally:
        native.close()
    raise typer.Exit(code)


def _ready(settings: MatcherConfig, server: MatcherServer, ready_file: Path | None) -> None:
    host = settings.listen[0].rpartition(":")[0]
    text = json.dumps(
        {
            "event": "listening",
            "address": f"{host}:{server.ports[0]}",
            "ports": list(server.ports),
            "metrics_port": server.web_port,
            "ledger_id": server.ledger.ledger_id,
        }
    )
    print(text, flush=True)
    if ready_file is not None:
        part = ready_file.with_name(ready_file.name + ".part")
        part.write_text(text + "\n")
        part.rename(ready_file)


# --- reading --------------------------------------------------------------------------------------


@app.command()
def who(
    server: Server = None,
    data_dir: DataDir = None,
    site: Site = "",
    camera: Camera = None,
    since: Since = "",
    until: Until = "",
    tracklets: Annotated[bool, typer.Option("--tracklets", help="One row per tracklet.")] = False,
    as_json: Json = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Say who was seen where and when."""
    from matcher import report

    wanted = _filter(site, camera, since, until)
    tls = _tls(tls_ca, tls_cert, tls_key, tls_dir)
    with _source(server, data_dir, tls, insecure) as source:
        found = report.who(source, wanted)
    if as_json:
        print(json.dumps(report.as_json(found)))
    else:
        Console().print(report.table(found, tracklets=tracklets))


@app.command()
def edges(
    server: Server = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Show the boxes: backlog, clock, alarms."""
    from google.protobuf.json_format import MessageToDict
    from rich.table import Table

    with _source(server, data_dir, _tls(tls_ca, tls_cert, tls_key, tls_dir), insecure) as source:
        found = source.edges()
    if as_json:
        print(json.dumps([MessageToDict(one, preserving_proto_field_name=True) for one in found]))
        return
    table = Table(header_style="bold")
    for name in (
        "box",
        "connected",
        "committed",
        "waiting",
        "skipped",
        "rejected",
        "clock",
        "look at",
    ):
        table.add_column(name)
    for one in found:
        clock = f"{one.clock_offset_ms:+.1f} ms" if one.clock_uncertainty_ms else "not known"
        table.add_row(
            f"{one.site}/{one.edge_id}",
            "yes" if one.connected else "no",
            str(one.committed),
            str(one.backlog_sightings),
            str(one.skipped),
            str(one.rejected),
            clock,
            "\n".join(one.alarms),
        )
    Console().print(table)


@app.command()
def watch(
    server: Server = None,
    site: Site = "",
    after: Annotated[int, typer.Option(help="Resume after this position; 0: from the start.")] = 0,
    from_now: Annotated[bool, typer.Option("--from-now", help="Only what happens now.")] = False,
    as_json: Json = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Show what happens to identities, as it happens; each line tells its position."""
    from google.protobuf.json_format import MessageToDict

    from matcher.report import SHORT, iso
    from reid.v1.query_pb2 import IdentityEventKind

    with _client(server, _tls(tls_ca, tls_cert, tls_key, tls_dir), insecure) as client:
        for event in client.watch(after_position=after, from_now=from_now, site=site):
            if as_json:
                print(
                    json.dumps(MessageToDict(event, preserving_proto_field_name=True)), flush=True
                )
                continue
            kind = IdentityEventKind.Name(event.kind).removeprefix("IDENTITY_EVENT_KIND_").lower()
            text = f"{event.position}  {iso(event.decided_unix_nanos)}  {kind:9} "
            text += event.identity_id[:SHORT]
            if event.other_identity_id:
                text += f" with {event.other_identity_id[:SHORT]}"
            if event.HasField("tracklet"):
                text += f"  {event.tracklet.edge_id}/{event.tracklet.camera}"
            if event.similarity:
                text += f"  similarity {event.similarity:.3f}"
            print(text, flush=True)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="The HTML file to write.")],
    server: Server = None,
    data_dir: DataDir = None,
    site: Site = "",
    camera: Camera = None,
    since: Since = "",
    until: Until = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Write a page with the timeline of people over cameras; it needs no network to be read."""
    from matcher import page
    from matcher import report as reports

    wanted = _filter(site, camera, since, until)
    tls = _tls(tls_ca, tls_cert, tls_key, tls_dir)
    with _source(server, data_dir, tls, insecure) as source:
        found = reports.who(source, wanted)
        boxes = source.edges()
    page.write(out, page.page(found, boxes, made_ns=time.time_ns()))
    print(f"{out}: {reports.title(found)}")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="FILE.parquet or FILE.jsonl.")],
    server: Server = None,
    site: Site = "",
    after: Annotated[int, typer.Option(help="Only after this position of the ledger.")] = 0,
    embeddings: Annotated[bool, typer.Option(help="With the vectors.")] = True,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Write the sightings of the ledger, with their embeddings, for other programs."""
    from matcher import export as exports

    form = exports.form_of(out)
    with _client(server, _tls(tls_ca, tls_cert, tls_key, tls_dir), insecure) as client:
        records = _counted(client.read(after_position=after, site=site), "sightings")
        count = exports.export(records, out, form=form, embeddings=embeddings)
    print(f"{out}: {count} sightings")


# --- correcting -----------------------------------------------------------------------------------


@app.command()
def merge(
    identity: Annotated[str, typer.Argument(help="The identity that stays.")],
    other: Annotated[str, typer.Argument(help="The identity that is folded into it.")],
    server: Server = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Say that two identities are one person."""
    with _client(server, _tls(tls_ca, tls_cert, tls_key, tls_dir), insecure) as client:
        print(f"{other} is {client.merge(identity, other)} now")


@app.command()
def split(
    identity: Annotated[str, typer.Argument(help="The identity.")],
    tracklet: Annotated[list[str], typer.Argument(help="Tracklets that are another person.")],
    server: Server = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Take tracklets out of an identity."""
    with _client(server, _tls(tls_ca, tls_cert, tls_key, tls_dir), insecure) as client:
        print(f"{len(tracklet)} tracklets are {client.split(identity, tracklet)} now")


@app.command()
def forget(
    identity: Annotated[str, typer.Argument(help="The identity to delete everywhere, for ever.")],
    server: Server = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Delete an identity and its sightings: here, on the boxes, and again after a restore."""
    with _client(server, _tls(tls_ca, tls_cert, tls_key, tls_dir), insecure) as client:
        answer = client.forget(identity)
    print(
        f"{identity}: {answer.sightings} sightings deleted here; the boxes delete {answer.keys} "
        "as soon as they are connected"
    )


@app.command()
def retention(
    ledger: Annotated[
        str, typer.Option(help="Age at which sightings are deleted, such as 30d; '' as it is.")
    ] = "",
    identity: Annotated[
        str, typer.Option(help="Life of an identity after it was last seen, such as 1d.")
    ] = "",
    site: Annotated[str, typer.Option(help="The site; '' for all without a setting.")] = "",
    server: Server = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Set, or without flags show, how long things are kept."""
    with _client(server, _tls(tls_ca, tls_cert, tls_key, tls_dir), insecure) as client:
        answer = client.set_retention(
            site,
            ledger_s=_seconds(ledger) if ledger else 0.0,
            identity_s=_seconds(identity) if identity else 0.0,
        )
    print(f"sightings {answer.ledger_s / 86400:g} d, identities {answer.identity_s / 86400:g} d")


@app.command()
def calibrate(
    site: Annotated[str, typer.Argument(help="The site.")],
    space: Annotated[str, typer.Option(help="Only this space.")] = "",
    as_json: Json = False,
    server: Server = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_dir: TlsDir = None,
    insecure: Insecure = False,
) -> None:
    """Show how similar one person and two people look at a site, by pair of cameras."""
    from google.protobuf.json_format import MessageToDict
    from rich.table import Table

    with _client(server, _tls(tls_ca, tls_cert, tls_key, tls_dir), insecure) as client:
        answer = client.calibration(site, space)
    if as_json:
        print(json.dumps(MessageToDict(answer, preserving_proto_field_name=True)))
        return
    table = Table(
        header_style="bold",
        title=f"threshold in force: {answer.prior_threshold:.2f}",
        title_justify="left",
    )
    for name in ("space", "cameras", "one person", "pairs", "two people", "pairs"):
        table.add_column(name)
    for pair in answer.pairs:
        cameras = " – ".join(dict.fromkeys((pair.camera_a, pair.camera_b))) or "whole site"
        table.add_row(
            pair.space_id,
            cameras,
            f"{pair.positive_mean:.3f} ± {pair.positive_deviation:.3f}",
            str(pair.positive_pairs),
            f"{pair.negative_mean:.3f} ± {pair.negative_deviation:.3f}",
            str(pair.negative_pairs),
        )
    Console().print(table)


@app.command()
def backup(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    data_dir: DataDir = None,
) -> None:
    """Copy the ledger, also while the server runs; put the copy in place as ledger.db to restore.

    What is forgotten later stays forgotten: forgotten.jsonl is not part of the copy.
    """
    from matcher.backup import backup as copy

    rows = copy(data_dir or default_data_dir(), out)
    print(f"{out}: {rows} entries")


# --- certificates ---------------------------------------------------------------------------------

CertsDir = Annotated[Path, typer.Option("--dir", help="Folder of the CA.")]
Days = Annotated[int, typer.Option(help="How long it holds.", min=1)]
Renew = Annotated[bool, typer.Option("--renew", help="Make a new one in place of the old.")]


@certs_app.command("init")
def certs_init(
    folder: CertsDir = Path("certs"),
    name: Annotated[str, typer.Option(help="Name of the CA.")] = "edge-reid CA",
    days: Days = certificates.CA_DAYS,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="An existing CA is no error.")
    ] = False,
) -> None:
    """Make the CA that signs all others. Its key ca-key.pem belongs on no box."""
    if exist_ok and (folder / "ca.pem").exists():
        print(f"{folder / 'ca.pem'} is there already")
        return
    print(certificates.init(folder, name=name, days=days))


@certs_app.command("server")
def certs_server(
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address boxes use; may be repeated.")
    ] = None,
    folder: CertsDir = Path("certs"),
    days: Days = certificates.DAYS,
    renew: Renew = False,
) -> None:
    """Make the certificate of edge-match serve."""
    print(certificates.server(folder, hosts=host or [], days=days, renew=renew).cert.parent)


@certs_app.command("box")
def certs_box(
    name: Annotated[str, typer.Argument(help="The box's edge id.")],
    site: Annotated[str, typer.Option(help="The box's site.")],
    folder: CertsDir = Path("certs"),
    days: Days = certificates.DAYS,
    renew: Renew = False,
) -> None:
    """Make a box's certificate: copy the folder to tls/ in the box's data folder."""
    files = certificates.box(folder, edge_id=name, site=site, days=days, renew=renew)
    print(files.cert.parent)


@certs_app.command("query")
def certs_query(
    name: Annotated[str, typer.Argument(help="Who reads.")],
    site: Annotated[list[str] | None, typer.Option(help="Only this site; may be repeated.")] = None,
    folder: CertsDir = Path("certs"),
    days: Days = certificates.DAYS,
    renew: Renew = False,
) -> None:
    """Make a reader's certificate: who, watch, report, export."""
    files = certificates.reader(folder, name=name, sites=site or (), days=days, renew=renew)
    print(files.cert.parent)


@certs_app.command("admin")
def certs_admin(
    name: Annotated[str, typer.Argument(help="Who corrects and deletes.")],
    query: Annotated[bool, typer.Option("--query", help="May read as well.")] = False,
    folder: CertsDir = Path("certs"),
    days: Days = certificates.DAYS,
    renew: Renew = False,
) -> None:
    """Make an admin's certificate: merge, split, forget, retention, calibrate."""
    files = certificates.admin(folder, name=name, query=query, days=days, renew=renew)
    print(files.cert.parent)


# --- helpers --------------------------------------------------------------------------------------


def _tls(
    ca: Path | None, cert: Path | None, key: Path | None, folder: Path | None
) -> TlsFiles | None:
    given = [path for path in (ca, cert, key) if path is not None]
    if folder is not None:
        return TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    if not given:
        return None
    if ca is None or cert is None or key is None:
        raise SettingsError("--tls-ca, --tls-cert and --tls-key are given together, or --tls-dir")
    return TlsFiles(ca, cert, key)


@contextmanager
def _client(server: str | None, tls: TlsFiles | None, insecure: bool) -> Iterator[MatcherClient]:
    from matcher.client import MatcherClient

    client = MatcherClient(server or DEFAULT_SERVER, tls=tls, insecure=insecure)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _source(
    server: str | None, data_dir: Path | None, tls: TlsFiles | None, insecure: bool
) -> Iterator[Source]:
    """The server, or the files of one that does not run."""
    from matcher.client import LocalSource

    if server is not None and data_dir is not None:
        raise SettingsError("give --server or --data-dir, not both")
    if data_dir is None:
        with _client(server, tls, insecure) as client:
            yield client
        return
    local: LocalSource = LocalSource(data_dir)
    try:
        yield local
    finally:
        local.close()


def _filter(site: str, cameras: list[str] | None, since: str, until: str) -> SightingFilter:
    from reid.v1.query_pb2 import SightingFilter

    return SightingFilter(
        site=site,
        cameras=cameras or (),
        from_unix_nanos=_instant("--since", since),
        to_unix_nanos=_instant("--until", until),
    )


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(text: str) -> float:
    try:
        return float(text[:-1]) * _UNITS[text[-1:]]
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{text!r} is no age; write 90s, 15m, 2h or 30d") from error


def _instant(flag: str, text: str) -> int:
    """UTC in nanoseconds of an ISO time or an age; 0 for no text."""
    if not text:
        return 0
    if text[-1:] in _UNITS and "T" not in text and ":" not in text:
        return time.time_ns() - round(_seconds(text) * 1e9)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"{flag} {text!r}: write an ISO time such as 2026-05-01T08:30, or an age such as 90m"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1e9)


def _counted(records: Iterator[Any], what: str) -> Iterator[Any]:
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


def _say(error: BaseException) -> None:
    print(f"edge-match: {logs.mask(str(error))}", file=sys.stderr, flush=True)


def _run(work: Callable[[], None]) -> int:
    """Errors become one message and an exit code."""
    from matcher.client import ClientError
    from matcher.errors import NotAllowed
    from matcher.export import ExportError
    from matcher.server import AddressInUse

    try:
        work()
    except (SettingsError, TlsError, certificates.CertsError, ExportError) as error:
        _say(error)
        return ExitCode.USAGE
    except (AddressInUse, NotAllowed) as error:
        _say(error)
        return ExitCode.USAGE
    except ClientError as error:
        _say(error)
        return ExitCode.REFUSED
    except LedgerUnusable as error:
        _say(error)
        return ExitCode.LEDGER
    except MatcherError as error:
        _say(error)
        return ExitCode.FAULT
    except KeyboardInterrupt:
        return ExitCode.DONE
    except BrokenPipeError:
        # The reader of our output (head, less) has what it wants.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAULT
    except Exception:  # noqa: BLE001  # said, and the process ends
        structlog.get_logger("edge-match").exception("a fault of ours; please report it")
        return ExitCode.FAULT
    return ExitCode.DONE


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] != "--help"):
        arguments.insert(0, "serve")  # what most people want of a server
    logs.configure("text")
    sys.exit(_run(lambda: app(arguments)))


if __name__ == "__main__":
    main()
