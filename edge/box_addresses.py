"""Where embeddings may travel: certificates by default, plain text only where it was accepted."""

from __future__ import annotations

from pathlib import Path

import structlog

from edge.config import Config
from edge.uplink import tls_files
from reid.tls import TlsFiles, is_loopback, require_safe

# Where the image expects certificates; the data folder's own come first.
_IMAGE_TLS_DIR = Path("/etc/edge-reid/tls")

log = structlog.get_logger("edge")


def tls_dir(data_dir: Path) -> Path:
    """The folder whose certificates are taken where no flag names files."""
    own = data_dir / "tls"
    return own if own.is_dir() else _IMAGE_TLS_DIR


def files_for(config: Config, address: str) -> TlsFiles | None:
    """The certificates that a connection to a matcher uses; None: plain text."""
    return tls_files(config.uplink.tls, tls_dir(config.data_dir), address)


def check_addresses(config: Config) -> str | None:
    """Refuse plain text beyond loopback, or say it where the owner wants it.

    Returns: what is degraded, for the status; None where every address is safe.

    Raises:
        TlsError: plain beyond loopback without --insecure.
    """
    plain = []
    for address in config.uplink.matchers:
        files = files_for(config, address)
        require_safe(
            address,
            files,
            insecure=config.uplink.tls.insecure,
            flags="--tls-ca, --tls-cert and --tls-key",
        )
        if files is None and not is_loopback(address):
            plain.append(f"embeddings travel to {address} in plain text (--insecure)")
    for text in plain:
        log.warning(text)
    return "; ".join(plain) or None
