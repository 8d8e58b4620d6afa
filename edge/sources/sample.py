"""OpenCV's public sample clip (people on a pavement, PETS 2009 S2.L1), fetched once and kept.

Promise: the clip that comes back has the checksum below, whoever served it; `fetch_sample` returns
within `timeout_s`, since every step runs in a child process that is killed when its time is up.
Order: the cache; the public address; Debian's package `opencv-doc` (needs apt, no root).
Failing: never an exception: what went wrong at each place is told to `progress`, and the answer is
None; the caller then takes the rendered scene and says so.
Threads: any one; two processes may share a cache folder (the clip is moved in whole).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

NAME = "vtest.avi"
SHA256 = "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"
SIZE_BYTES = 8_131_690
ADDRESSES = ("https://raw.githubusercontent.com/opencv/opencv/4.x/samples/data/vtest.avi",)
PACKAGE = "opencv-doc"
PACKAGE_MEMBER = "./usr/share/doc/opencv-doc/examples/data/vtest.avi"

TIMEOUT_S = 20.0
ADDRESS_S = 10.0  # at most for one address, so that the package gets its turn
SOCKET_S = 5.0
CHUNK_BYTES = 1 << 16

Progress = Callable[[str], None]


def fetch_sample(
    cache_dir: Path,
    progress: Progress,
    *,
    addresses: Sequence[str] = ADDRESSES,
    package: str | None = PACKAGE,
    sha256: str = SHA256,
    timeout_s: float = TIMEOUT_S,
) -> Path | None:
    """The sample clip, or None where nobody gives it in time.

    Args:
        cache_dir: where the clip is kept; made if missing.
        progress: called with one line of text for each step.
        addresses: tried in order.
        package: Debian package that holds the clip; None: do not ask apt.
        sha256: what the clip must have.
        timeout_s: for all of it.
    """
    ends = time.monotonic() + timeout_s
    kept = cache_dir / NAME
    if _is_clip(kept, sha256):
        return kept
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix="fetch-") as folder:
            got = Path(folder) / NAME
            for address in addresses:
                left = min(ends - time.monotonic(), ADDRESS_S)
                progress(f"fetching the sample clip ({SIZE_BYTES / 1e6:.0f} MB) from {address}")
                if _child([*_ourselves(), address, str(got)], left, progress):
                    if _is_clip(got, sha256):
                        return _keep(got, kept)
                    progress(f"what {address} sent is not the clip: another checksum")
            if package is not None and _from_debian(package, got, ends, progress):
                if _is_clip(got, sha256):
                    return _keep(got, kept)
                progress(f"the clip in {package} is another one: another checksum")
    except OSError as error:
        progress(f"the sample clip cannot be kept in {cache_dir}: {error.strerror or error}")
    return None


def _from_debian(package: str, got: Path, ends: float, progress: Progress) -> bool:
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        progress(f"no apt-get here, so Debian's {package} is not asked for the sample clip")
        return False
    progress(f"fetching the sample clip from Debian's package {package} (96 MB)")
    folder = got.parent
    if not _child(
        [apt, "download", "--quiet=2", package], ends - time.monotonic(), progress, folder
    ):
        return False
    packages = list(folder.glob("*.deb"))
    if len(packages) != 1:
        progress(f"apt-get download {package} left no package")
        return False
    return _child(
        [*_ourselves(), str(packages[0]), str(got)], ends - time.monotonic(), progress, folder
    )


def _child(
    command: list[str], timeout_s: float, progress: Progress, folder: Path | None = None
) -> bool:
    """Run a command to its end or kill it with all it started; True: it succeeded in time."""
    if timeout_s <= 0:
        progress("no time is left for the sample clip")
        return False
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        progress(f"no sample clip within {timeout_s:.0f} s; gave up")
        return False
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        lines = said.strip().splitlines() or [f"exit code {process.returncode}"]
        progress(f"no sample clip: {lines[-1]}")
    return process.returncode == 0


def _is_clip(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:  # not there, or not readable: the same as not had
        return False


def _keep(got: Path, kept: Path) -> Path:
    os.replace(got, kept)
    return kept


def _ourselves() -> list[str]:
    return [sys.executable, "-m", "edge.sources.sample"]


def download(address: str, target: Path) -> None:
    """Save what an address serves, up to the clip's size.

    Raises: OSError (urllib.error.URLError among them): nobody there, refused, cut off, too large.
    """
    with (
        urllib.request.urlopen(address, timeout=SOCKET_S) as answer,
        target.open("wb") as out,
    ):
        size = 0
        while chunk := answer.read1(CHUNK_BYTES):
            size += len(chunk)
            if size > SIZE_BYTES:
                raise OSError(f"{address} sends more than the clip's {SIZE_BYTES} bytes")
            out.write(chunk)
    if answer.length:
        raise OSError(f"{address} was cut off after {size} bytes")


def unpack(package: Path, target: Path) -> None:
    """Save the clip out of a Debian package.

    Raises: OSError: the package holds no such file.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as tar,
        tarfile.open(fileobj=tar.stdout, mode="r|") as members,
    ):
        for member in members:
            clip = members.extractfile(member) if member.name == PACKAGE_MEMBER else None
            if clip is not None:
                target.write_bytes(clip.read(SIZE_BYTES + 1))
                tar.kill()  # the rest is not needed
                return
    raise OSError(f"{package.name} holds no {PACKAGE_MEMBER}")


def main(place: str, target: str) -> int:
    """The child: save the clip from an address or a Debian package; 0: done."""
    try:
        if place.endswith(".deb"):
            unpack(Path(place), Path(target))
        else:
            download(place, Path(target))
    except (OSError, tarfile.TarError) as error:
        print(getattr(error, "reason", None) or error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
