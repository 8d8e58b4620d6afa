"""Who gets in: mutual TLS, names bound to certificates, rights, rotation, and the messages."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from matcher import certs
from matcher.client import MatcherClient, Refused, Unreachable
from reid.ranges import KeyRanges
from reid.tls import PlainRefused, TlsFiles, load
from reid.v1.query_pb2 import SightingFilter
from tests.integration.matcher_rig import Box, Serving, record, rows
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Folder:
    """Certificates of one matcher."""

    path: Path
    server: TlsFiles
    box: TlsFiles
    query: TlsFiles
    admin: TlsFiles

    @property
    def tls(self) -> dict[str, Path]:
        """The server's settings."""
        return {"ca": self.server.ca, "cert": self.server.cert, "key": self.server.key}


def make(path: Path, *, box: str = "box") -> Folder:
    """A CA with one certificate of each kind."""
    certs.init(path, name=f"CA {path.name}")
    return Folder(
        path,
        certs.server(path, hosts=["localhost"]),
        certs.box(path, edge_id=box, site="site" if box == "box" else "site-1"),
        certs.reader(path, name="reader"),
        certs.admin(path, name="boss"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Certificates that the tests share and do not change."""
    return make(tmp_path_factory.mktemp("certs") / "ours")


def test_a_box_with_its_certificate_delivers(tmp_path: Path, folder: Folder) -> None:
    with (
        Serving(tmp_path, tls=folder.tls) as serving,
        Box(serving.address, tls=folder.box) as box,
    ):
        box.welcome()
        box.batch(record(box.writer_id, 1))

        assert len(box.acked(1)) == 1


def test_edge_id_and_site_are_bound_to_the_certificate(tmp_path: Path, folder: Folder) -> None:
    with Serving(tmp_path, tls=folder.tls) as serving:
        with Box(serving.address, tls=folder.box, edge_id="other") as box:
            code = box.status()
            details = box.call.details()
        with Box(serving.address, tls=folder.box, site="elsewhere") as box:
            other = box.status()
        with Box(serving.address, tls=folder.query) as box:
            reader = box.status()

    assert (code, other, reader) == (grpc.StatusCode.PERMISSION_DENIED,) * 3
    assert "'box'" in details
    assert "--edge-id" in details


def test_query_and_admin_are_rights_of_their_own(tmp_path: Path, folder: Folder) -> None:
    with Serving(tmp_path, tls=folder.tls) as serving:
        with MatcherClient(serving.address, tls=folder.query) as reader:
            assert list(reader.identities(SightingFilter())) == []
            with pytest.raises(Refused, match="not an admin's"):
                reader.forget("x")
        with MatcherClient(serving.address, tls=folder.admin) as boss:
            with pytest.raises(Refused, match="may not read"):
                list(boss.identities(SightingFilter()))
            with pytest.raises(Refused, match="no identity"):
                boss.forget("x")
        with (
            MatcherClient(serving.address, tls=folder.box) as box,
            pytest.raises(Refused, match="may not read"),
        ):
            box.edges()


def test_a_reader_of_one_site_sees_only_that_site(tmp_path: Path, folder: Folder) -> None:
    here = certs.reader(folder.path, name="here", sites=["site"], renew=True)
    there = certs.reader(folder.path, name="there", sites=["elsewhere"], renew=True)
    with Serving(tmp_path, tls=folder.tls) as serving:
        with Box(serving.address, tls=folder.box) as box:
            box.welcome()
            box.batch(record(box.writer_id, 1, person=1))
            box.acked(1)
        serving.caught_up()

        with MatcherClient(serving.address, tls=here) as client:
            assert len(list(client.identities(SightingFilter()))) == 1
            assert len(list(client.read())) == 1
            assert len(client.edges()) == 1
            with pytest.raises(Refused, match="'elsewhere'"):
                list(client.identities(SightingFilter(site="elsewhere")))
        with MatcherClient(serving.address, tls=there) as client:
            assert list(client.identities(SightingFilter())) == []
            assert list(client.read()) == []
            assert client.edges() == []


def test_beyond_loopback_nothing_is_served_or_asked_in_the_open(tmp_path: Path) -> None:
    with (
        pytest.raises(PlainRefused, match="edge-match certs"),
        Serving(tmp_path, listen=("0.0.0.0:0",)),
    ):
        pass
    with pytest.raises(PlainRefused, match="--insecure"):
        MatcherClient("10.0.0.1:7443")


def test_insecure_is_allowed_and_said_in_readyz(tmp_path: Path) -> None:
    with Serving(tmp_path, listen=("0.0.0.0:0",), tls={"insecure": True}) as serving:
        state = serving.server.readiness()

    assert state["ready"]
    assert "plain beyond loopback (--insecure)" in state["degraded"]


def test_a_new_server_certificate_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    folder = make(tmp_path / "certs")
    with Serving(tmp_path / "data", tls=folder.tls) as serving:
        before = _served(serving.address, folder)
        with Box(serving.address, tls=folder.box) as open_stream:
            open_stream.welcome()

            certs.server(folder.path, hosts=["localhost"], renew=True)
            after = _served(serving.address, folder)
            open_stream.batch(record(open_stream.writer_id, 1))
            open_stream.acked(1)

    assert before != after
    assert after == load(folder.server).leaf.serial_number


def test_a_broken_new_certificate_leaves_the_old_one_in_use_and_readyz_says_so(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "certs")
    with Serving(tmp_path / "data", tls=folder.tls) as serving:
        before = _served(serving.address, folder)
        folder.server.key.write_text("half a fi")

        after = _served(serving.address, folder)
        state = serving.server.readiness()

    assert before == after
    assert not state["ready"]
    assert str(folder.server.key) in str(state["degraded"])


def _served(address: str, folder: Folder) -> int:
    """Serial number of the certificate that a new connection gets."""
    import socket
    import ssl

    from cryptography import x509

    context = ssl.create_default_context(cafile=str(folder.box.ca))
    context.load_cert_chain(folder.box.cert, folder.box.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


@contextmanager
def process(data_dir: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """`edge-match serve` as a process: (process, address, its stderr)."""
    data_dir.mkdir(parents=True, exist_ok=True)
    said = data_dir / "stderr"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_")}
    with said.open("w") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-m", "matcher.cli", "serve", "--listen", "127.0.0.1:0",
             "--metrics", "off", "--data-dir", str(data_dir), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environ,
        )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, said.read_text()
        yield server, json.loads(line)["address"], said
    finally:
        server.kill()
        server.communicate()


def test_a_refused_certificate_is_explained_on_both_ends(tmp_path: Path, folder: Folder) -> None:
    foreign = make(tmp_path / "foreign")
    # A client that trusts our server and shows a certificate of another CA.
    both = tmp_path / "both.pem"
    both.write_bytes(foreign.query.ca.read_bytes() + folder.server.ca.read_bytes())
    stranger = TlsFiles(both, foreign.query.cert, foreign.query.key)
    expired = TlsFiles(folder.query.ca, tmp_path / "old.pem", tmp_path / "old-key.pem")
    expired_copy(folder, expired)
    arguments = [f"--tls-{name}={path}" for name, path in folder.tls.items()]
    with process(tmp_path / "data", *arguments) as (_, address, said):
        with (
            MatcherClient(address, tls=stranger, timeout_s=5) as client,
            pytest.raises(Unreachable, match="refused our certificate"),
        ):
            client.edges()
        eventually(
            lambda: "signed by another CA" in said.read_text(), within_s=10, state=said.read_text
        )
        channel = grpc.secure_channel(
            address,
            grpc.ssl_channel_credentials(
                expired.ca.read_bytes(), expired.key.read_bytes(), expired.cert.read_bytes()
            ),
        )
        with channel, pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=2)
        eventually(
            lambda: "certificate has expired" in said.read_text(),
            within_s=10,
            state=said.read_text,
        )
        with (
            MatcherClient(address, timeout_s=5) as client,
            pytest.raises(Unreachable, match="wants certificates"),
        ):
            client.edges()
        with (
            MatcherClient(address, tls=foreign.query, timeout_s=5) as client,
            pytest.raises(Unreachable, match="not signed by the CA in"),
        ):
            client.edges()


def expired_copy(folder: Folder, files: TlsFiles) -> None:
    """A reader's certificate of our CA that ended yesterday."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    ca = x509.load_pem_x509_certificate((folder.path / "ca.pem").read_bytes())
    key_bytes = (folder.path / "ca-key.pem").read_bytes()
    ca_key = serialization.load_pem_private_key(key_bytes, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now - datetime.timedelta(days=1))
        .sign(ca_key, hashes.SHA256())
    )
    files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def test_what_was_acked_survives_kill_9_in_the_middle_of_commits(tmp_path: Path) -> None:
    acked = KeyRanges()
    with process(tmp_path / "data") as (server, address, _):
        box = Box(address)
        with box:
            box.welcome()
            box.batch(*[record(box.writer_id, seq, person=seq) for seq in range(1, 2001)])
            try:
                while True:
                    for one in box.read().ack.ranges:
                        acked.add_range(one.writer_id, one.first, one.last)
                    if len(acked) > 300:
                        server.send_signal(signal.SIGKILL)
            except grpc.RpcError:
                pass
    writer = box.writer_id
    issued = KeyRanges()
    issued.add_range(writer, 1, 2000)

    with process(tmp_path / "data") as (server, address, _):
        with Box(address, writer_id=writer, issued=issued.messages()) as again:
            committed = KeyRanges(again.welcome().committed)
            rest = issued.minus(committed)
            missing = [seq for first, last in rest.of(writer) for seq in range(first, last + 1)]
            again.batch(*[record(writer, seq, person=seq) for seq in missing])
            again.acked(len(missing))
        server.terminate()
        code = server.wait(20)

    assert len(acked) > 300
    assert acked.minus(committed) == KeyRanges()
    assert code == 0
    assert sorted(rows(tmp_path / "data")) == [(writer, seq) for seq in range(1, 2001)]


def test_the_server_ends_with_its_parent(tmp_path: Path) -> None:
    with process(tmp_path / "data", "--exit-with-parent") as (server, _, said):
        assert server.stdin is not None
        server.stdin.close()

        assert server.wait(20) == 0
        assert "draining" in said.read_text()
        server.stdin = None


def test_certificates_are_made_readable_only_by_their_owner(tmp_path: Path) -> None:
    folder = make(tmp_path / "certs")

    keys = sorted(folder.path.rglob("*key.pem"))

    assert len(keys) == 5
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    with pytest.raises(certs.CertsError, match="--renew"):
        certs.box(folder.path, edge_id="box", site="site")
    with pytest.raises(certs.CertsError, match="has a CA already"):
        certs.init(folder.path)
    with pytest.raises(certs.CertsError, match="certs init"):
        certs.box(tmp_path / "nothing", edge_id="box", site="site")
    shutil.rmtree(folder.path)


def test_a_new_process_takes_the_ledger_over_while_the_old_one_drains(tmp_path: Path) -> None:
    with process(tmp_path / "data") as (old, address, _):
        with Box(address) as box:
            box.welcome()
            box.batch(record(box.writer_id, 1))
            box.acked(1)
        waiting = threading.Thread(target=old.wait)
        with ThreadPoolExecutor(1) as pool:
            successor = process(tmp_path / "data")
            started = pool.submit(successor.__enter__)
            old.send_signal(signal.SIGTERM)
            waiting.start()
            _, new_address, _ = started.result(30)
        waiting.join()
        held = KeyRanges()
        held.add_range(box.writer_id, 1, 1)
        with Box(new_address, writer_id=box.writer_id, held=held.messages()) as again:
            committed = KeyRanges(again.welcome().committed)
        successor.__exit__(None, None, None)

    assert old.returncode == 0
    assert committed == held
