"""edge-match certs: init, server, box, query, admin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matcher import certs as certificates

app = typer.Typer(
    help="Make certificates: first init, then server, then one per box and reader.",
    no_args_is_help=True,
)

CertsDir = Annotated[Path, typer.Option("--dir", help="Folder of the CA.")]
Days = Annotated[int, typer.Option(help="How long it holds.", min=1, max=certificates.MOST_DAYS)]
ExistOk = Annotated[bool, typer.Option("--exist-ok", help="One that exists is no error.")]
Renew = Annotated[bool, typer.Option("--renew", help="Make a new one in place of the old.")]


@app.command("init")
def certs_init(
    folder: CertsDir = Path("certs"),
    name: Annotated[str, typer.Option(help="Name of the CA.")] = "edge-reid CA",
    days: Days = certificates.CA_DAYS,
    exist_ok: ExistOk = False,
) -> None:
    """Make the CA that signs all others. Its key ca-key.pem belongs on no box."""
    if exist_ok and (folder / "ca.pem").exists():
        print(f"{folder / 'ca.pem'} is there already")
        return
    print(certificates.init(folder, name=name, days=days))


@app.command("server")
def certs_server(
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address boxes use; may be repeated.")
    ] = None,
    folder: CertsDir = Path("certs"),
    days: Days = certificates.DAYS,
    renew: Renew = False,
    exist_ok: ExistOk = False,
) -> None:
    """Make the certificate of edge-match serve."""
    if exist_ok and not renew and _there(folder / "server"):
        return
    print(certificates.server(folder, hosts=host or [], days=days, renew=renew).cert.parent)


@app.command("box")
def certs_box(
    name: Annotated[str, typer.Argument(help="The box's edge id.")],
    site: Annotated[str, typer.Option(help="The box's site.")],
    folder: CertsDir = Path("certs"),
    days: Days = certificates.DAYS,
    renew: Renew = False,
    exist_ok: ExistOk = False,
) -> None:
    """Make a box's certificate: copy the folder to tls/ in the box's data folder."""
    if exist_ok and not renew and _there(folder / "box" / name):
        return
    files = certificates.box(folder, edge_id=name, site=site, days=days, renew=renew)
    print(files.cert.parent)


@app.command("query")
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


@app.command("admin")
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


def _there(folder: Path) -> bool:
    """Whether a certificate is in a folder; says so."""
    there = (folder / "cert.pem").exists() and (folder / "key.pem").exists()
    if there:
        print(f"{folder / 'cert.pem'} is there already")
    return there
