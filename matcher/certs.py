"""Makes the certificates of one matcher: a CA of its own, then one certificate per box and reader.

Promise: private keys are written 0600 and never leave the folder; what exists is not written over
unless told to; each certificate says what its owner may do (reid.tls). ECDSA P-256, since small
boxes shake hands with it quickly.

    DIR/ca.pem, ca-key.pem              the CA; ca-key.pem belongs on no box
    DIR/server/{ca,cert,key}.pem        for edge-match serve
    DIR/box/NAME/{ca,cert,key}.pem      for the folder tls/ of a box
    DIR/query/NAME/…, DIR/admin/NAME/…  for who, watch, report; for merge, split, forget
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reid.peer import SCHEME, box_uri
from reid.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsError, TlsFiles, load

CA_KEY_FILE = "ca-key.pem"
CA_DAYS = 3650
DAYS = 397  # a year and a month: long enough to forget once, short enough to practise
_CLOCK_SLACK = datetime.timedelta(minutes=10)  # boxes without a battery clock start a little behind
MOST_DAYS = 36_500
_HOST = re.compile(r"^(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.?)+$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class CertsError(Exception):
    """Certificates cannot be made; the text says why and what to do."""


def init(folder: Path, *, name: str = "edge-reid CA", days: int = CA_DAYS) -> Path:
    """Make the CA; the path of its certificate.

    Raises:
        CertsError: there is one already, or the folder cannot be written.
    """
    target = folder / CA_FILE
    if target.exists() or (folder / CA_KEY_FILE).exists():
        raise CertsError(
            f"{folder} has a CA already; every certificate comes from it. Give another --dir, or "
            "remove the folder to begin anew"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    certificate = builder.sign(key, hashes.SHA256())
    _write(folder / CA_KEY_FILE, _pem_key(key), private=True)
    _write(target, certificate.public_bytes(serialization.Encoding.PEM), private=False)
    return target


def server(
    folder: Path, *, hosts: Sequence[str], days: int = DAYS, renew: bool = False
) -> TlsFiles:
    """Make the server's certificate.

    Args:
        hosts: names and addresses under which boxes reach it; localhost is always among them.
    """
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"{SCHEME}://server")]
    for host in dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            if not _HOST.match(host):
                raise CertsError(
                    f"--host {host!r} is no host's name or address: letters, digits, dash and dot "
                    "(a name of other letters in its xn-- form), without a port"
                ) from None
            names.append(x509.DNSName(host))
    return _issue(
        folder,
        folder / "server",
        hosts[0] if hosts else "localhost",
        names,
        ExtendedKeyUsageOID.SERVER_AUTH,
        days,
        renew,
    )


def box(
    folder: Path, *, edge_id: str, site: str, days: int = DAYS, renew: bool = False
) -> TlsFiles:
    """Make a box's certificate: it may send as this edge_id of this site, and nothing else."""
    uri = x509.UniformResourceIdentifier(box_uri(site, edge_id))
    return _issue(
        folder,
        folder / "box" / _folder_name(edge_id),
        edge_id,
        [uri],
        ExtendedKeyUsageOID.CLIENT_AUTH,
        days,
        renew,
    )


def reader(
    folder: Path, *, name: str, sites: Sequence[str] = (), days: int = DAYS, renew: bool = False
) -> TlsFiles:
    """Make a reader's certificate: it may query these sites, or all where none is named."""
    uris = [f"{SCHEME}://query/{quote(site, safe='')}" for site in sites] or [f"{SCHEME}://query"]
    return _issue(
        folder,
        folder / "query" / _folder_name(name),
        name,
        [x509.UniformResourceIdentifier(uri) for uri in uris],
        ExtendedKeyUsageOID.CLIENT_AUTH,
        days,
        renew,
    )


def admin(
    folder: Path, *, name: str, query: bool = False, days: int = DAYS, renew: bool = False
) -> TlsFiles:
    """Make an admin's certificate: it may merge, split, forget; and query only if said."""
    uris = [f"{SCHEME}://admin"] + ([f"{SCHEME}://query"] if query else [])
    return _issue(
        folder,
        folder / "admin" / _folder_name(name),
        name,
        [x509.UniformResourceIdentifier(uri) for uri in uris],
        ExtendedKeyUsageOID.CLIENT_AUTH,
        days,
        renew,
    )


def _issue(
    folder: Path,
    target: Path,
    name: str,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    days: int,
    renew: bool,
) -> TlsFiles:
    files = TlsFiles(target / CA_FILE, target / CERT_FILE, target / KEY_FILE)
    if files.cert.exists() and not renew:
        raise CertsError(f"{files.cert} exists; give --renew to make a new one in its place")
    if len(name) > 64:
        name = name[:61] + "..."  # X.509's bound of a common name; the URI holds all of it
    ca, ca_key = _authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, ca.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_usage(sign=False), True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
    )
    certificate = builder.sign(ca_key, hashes.SHA256())
    _write(files.key, _pem_key(key), private=True)
    _write(files.cert, certificate.public_bytes(serialization.Encoding.PEM), private=False)
    if not files.ca.exists():
        shutil.copyfile(folder / CA_FILE, files.ca)
    try:
        load(files)
    except TlsError as error:
        raise CertsError(str(error)) from error
    return files


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        key = serialization.load_pem_private_key((folder / CA_KEY_FILE).read_bytes(), None)
    except OSError as error:
        raise CertsError(
            f"{folder}: no CA there ({error.filename}: {error.strerror}); begin with "
            f"edge-match certs init --dir {folder}"
        ) from error
    except (ValueError, TypeError) as error:
        raise CertsError(f"{folder}: the CA's files cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertsError(f"{folder / CA_KEY_FILE}: not a key that edge-match certs made")
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, *, private: bool) -> None:
    """Write beside and rename, so that a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.unlink(missing_ok=True)
        rights = 0o600 if private else 0o644
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, rights)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        raise CertsError(
            f"{path}: cannot be written ({error.strerror}); check folder and rights"
        ) from error


def _folder_name(name: str) -> str:
    if not _NAME.match(name):
        raise CertsError(
            f"{name!r} cannot be a folder's name: letters, digits, dot, dash and underscore, at "
            "most 100 characters"
        )
    return name
