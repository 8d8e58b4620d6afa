"""Lines of gRPC's core about handshakes, in words."""

from __future__ import annotations

import subprocess
import sys

import pytest

from matcher.native_log import explain

PREFIX = "I1121 10:24:18.932950 13245 ssl_transport_security.cc:2563] "
FAILED = (
    PREFIX + "Handshake failed with error SSL_ERROR_SSL: error:1000007d:SSL routines:"
    "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: "
)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (FAILED + "certificate has expired", "a client's certificate has expired"),
        (FAILED + "unable to get local issuer certificate", "signed by another CA"),
        (FAILED + "self signed certificate in certificate chain", "signed by another CA"),
        (FAILED + "self-signed certificate", "signed by another CA"),
        (
            PREFIX + "Handshake failed with error SSL_ERROR_SSL: x:SSL routines:OPENSSL_internal:"
            "PEER_DID_NOT_RETURN_A_CERTIFICATE",
            "without a certificate",
        ),
        (
            PREFIX + "Handshake failed with error SSL_ERROR_SSL: x:OPENSSL_internal:"
            "WRONG_VERSION_NUMBER",
            "without TLS",
        ),
        (PREFIX + "Handshake failed: SSLV3_ALERT_CERTIFICATE_EXPIRED", "our certificate"),
        (PREFIX + "Handshake failed: TLSV1_ALERT_UNKNOWN_CA", "does not know the CA"),
        (PREFIX + "Handshake failed: SOMETHING_NEW", "SOMETHING_NEW"),
    ],
)
def test_a_refused_handshake_is_put_in_words(line: str, words: str) -> None:
    said = explain(line)

    assert said is not None
    assert words in said


def test_other_lines_are_left_alone() -> None:
    assert explain(PREFIX + "something else") is None


def test_the_terminal_gets_other_lines_unchanged_and_descriptor_two_comes_back() -> None:
    script = (
        "import os, sys\n"
        "from reid import logs\n"
        "from matcher.native_log import NativeLog\n"
        "native = NativeLog()\n"
        "logs.configure('text')\n"
        f"os.write(2, {FAILED.encode()!r} + b'certificate has expired\\n')\n"
        "os.write(2, b'plain line\\n')\n"
        "native.close(); native.close()\n"
        "os.write(2, b'after\\n')\n"
        "print(native.refused)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == "1\n"
    assert "plain line\n" in done.stderr
    assert "after\n" in done.stderr
    assert "certificate has expired; make it a new one" in done.stderr
    assert "SSL_ERROR_SSL" not in done.stderr
