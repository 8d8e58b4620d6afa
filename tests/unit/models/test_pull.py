"""Does a model arrive whole, resumed and checked, from mirrors good and bad?"""

from __future__ import annotations

import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.catalogue import Entry, pull
from models.cli import app
from models.download import DownloadError, fetch
from reid import toml
from reid.card import read_card
from tests.conftest import ROOT
from tests.unit.models.mirrors import Handler, Start, pulled, whole, written

pytestmark = pytest.mark.usefixtures("_no_proxy")


def cut_at(content: bytes, cuts: list[int]) -> Callable[[Handler], None]:
    """Promises everything, breaks off after so many bytes, one cut after the other."""
    proper = whole(content)

    def behave(handler: Handler) -> None:
        if not cuts:
            proper(handler)
            return
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        at = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.answer(
            206 if asked else 200,
            content[start : cuts.pop(0)],
            Content_Length=str(len(content) - start),
            **({"Content_Range": at} if asked else {}),
        )

    return behave


def test_a_model_arrives_with_its_card(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))
    seen: list[tuple[int, int]] = []

    path = pull(
        entry,
        tmp_path / "models",
        accept=lambda card: True,
        mirrors=[server.url],
        progress=lambda done, total: seen.append((done, total)),
    )

    assert path.read_bytes() == content
    assert read_card(path.with_suffix(".toml")) == entry.card
    assert seen[-1] == (len(content), len(content))
    assert sorted(p.name for p in path.parent.iterdir()) == ["m.onnx", "m.toml"]


def test_a_cut_transfer_goes_on_where_it_stopped(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(cut_at(content, [1000, 5000]))

    path = pulled(entry, tmp_path / "models", server.url)

    assert path.read_bytes() == content
    assert server.ranges == [None, "bytes=1000-", "bytes=5000-"]


def test_a_later_pull_goes_on_where_the_last_one_was_cut(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    broken = mirror(cut_at(content, [100, 200, 300, 400]))
    with pytest.raises(DownloadError, match="cut after 300 of"):
        pulled(entry, tmp_path / "models", broken.url)
    server = mirror(whole(content))

    path = pulled(entry, tmp_path / "models", server.url)

    assert path.read_bytes() == content
    assert server.ranges == ["bytes=300-"]


def test_a_mirror_without_ranges_is_read_from_the_start(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / ".m.onnx.part").write_bytes(content[:700])
    server = mirror(lambda handler: handler.answer(200, content))

    assert pulled(entry, folder, server.url).read_bytes() == content


def test_a_wrong_beginning_of_another_day_is_thrown_away(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / ".m.onnx.part").write_bytes(b"x" * 700)
    server = mirror(whole(content))

    assert pulled(entry, folder, server.url).read_bytes() == content
    assert server.ranges == ["bytes=700-", None]


def _wrong(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(200, bytes(len(content)))


def _endless(content: bytes) -> Callable[[Handler], None]:
    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not handler.server.closing.is_set():
                handler.wfile.write(bytes(65536))
        except OSError:
            pass  # the client hung up, as it should

    return behave


def _page(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(200, b"<html>please log in</html>")


def _missing(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(404, b"")


def _to_a_file(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(302, b"", Location="file:///etc/passwd")


def _in_a_circle(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(302, b"", Location="/again")


def _rubbish(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.wfile.write(b"\x00\xff" * 4000) and None


def _silent(content: bytes) -> Callable[[Handler], None]:
    def behave(handler: Handler) -> None:
        handler.server.closing.wait(timeout=20.0)

    return behave


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (_wrong, "gave another file: sha256"),
        (_endless, "sends more than the"),
        (_page, "cut after 26 of"),
        (_missing, "answers 404"),
        (_to_a_file, "answers 302"),
        (_in_a_circle, "answers 302"),
        (_rubbish, "BadStatusLine|RemoteDisconnected|LineTooLong"),
        (_silent, "timed out"),
    ],
)
def test_a_bad_mirror_is_left_for_the_next_one(
    behave: Callable[[bytes], Callable[[Handler], None]],
    reason: str,
    mirror: Start,
    entry: Entry,
    content: bytes,
    tmp_path: Path,
) -> None:
    bad, good = mirror(behave(content)), mirror(whole(content))

    with pytest.raises(DownloadError, match=reason):
        pulled(entry, tmp_path / "alone", bad.url, timeout_s=0.3)
    path = pulled(entry, tmp_path / "models", bad.url, good.url, timeout_s=0.3)

    assert path.read_bytes() == content
    assert not (tmp_path / "alone" / "m.onnx").exists()
    assert not (tmp_path / "alone" / "m.toml").exists()


def test_a_closed_port_is_named_with_what_to_do(entry: Entry, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/m\.onnx: .*--mirror URL_OR_FOLDER"):
        pulled(entry, tmp_path, "http://127.0.0.1:9")


@pytest.mark.parametrize("host", ["127.0.0.1:9", "127.0.0.1", "127.0.0.1:x", "[::1", "a/b@c:9"])
def test_credentials_of_a_mirror_stay_out_of_messages(
    host: str, entry: Entry, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError) as failed:
        pulled(entry, tmp_path, f"http://me:secret@{host}", timeout_s=0.5)

    assert "secret" not in str(failed.value)


def test_a_mirror_with_a_password_gets_it_and_a_redirect_does_not(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    seen: list[tuple[str, str | None]] = []

    def kept(name: str, then: Callable[[Handler], None]) -> Callable[[Handler], None]:
        def behave(handler: Handler) -> None:
            seen.append((name, handler.headers.get("Authorization")))
            then(handler)

        return behave

    other = mirror(kept("other", whole(content)))
    moved = f"{other.url}/m.onnx"
    own = mirror(kept("own", lambda handler: handler.answer(302, b"", Location=moved)))
    address = own.url.replace("http://", "http://me:p%40ss@")

    path = pulled(entry, tmp_path / "models", address)

    assert path.read_bytes() == content
    assert seen == [("own", "Basic " + b64encode(b"me:p@ss").decode()), ("other", None)]


def test_the_address_of_a_mirror_can_stand_in_a_file(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))
    (tmp_path / "mirror.url").write_text(server.url.replace("http://", "http://me:secret@") + "\n")
    command = ["pull", "public", "--catalogue", str(written(tmp_path, entry)), "--yes"]
    command += ["--models-dir", str(tmp_path / "m"), "--mirror"]

    done = CliRunner().invoke(app, [*command, f"@{tmp_path / 'mirror.url'}"])
    missing = CliRunner().invoke(app, [*command[:-1], "--mirror", f"@{tmp_path / 'none'}"])

    assert (done.exit_code, missing.exit_code) == (0, 2)
    assert "secret" not in done.output
    assert (tmp_path / "m" / "m.onnx").read_bytes() == content


def test_a_local_folder_is_a_mirror(entry: Entry, content: bytes, tmp_path: Path) -> None:
    path = pulled(entry, tmp_path / "models", str(tmp_path / "made"))

    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("held", "reason"),
    [(b"short", "has 5 bytes, the file has"), (None, "No such file")],
)
def test_a_local_folder_is_checked_as_well(
    held: bytes | None, reason: str, entry: Entry, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if held is not None:
        (other / "m.onnx").write_bytes(held)

    with pytest.raises(DownloadError, match=reason):
        pulled(entry, tmp_path / "models", str(other))


@pytest.mark.parametrize("by", ["http", "folder"])
def test_a_full_disk_is_said_as_that_and_asks_no_other_place(
    by: str, mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))
    place = server.url if by == "http" else str(tmp_path / "made")
    catalogue = tmp_path / "catalogue.toml"
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    catalogue.write_text(toml.dumps({"model": [{"urls": [], "card": card}]}))
    command = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(content) // 2}, -1));"
        "from models.cli import main; main()"
    )

    done = subprocess.run(
        [
            *(sys.executable, "-c", command, "pull", "public", "--yes"),
            *("--catalogue", str(catalogue), "--models-dir", str(tmp_path / "m")),
            *("--mirror", place, "--mirror", str(tmp_path / "elsewhere")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    later = pulled(entry, tmp_path / "m", place)

    assert done.returncode == 2
    assert f"{tmp_path / 'm'}: File too large; make room there" in done.stderr
    assert "elsewhere" not in done.stderr
    assert len(server.ranges) == (2 if by == "http" else 0)
    assert later.read_bytes() == content


def test_with_a_mirror_given_the_public_addresses_are_not_asked(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    public = mirror(whole(content))
    listed = Entry(entry.card, (f"{public.url}/m.onnx",))

    with pytest.raises(DownloadError):
        pulled(listed, tmp_path / "models", "http://127.0.0.1:9")
    assert public.ranges == []
    pulled(listed, tmp_path / "models")

    assert len(public.ranges) == 1


@pytest.mark.parametrize("given", ["", "ftp://u:secret@host/x", "file:///tmp", "@{file}"])
def test_a_mirror_that_is_none_is_refused(given: str, tmp_path: Path) -> None:
    (tmp_path / "address").write_text(" \n")
    mirror = given.format(file=tmp_path / "address")

    result = CliRunner().invoke(
        app, ["pull", "yolox-nano", "--models-dir", str(tmp_path), "--yes", "--mirror", mirror]
    )

    assert result.exit_code == 2
    assert "neither http://" in result.stderr and "secret" not in result.stderr


def test_an_empty_list_of_places_says_so(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no address is known"):
        fetch([], tmp_path / "m.onnx", sha256="0" * 64, size=1)
