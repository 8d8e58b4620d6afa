"""Commands that read: who, edges, watch, report, export."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from matcher import cli_common as common
from matcher.cli_common import (
    Camera,
    DataDir,
    Insecure,
    Json,
    Server,
    Since,
    Site,
    TlsCa,
    TlsCert,
    TlsDir,
    TlsKey,
    Until,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (who, edges, watch, report, export):
        app.command()(command)


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

    wanted = common.filter_of(site, camera, since, until)
    tls = common.tls_files(tls_ca, tls_cert, tls_key, tls_dir)
    with common.source(server, data_dir, tls, insecure) as source:
        found = report.who(source, wanted)
    if as_json:
        print(json.dumps(report.as_json(found)))
    else:
        console = Console()
        console.print(report.title(found), style="bold", soft_wrap=True, highlight=False)
        console.print(report.table(found, tracklets=tracklets))


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

    with common.source(
        server, data_dir, common.tls_files(tls_ca, tls_cert, tls_key, tls_dir), insecure
    ) as source:
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
        table.add_column(name, no_wrap=name != "look at")
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

    with common.connected(
        server, common.tls_files(tls_ca, tls_cert, tls_key, tls_dir), insecure
    ) as client:
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

    wanted = common.filter_of(site, camera, since, until)
    tls = common.tls_files(tls_ca, tls_cert, tls_key, tls_dir)
    with common.source(server, data_dir, tls, insecure) as source:
        found = reports.who(source, wanted)
        boxes = source.edges()
    page.write(out, page.page(found, boxes, made_ns=time.time_ns()))
    print(f"{out}: {reports.title(found)}")


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
    with common.connected(
        server, common.tls_files(tls_ca, tls_cert, tls_key, tls_dir), insecure
    ) as client:
        records = common.counted(client.read(after_position=after, site=site), "sightings")
        count = exports.export(records, out, form=form, embeddings=embeddings)
    print(f"{out}: {count} sightings")
