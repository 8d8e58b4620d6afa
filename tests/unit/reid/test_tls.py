"""Certificates are checked in words before the first connection; peers are read from them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from matcher import certs
from reid.peer import LOCAL_PEER, box_uri, peer_from_context, peer_from_uris
from reid.tls import (
    CertificateExpired,
    CertificateForeign,
    CertificateUnreadable,
    PlainRefused,
    ServerCertificates,
    TlsError,
    TlsFiles,
    host_of,
    is_loopback,
    load,
    require_safe,
)
from reid.tls_diagnose import diagnose


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "certs"
    certs.init(path)
    certs.box(path, edge_id="box.1", site="Süd 1/2")
    certs.server(path, hosts=["matcher.example"])
    return path


def files_of(folder: Path) -> TlsFiles:
    found = TlsFiles.in_folder(folder / "box" / "box.1")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:7443", True),
        ("127.8.9.1:1", True),
        ("[::1]:7443", True),
        ("localhost:7443", True),
        ("unix:/tmp/x", True),
        ("ipv4:127.0.0.1:40000", True),
        ("ipv6:%5B::1%5D:40000", True),
        ("0.0.0.0:7443", False),
        ("[::]:7443", False),
        ("10.0.0.1:7443", False),
        ("localhost.example:7443", False),
        ("127.0.0.1.example:7443", False),
        ("matcher:7443", False),
    ],
)
def test_loopback_is_only_this_machine(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


def test_the_host_is_read_from_every_form_of_address() -> None:
    assert host_of("[fe80::1%eth0]:5") == "fe80::1%eth0"
    assert host_of("dns:///matcher:7443") == "matcher"


def test_plain_beyond_loopback_is_refused_unless_the_owner_says_so(folder: Path) -> None:
    with pytest.raises(PlainRefused, match=r"10\.0\.0\.1.*--tls-ca.*--insecure"):
        require_safe("10.0.0.1:7443", None, insecure=False, flags="--tls-ca")

    require_safe("10.0.0.1:7443", None, insecure=True, flags="--tls-ca")
    require_safe("10.0.0.1:7443", files_of(folder), insecure=False, flags="--tls-ca")
    require_safe("127.0.0.1:7443", None, insecure=False, flags="--tls-ca")


def test_a_boxs_certificate_names_edge_and_site_and_gives_no_other_right(folder: Path) -> None:
    peer = load(files_of(folder)).peer

    assert (peer.edge_id, peer.site) == ("box.1", "Süd 1/2")
    assert peer.is_box
    assert not peer.admin
    assert not peer.may_query("Süd 1/2")


@pytest.mark.parametrize(
    ("uris", "sites", "admin"),
    [
        (["edge-reid://query"], None, False),
        (["edge-reid://query/a", "edge-reid://query/b%2Fc"], {"a", "b/c"}, False),
        (["edge-reid://admin"], set(), True),
        (["edge-reid://admin", "edge-reid://query"], None, True),
        (["https://query", "spiffe://admin"], set(), False),
        (["edge-reid://box/only-site"], set(), False),
        ([], set(), False),
    ],
)
def test_rights_are_read_from_names(uris: list[str], sites: set[str] | None, admin: bool) -> None:
    peer = peer_from_uris(uris)

    assert peer.query_sites == (None if sites is None else frozenset(sites))
    assert peer.admin is admin
    assert not peer.is_box


def test_a_plain_connection_has_no_peer_and_a_tls_one_has() -> None:
    assert peer_from_context({}) is None
    peer = peer_from_context(
        {
            "transport_security_type": [b"ssl"],
            "x509_common_name": [b"gate"],
            "peer_uri": [box_uri("s", "e").encode()],
        }
    )

    assert peer is not None
    assert (peer.name, peer.edge_id, peer.site) == ("gate", "e", "s")
    assert LOCAL_PEER.may_query()


def test_an_expired_certificate_says_when_it_ended(folder: Path) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=certs.DAYS + 1)
    earlier = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    with pytest.raises(CertificateExpired, match=r"expired at .* UTC; make a new one"):
        load(files_of(folder), now=later)
    with pytest.raises(CertificateExpired, match="check the clock"):
        load(files_of(folder), now=earlier)


def test_a_certificate_of_another_ca_is_foreign(folder: Path, tmp_path: Path) -> None:
    certs.init(tmp_path, name="another CA")
    files = files_of(folder)

    with pytest.raises(CertificateForeign, match="not in"):
        load(TlsFiles(tmp_path / "ca.pem", files.cert, files.key))


def test_a_key_of_another_certificate_is_said(folder: Path) -> None:
    files = files_of(folder)

    with pytest.raises(CertificateUnreadable, match="is not the key of"):
        load(TlsFiles(files.ca, files.cert, folder / "server" / "key.pem"))


@pytest.mark.parametrize("which", ["ca", "cert", "key"])
def test_a_missing_or_broken_file_is_named(folder: Path, tmp_path: Path, which: str) -> None:
    files = files_of(folder)
    paths = {"ca": files.ca, "cert": files.cert, "key": files.key}
    broken = tmp_path / f"{which}.pem"
    paths[which] = broken

    with pytest.raises(CertificateUnreadable, match=str(broken)):
        load(TlsFiles(**paths))
    broken.write_text("no PEM")
    with pytest.raises(CertificateUnreadable, match=str(broken)):
        load(TlsFiles(**paths))


def test_no_folder_is_no_certificate(tmp_path: Path) -> None:
    assert TlsFiles.in_folder(tmp_path) is None


def test_a_server_takes_up_changed_files_and_keeps_the_good_ones(tmp_path: Path) -> None:
    certs.init(tmp_path)
    files = certs.server(tmp_path, hosts=["a"])
    said: list[object] = []
    server = ServerCertificates(files, on_reload=said.append, on_error=said.append)
    first = server.bundle

    assert server.refresh() is None
    certs.server(tmp_path, hosts=["b"], renew=True)
    second = server.refresh()
    files.key.write_text("broken")
    assert server.refresh() is None
    assert server.refresh() is None

    assert second is not None
    assert second.cert != first.cert
    assert server.bundle is second
    assert [type(one) for one in said] == [type(second), CertificateUnreadable]


def test_two_cas_in_one_file_are_both_trusted_so_that_a_ca_can_be_changed(
    folder: Path, tmp_path: Path
) -> None:
    certs.init(tmp_path, name="the next CA")
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "ca.pem").read_bytes() + (folder / "ca.pem").read_bytes())
    files = files_of(folder)

    assert load(TlsFiles(both, files.cert, files.key)).peer.edge_id == "box.1"


@pytest.mark.parametrize("address", ["center..example:7443", f"{'x' * 70}:7443", "127.0.0.1"])
def test_an_address_that_cannot_be_looked_up_is_said(address: str) -> None:
    assert diagnose(address, None) == (
        f"{address}: no HOST:PORT that can be looked up; check it for spelling"
    )


def test_diagnosis_names_what_is_wrong_with_the_way(folder: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    files = files_of(folder)

    assert "nothing listens" in str(diagnose(f"127.0.0.1:{port}", files))
    assert "cannot be read" in str(
        diagnose("127.0.0.1:1", TlsFiles(tmp_path / "x", files.cert, files.key))
    )
    assert issubclass(PlainRefused, TlsError)
