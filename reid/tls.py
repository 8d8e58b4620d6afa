"""Who may talk to whom: loopback may be plain, anything else is mutual TLS or refused.

Promise: credentials are made only from files that fit together (certificate, key, CA, dates), and
what does not fit is said in words before the first connection; files that change on disk are taken
up by a server at the next handshake and by a client at its next channel. Any thread may call;
nothing is kept but what the returned objects keep.

    TlsError
    ├── PlainRefused          a plain address beyond loopback
    ├── CertificateUnreadable a file is missing, not PEM, or the key is not the certificate's
    ├── CertificateExpired    its time is over or has not come
    └── CertificateForeign    it was not signed by the CA beside it
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from reid.peer import Peer, peer_from_uris

CA_FILE, CERT_FILE, KEY_FILE = "ca.pem", "cert.pem", "key.pem"

# Both ends: the server's minimum stays strictly below the client's interval (equal values trip on
# jitter: "too_many_pings").
KEEPALIVE_S = 10.0
KEEPALIVE_TIMEOUT_S = 10.0
SERVER_MIN_PING_S = 5.0


class TlsError(Exception):
    """The connection cannot be made safe; the text says what, where and what to do.

    Attributes:
        path: the file concerned, if one is.
        cure: what to do.
    """

    def __init__(self, problem: str, cure: str, path: Path | None = None) -> None:
        super().__init__(f"{problem}; {cure}")
        self.problem = problem
        self.cure = cure
        self.path = path


class PlainRefused(TlsError):
    """A plain address beyond loopback."""


class CertificateUnreadable(TlsError):
    """A file is missing, is not PEM, or the key is not the certificate's."""


class CertificateExpired(TlsError):
    """The certificate's time is over, or has not come."""


class CertificateForeign(TlsError):
    """The certificate was not signed by the CA beside it."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Three PEM files of one end: the CA it trusts, its certificate, its key."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def in_folder(cls, folder: Path) -> TlsFiles | None:
        """ca.pem, cert.pem and key.pem of a folder; None where none of the three is there."""
        files = cls(folder / CA_FILE, folder / CERT_FILE, folder / KEY_FILE)
        return files if any(path.exists() for path in files.paths()) else None

    def paths(self) -> tuple[Path, Path, Path]:
        """CA, certificate, key."""
        return self.ca, self.cert, self.key

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Changes when a file changes: (inode, size, mtime in ns) of each; zeros where missing."""
        stamps = []
        for path in self.paths():
            try:
                state = path.stat()
                stamps.append((state.st_ino, state.st_size, state.st_mtime_ns))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of three files that fit together.

    Attributes:
        ca, cert, key: PEM.
        leaf: the certificate, parsed.
    """

    ca: bytes
    cert: bytes
    key: bytes
    leaf: x509.Certificate

    @property
    def not_after(self) -> datetime.datetime:
        """When the certificate ends, UTC."""
        return self.leaf.not_valid_after_utc

    @property
    def peer(self) -> Peer:
        """What the certificate says about its owner."""
        return peer_from_uris(_uris(self.leaf))


def host_of(address: str) -> str:
    """The host of HOST:PORT, [V6]:PORT, or a gRPC peer such as ipv4:127.0.0.1:40000."""
    if address.startswith("unix:"):
        return "localhost"
    for prefix in ("ipv4:", "ipv6:", "dns:///", "dns:"):
        address = address.removeprefix(prefix)
    address = unquote(address)
    host = address.rpartition(":")[0] if not address.endswith("]") else address
    return (host or address).strip("[]")


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT can only be this machine: 127.0.0.0/8, ::1, localhost, a unix socket."""
    host = host_of(address).rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def require_safe(address: str, files: TlsFiles | None, *, insecure: bool, flags: str) -> None:
    """Loopback may be plain; anything else needs TLS, or an owner who said insecure.

    Args:
        flags: what to give, for the message, such as "--tls-ca, --tls-cert and --tls-key".
    Raises:
        PlainRefused: it would be plain and is not loopback.
    """
    if files is None and not insecure and not is_loopback(address):
        raise PlainRefused(
            f"{address} is not on this machine and no certificate is given, so embeddings would "
            "travel in the open",
            f"give {flags} (edge-match certs makes them), or --insecure if you accept that",
        )


def load(files: TlsFiles, *, now: datetime.datetime | None = None) -> Bundle:
    """Read three files and check that they fit together.

    Raises:
        CertificateUnreadable, CertificateExpired, CertificateForeign: as said there.
    """
    ca, cert, key = (_read(path) for path in files.paths())
    try:
        authorities = x509.load_pem_x509_certificates(ca)
    except ValueError as error:
        raise _unreadable(files.ca, "no certificate in PEM form") from error
    try:
        leaf = x509.load_pem_x509_certificates(cert)[0]
    except ValueError as error:
        raise _unreadable(files.cert, "no certificate in PEM form") from error
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unreadable(files.key, "no private key in PEM form without a password") from error
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    der = serialization.Encoding.DER
    if private.public_key().public_bytes(der, spki) != leaf.public_key().public_bytes(der, spki):
        raise CertificateUnreadable(
            f"{files.key} is not the key of {files.cert}",
            "give the two files that were made together",
            files.key,
        )
    moment = now or datetime.datetime.now(datetime.UTC)
    check_dates(leaf, str(files.cert), moment, files.cert)
    for authority in authorities:
        try:
            leaf.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        check_dates(authority, f"{files.ca} (the CA)", moment, files.ca)
        return Bundle(ca, cert, key, leaf)
    raise CertificateForeign(
        f"{files.cert} was signed by {leaf.issuer.rfc4514_string() or 'an unnamed CA'}, which is "
        f"not in {files.ca}",
        "take certificate and CA from the same edge-match certs folder",
        files.cert,
    )


def check_dates(
    certificate: x509.Certificate, what: str, now: datetime.datetime, path: Path | None = None
) -> None:
    """Raise CertificateExpired where a certificate does not hold at this moment."""
    if now > certificate.not_valid_after_utc:
        raise CertificateExpired(
            f"{what} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            "make a new one with edge-match certs and put it in the same place, no restart needed",
            path,
        )
    if now < certificate.not_valid_before_utc:
        raise CertificateExpired(
            f"{what} holds only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and "
            f"this machine's clock says {now:%Y-%m-%d %H:%M}",
            "check the clock",
            path,
        )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials of a client, read now: make a new channel to take up changed files.

    Raises:
        TlsError: the files do not fit together.
    """
    bundle = load(files)
    return grpc.ssl_channel_credentials(bundle.ca, bundle.key, bundle.cert)


class ServerCertificates:
    """A server's certificate, taken up anew at the next handshake after its files changed.

    Files that do not fit together any more are reported once per change, and the last good ones
    stay in use: a half-copied certificate must not lock every box out.
    """

    def __init__(
        self,
        files: TlsFiles,
        *,
        on_reload: Callable[[Bundle], None] | None = None,
        on_error: Callable[[TlsError], None] | None = None,
    ) -> None:
        """
        Args:
            on_reload, on_error: called from gRPC's thread; must be quick.
        Raises:
            TlsError: the files do not fit together now.
        """
        self._files = files
        self._on_reload = on_reload
        self._on_error = on_error
        self._lock = threading.Lock()  # handshakes may fetch at the same time
        self._stamp = files.stamp()
        self._bundle = load(files)
        self._expired = False

    @property
    def bundle(self) -> Bundle:
        """What is in use."""
        with self._lock:
            return self._bundle

    def credentials(self) -> grpc.ServerCredentials:
        """Mutual TLS: a client without a certificate of our CA is refused."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self.bundle),
            self._fetch,  # type: ignore[arg-type]  # None means unchanged, which the stubs miss
            require_client_authentication=True,
        )

    def check_expiry(self) -> None:
        """Report a certificate that has ended while in use; called now and then."""
        with self._lock:
            over = datetime.datetime.now(datetime.UTC) > self._bundle.not_after
            news, self._expired = over and not self._expired, over
        if news and self._on_error is not None:
            self._on_error(
                CertificateExpired(
                    f"{self._files.cert} expired at {self._bundle.not_after:%Y-%m-%d %H:%M} UTC, "
                    "so no box can connect",
                    "make a new one with edge-match certs server in the same place",
                    self._files.cert,
                )
            )

    def refresh(self) -> Bundle | None:
        """Read the files again if they changed; the new bundle, or None where nothing is new."""
        with self._lock:
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            try:
                self._bundle = load(self._files)
            except TlsError as error:
                if self._on_error is not None:
                    self._on_error(error)
                return None
            if self._on_reload is not None:
                self._on_reload(self._bundle)
            return self._bundle

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        bundle = self.refresh()
        return None if bundle is None else _configuration(bundle)


def _configuration(bundle: Bundle) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(bundle.key, bundle.cert)], bundle.ca)


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateUnreadable(
            f"{path} cannot be read ({os.strerror(error.errno or 0)})",
            "check path and rights, or make certificates with edge-match certs",
            path,
        ) from error


def _unreadable(path: Path, problem: str) -> CertificateUnreadable:
    return CertificateUnreadable(f"{path}: {problem}", "check the file", path)
