"""deploy/compose.yaml, its own commands run in its order as processes, volumes being folders.

No container engine takes part: what is tried is that the certificates that the one-shot service
makes let the box and the matcher of the file talk to each other over mutual TLS.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from matcher import certs
from matcher.client import MatcherClient
from tests.support.processes import MatcherProcess, free_port, run_box
from tests.support.standins import write_film, write_models

ROOT = Path(__file__).resolve().parents[2]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


def command(service: str, volumes: Path, **change: str) -> list[str]:
    """A service's command, with the places where its volumes are mounted replaced by folders."""
    words = list(FILE["services"][service]["command"])
    mounts = [
        one.split(":")[:2]
        for one in FILE["services"][service]["volumes"]
        if not one.startswith("$")
    ]
    for name, place in sorted(mounts, key=lambda mount: -len(mount[1])):
        words = [word.replace(place, str(volumes / name)) for word in words]
    for old, new in change.items():
        words = [word.replace(PLACES[old], new) for word in words]
    return words


PLACES = {"listen": "0.0.0.0:7443", "matcher": "matcher:7443"}


def make_certificates(volumes: Path) -> None:
    """Run the one-shot service: nested mounts are folders in folders, as links."""
    service = FILE["services"]["certs"]
    root = volumes / "ca"
    for one in sorted(service["volumes"], key=lambda mount: len(mount)):
        name, place = one.split(":")
        folder = volumes / name
        folder.mkdir(parents=True, exist_ok=True)
        if place != "/certs":
            link = root / Path(place).relative_to("/certs")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(folder, target_is_directory=True)
    tools = volumes / "bin"
    tools.mkdir(exist_ok=True)
    tool = tools / "edge-match"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m matcher.cli "$@"\n')
    tool.chmod(0o755)
    script = service["command"][0].replace("/certs", str(root))
    subprocess.run(
        [*service["entrypoint"], script],
        check=True,
        timeout=120,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )


def test_the_services_of_compose_deliver_over_mutual_tls(tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    make_certificates(volumes)
    first = (volumes / "box-tls" / "cert.pem").read_bytes()
    make_certificates(volumes)  # a second `up` changes nothing
    reader = certs.reader(volumes / "ca", name="reader")
    port = free_port()
    serve = command("matcher", volumes, listen=f"127.0.0.1:{port}")
    box = command("box", volumes, matcher=f"localhost:{port}")
    film = write_film(tmp_path / "hall.mp4")
    arguments = [word for word in box if not word.startswith("--source=")]
    listen = next(word for word in serve if word.startswith("--listen=")).partition("=")[2]
    tls = [word for word in serve if word.startswith("--tls-")]

    with MatcherProcess(volumes / "ledger", *tls, listen=listen):
        done = run_box(
            volumes / "spool",
            write_models(tmp_path / "models"),
            "--source",
            f"hall={film}",
            *arguments,
        )
        with MatcherClient(f"localhost:{port}", tls=reader) as client:
            (edge,) = client.edges()

    assert (volumes / "box-tls" / "cert.pem").read_bytes() == first
    assert len(tls) == 3
    assert done.code == 0, done.stderr
    assert done.summary["sightings"]["acked"] == edge.committed > 0
    assert (edge.site, edge.edge_id) == ("demo", "box-1")


def test_nothing_in_compose_goes_in_the_open_and_no_private_key_is_shared() -> None:
    services = FILE["services"]
    holders: dict[str, set[str]] = {}
    for name, service in services.items():
        for mount in service.get("volumes", ()):
            holders.setdefault(mount.split(":")[0], set()).add(name)

    assert not any(
        "--insecure" in word for one in services.values() for word in one.get("command", ())
    )
    assert holders["ca"] == {"certs"}
    assert holders["matcher-tls"] == {"certs", "matcher"}
    assert holders["box-tls"] == {"certs", "box"}
    for name in ("matcher", "box"):
        assert (
            services[name]["depends_on"]["certs"]["condition"] == "service_completed_successfully"
        )
