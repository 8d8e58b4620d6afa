"""Why a client cannot connect, in words: gRPC says only UNAVAILABLE.

Promise: a connection of its own, with the same files, says which certificate is refused and why;
nothing is sent on it. Blocks up to the given time. Any thread may call.
"""

from __future__ import annotations

import socket
import ssl

from reid.tls import Bundle, TlsError, TlsFiles, load

_VERIFY_EXPIRED, _VERIFY_NOT_YET = 10, 9
_VERIFY_NAMES = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def diagnose(address: str, files: TlsFiles | None, *, timeout_s: float = 5.0) -> str | None:
    """Why a client cannot connect, in words; None where nothing is wrong with the connection.

    gRPC tells a client only UNAVAILABLE. This opens a connection of its own, shakes hands with the
    same files, and says which certificate is refused and why. It blocks up to timeout_s.
    """
    ours: Bundle | None = None
    if files is not None:
        try:
            ours = load(files)
        except TlsError as error:
            return str(error)
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s) as plain:
            if files is None or ours is None:
                return _speaks_tls(plain, address)
            return _shake(plain, host.strip("[]"), files, ours, address)
    except socket.gaierror as error:
        return f"{address}: the name cannot be resolved ({error.strerror}); check name and DNS"
    except ConnectionRefusedError:
        return f"{address}: nothing listens there; is edge-match running?"
    except TimeoutError:
        return f"{address}: no answer within {timeout_s:g} s; check network and firewall"
    except OSError as error:
        return f"{address}: {error.strerror or error}"
    except (ValueError, OverflowError):  # a label that is empty or too long, a port that is none
        return f"{address}: no HOST:PORT that can be looked up; check it for spelling"


def _shake(
    plain: socket.socket, host: str, files: TlsFiles, ours: Bundle, address: str
) -> str | None:
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(plain, server_hostname=host) as wrapped:
            # With TLS 1.3 the server judges our certificate after our side is done: its verdict
            # is an alert where its first HTTP/2 frame would be.
            if not wrapped.recv(1):
                return _refused(
                    address, files, ours, "it closed the connection after our certificate"
                )
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (_VERIFY_EXPIRED, _VERIFY_NOT_YET):
            return (
                f"{address}: the server's certificate is out of its time "
                f"({error.verify_message}); make a new one there, or check this machine's clock"
            )
        if error.verify_code in _VERIFY_NAMES:
            return (
                f"{address}: the server's certificate is for other names "
                f"({error.verify_message}); use a name in it, or edge-match certs server --host"
            )
        return (
            f"{address}: the server's certificate was not signed by the CA in {files.ca} "
            f"({error.verify_message}); take ca.pem from the folder where it was made"
        )
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).upper()
        if "WRONG_VERSION" in reason or "HTTP_REQUEST" in reason:
            return f"{address}: the server there does not speak TLS; start it with certificates"
        if "EXPIRED" in reason:
            return _refused(address, files, ours, "our certificate has expired by its clock")
        if "UNKNOWN_CA" in reason:
            return _refused(
                address, files, ours, "our certificate was not signed by a CA that it knows"
            )
        return _refused(address, files, ours, reason.replace("_", " ").lower())
    except ConnectionResetError:
        return _refused(address, files, ours, "it reset the connection after our certificate")
    return None


def _speaks_tls(plain: socket.socket, address: str) -> str | None:
    """A plain client and a server that wants certificates: each only sees the line cut."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent: only whether TLS is spoken is asked
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(plain):
            pass
    except (ssl.SSLError, ConnectionError, TimeoutError):
        return None
    return (
        f"{address}: the server there wants certificates; give --tls-ca, --tls-cert and --tls-key "
        "(edge-match certs makes them)"
    )


def _refused(address: str, files: TlsFiles, ours: Bundle, why: str) -> str:
    """gRPC's servers close without an alert: what we showed must be said by ourselves."""
    authority = ours.leaf.issuer.rfc4514_string() or "an unnamed CA"
    return (
        f"{address}: the server refused our certificate {files.cert} (signed by {authority}, ends "
        f"{ours.not_after:%Y-%m-%d}): {why}; its log says more. Take certificate and CA "
        "from the matcher's own edge-match certs folder"
    )
