"""Spool and uplink over mutual TLS: who is refused and why, and a change of the CA."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import TlsConfig
from matcher import certs
from reid.tls import TlsFiles
from tests.integration.delivery_rig import delivering, ledger
from tests.integration.matcher_rig import Serving
from tests.integration.test_matcher_security import Folder, expired_copy, make
from tests.support.waiting import eventually


def test_mutual_tls_delivers_and_a_foreign_certificate_is_named(tmp_path: Path) -> None:
    authority = tmp_path / "ca"
    certs.init(authority)
    server = certs.server(authority, hosts=["localhost"])
    good = certs.box(authority, edge_id="edge-1", site="site-1")
    stranger = tmp_path / "other"
    certs.init(stranger)
    foreign = certs.box(stranger, edge_id="edge-1", site="site-1")
    tls = {"ca": server.ca, "cert": server.cert, "key": server.key}
    with Serving(tmp_path / "matcher", tls=tls) as matcher:
        address = matcher.address.replace("127.0.0.1", "localhost")
        with delivering(tmp_path / "box", address, tls=_files(foreign)) as box:
            box.capture(10)
            eventually(lambda: bool(box.uplink.status().last_error), within_s=20)
            why = box.uplink.status().last_error
            kept = box.spool.counters().backlog
        with delivering(tmp_path / "box", address, tls=_files(good)) as box:
            box.delivered()

    assert kept == 10
    assert "certificate" in why.lower()
    assert len(ledger(tmp_path / "matcher").rows) == 10


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("theirs is foreign", "the server's certificate was not signed by the CA in"),
        ("ours is foreign", "(signed by CN=CA theirs"),
        ("ours has expired", "expired at"),
        ("none", "the server there wants certificates"),
    ],
)
def test_a_box_says_which_certificate_is_refused_and_why(
    tmp_path: Path, case: str, why: str
) -> None:
    ours, theirs = make(tmp_path / "ours"), make(tmp_path / "theirs")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.box.ca.read_bytes() + theirs.box.ca.read_bytes())
    files: TlsConfig = TlsConfig()
    if case == "theirs is foreign":
        files = _files(theirs.box)
    elif case == "ours is foreign":
        files = _files(TlsFiles(both, theirs.box.cert, theirs.box.key))
    elif case == "ours has expired":
        old = TlsFiles(ours.box.ca, tmp_path / "old.pem", tmp_path / "old-key.pem")
        expired_copy(ours, old)
        files = _files(old)
    with Serving(tmp_path / "matcher", tls=ours.tls) as matcher:
        address = matcher.address.replace("127.0.0.1", "localhost")
        with delivering(tmp_path / "box", address, tls=files) as box:
            box.capture(3)
            eventually(
                lambda: why in box.uplink.status().last_error,
                within_s=20,
                state=lambda: box.uplink.status().last_error,
            )
            kept = box.spool.counters().backlog

    assert kept == 3


def test_the_ca_is_changed_on_both_ends_while_everything_runs(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", box="edge-1"), make(tmp_path / "new", box="edge-1")
    cas = [one.box.ca.read_bytes() for one in (old, new)]
    server, client = (
        TlsFiles(*(tmp_path / f"{end}-{name}.pem" for name in ("ca", "cert", "key")))
        for end in ("server", "client")
    )

    def place(folder: Folder) -> None:
        for files, made in ((server, folder.server), (client, folder.box)):
            files.cert.write_bytes(made.cert.read_bytes())
            files.key.write_bytes(made.key.read_bytes())

    def trust(*authorities: bytes) -> None:
        for files in (server, client):
            files.ca.write_bytes(b"".join(authorities))

    def reached() -> None:
        """A stream that began after the last change delivers."""
        before = box.uplink.status().streams
        eventually(lambda: box.uplink.status().streams >= before + 2, within_s=20)
        box.capture(5)
        box.delivered()

    trust(cas[0])
    place(old)
    tls = {"ca": server.ca, "cert": server.cert, "key": server.key}
    with Serving(tmp_path / "matcher", tls=tls) as matcher:
        address = matcher.address.replace("127.0.0.1", "localhost")
        with delivering(tmp_path / "box", address, tls=_files(client), stream_age_s=0.2) as box:
            reached()
            trust(*cas)
            reached()
            place(new)
            reached()
            trust(cas[1])
            reached()
        late = TlsFiles(client.ca, old.box.cert, old.box.key)
        late.ca.write_bytes(b"".join(cas))
        with delivering(tmp_path / "late", address, tls=_files(late)) as shut_out:
            eventually(
                lambda: (
                    "refused our certificate" in shut_out.uplink.status().last_error
                    or "not in" in shut_out.uplink.status().last_error
                ),
                within_s=20,
                state=lambda: shut_out.uplink.status().last_error,
            )
            why = shut_out.uplink.status().last_error

    assert "(signed by CN=CA old" in why
    assert len(ledger(tmp_path / "matcher").rows) == 20


def _files(files: TlsFiles) -> TlsConfig:
    return TlsConfig(ca=files.ca, cert=files.cert, key=files.key)
