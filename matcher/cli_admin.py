"""Commands that correct, delete and keep: merge, split, forget, retention, calibrate, backup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from matcher import cli_common as common
from matcher.cli_common import DataDir, Insecure, Json, Server, TlsCa, TlsCert, TlsDir, TlsKey
from matcher.config import default_data_dir


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (merge, split, forget, retention, calibrate, backup):
        app.command()(command)


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
    with common.connected(
        server, common.tls_files(tls_ca, tls_cert, tls_key, tls_dir), insecure
    ) as client:
        print(f"{other} is {client.merge(identity, other)} now")


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
    with common.connected(
        server, common.tls_files(tls_ca, tls_cert, tls_key, tls_dir), insecure
    ) as client:
        print(f"{len(tracklet)} tracklets are {client.split(identity, tracklet)} now")


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
    with common.connected(
        server, common.tls_files(tls_ca, tls_cert, tls_key, tls_dir), insecure
    ) as client:
        answer = client.forget(identity)
    print(
        f"{identity}: {answer.sightings} sightings deleted here; the boxes delete {answer.keys} "
        "as soon as they are connected"
    )


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
    with common.connected(
        server, common.tls_files(tls_ca, tls_cert, tls_key, tls_dir), insecure
    ) as client:
        answer = client.set_retention(
            site,
            ledger_s=common.seconds(ledger) if ledger else 0.0,
            identity_s=common.seconds(identity) if identity else 0.0,
        )
    print(f"sightings {answer.ledger_s / 86400:g} d, identities {answer.identity_s / 86400:g} d")


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

    with common.connected(
        server, common.tls_files(tls_ca, tls_cert, tls_key, tls_dir), insecure
    ) as client:
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
