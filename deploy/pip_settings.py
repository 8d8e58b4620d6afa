"""Write this machine's pip settings as one pip.conf for building images: FOLDER/pip.conf.

Prints what the build needs beside it, one a line: `ca FILE` for certificates, `folder PATH` for
each folder that packages come from. Only settings that say where packages come from are taken.

    python3 deploy/pip_settings.py FOLDER
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Where the Dockerfile puts the certificates.
CERTIFICATES = "/etc/ssl/build-ca.pem"
TAKEN = (
    "index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "timeout"
)  # fmt: skip
SOURCES = ("index-url", "extra-index-url", "find-links")


def settings() -> dict[str, str]:
    """pip's settings by name; the environment beats files, as in pip."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, equals, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if equals and section in ("global", "install", ":env:"):
            found[key] = str(ast.literal_eval(value))
    return found


def folders(value: str) -> list[str]:
    """The local folders among the places in a setting."""
    paths = []
    for place in value.split():
        parts = urlsplit(place)
        path = unquote(parts.path) if parts.scheme == "file" else place
        if parts.scheme in ("", "file") and Path(path).exists():
            # an index links to files beside its folder `simple`
            paths.append(str(Path(path).parent) if Path(path).name == "simple" else path)
    return paths


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    found = settings()
    lines = ["[global]", *(f"{key} = {found[key]}" for key in TAKEN if key in found)]
    certificates = found.get("cert") or os.environ.get("SSL_CERT_FILE")
    if certificates and Path(certificates).is_file():
        print(f"ca {certificates}")
        lines.append(f"cert = {CERTIFICATES}")
    for key in SOURCES:
        for path in folders(found.get(key, "")):
            print(f"folder {path}")
    target = Path(sys.argv[1]) / "pip.conf"
    target.touch(mode=0o600)  # an address may hold a password
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
