"""Does a model arrive whole, resumed and checked, and does nothing else get into the folder?"""

from __future__ import annotations

import http.server
import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.catalogue import (
    Entry,
    FileInTheWay,
    LicenceNotAccepted,
    NoAddress,
    NotInCatalogue,
    find_entry,
    pull,
    read_catalogue,
)
from models.cli import app
from models.download import DownloadError, fetch
from reid import toml
from reid.card import card_text, read_card
from reid.model_errors import CardInvalid
from tests.conftest import ROOT
from tests.unit.edge.tiny_models import embedder_card, mean_embedder


class Mirror(http.server.ThreadingHTTPServer):
    """A mirror on loopback that behaves as a test wants; remembers what it was asked."""

    daemon_threads = True

    def __init__(self, behave: Callable[[_Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave = behave
        self.ranges: list[str | None] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        self.server.behave(self)

    def log_message(self, *_: object) -> None:
        """Tests print enough."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.fixture
def mirror() -> Iterator[Callable[[Callable[[_Handler], None]], Mirror]]:
    running: list[tuple[Mirror, threading.Thread]] = []

    def start(behave: Callable[[_Handler], None]) -> Mirror:
        server = Mirror(behave)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10.0)


Start = Callable[[Callable[[_Handler], None]], Mirror]


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    folder = tmp_path / "made"
    folder.mkdir()
    return mean_embedder(folder / "m.onnx", dimension=4096).read_bytes()


@pytest.fixture
def entry(tmp_path: Path, content: bytes) -> Entry:
    assert content
    path = tmp_path / "made" / "m.onnx"
    return Entry(embedder_card(path, dimension=4096, name="public", licence="MIT"), ())


def whole(content: bytes) -> Callable[[_Handler], None]:
    """A proper server, with ranges."""

    def behave(handler: _Handler) -> None:
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked:
            at = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.answer(206, content[start:], Content_Range=at)
        else:
            handler.answer(200, content, Content_Length=str(len(content)))

    return behave


def cut_at(content: bytes, cuts: list[int]) -> Callable[[_Handler], None]:
    """Promises everything, breaks off after so many bytes, one cut after the other."""
    proper = whole(content)

    def behave(handler: _Handler) -> None:
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


def pulled(entry: Entry, folder: Path, *mirrors: str, **options: float) -> Path:
    return pull(entry, folder, accept=lambda card: True, mirrors=mirrors, **options)


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


def _wrong(content: bytes) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(200, bytes(len(content)))


def _endless(content: bytes) -> Callable[[_Handler], None]:
    def behave(handler: _Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not handler.server.closing.is_set():
                handler.wfile.write(bytes(65536))
        except OSError:
            pass  # the client hung up, as it should

    return behave


def _page(content: bytes) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(200, b"<html>please log in</html>")


def _missing(content: bytes) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(404, b"")


def _to_a_file(content: bytes) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(302, b"", Location="file:///etc/passwd")


def _in_a_circle(content: bytes) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(302, b"", Location="/again")


def _rubbish(content: bytes) -> Callable[[_Handler], None]:
    return lambda handler: handler.wfile.write(b"\x00\xff" * 4000) and None


def _silent(content: bytes) -> Callable[[_Handler], None]:
    def behave(handler: _Handler) -> None:
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
    behave: Callable[[bytes], Callable[[_Handler], None]],
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

    def kept(name: str, then: Callable[[_Handler], None]) -> Callable[[_Handler], None]:
        def behave(handler: _Handler) -> None:
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


def test_a_model_without_an_address_says_so_before_its_licence(
    entry: Entry, tmp_path: Path
) -> None:
    asked: list[object] = []

    with pytest.raises(NoAddress, match=r"no public address.*--mirror URL_OR_FOLDER.*m\.onnx"):
        pull(entry, tmp_path / "models", accept=lambda card: bool(asked.append(card)))

    assert not asked
    assert not (tmp_path / "models").exists()


def test_the_list_says_which_models_no_pull_can_fetch(entry: Entry, tmp_path: Path) -> None:
    command = ["list", "--catalogue", str(written(tmp_path, entry)), "--json"]

    rows = json.loads(CliRunner().invoke(app, command).stdout)["models"]

    note = next(row["note"] for row in rows if row["name"] == "public")
    assert note.startswith(
        "no public address: pull it with --mirror URL_OR_FOLDER, or put the file"
    )


def written(folder: Path, entry: Entry) -> Path:
    """A catalogue of one entry."""
    path = folder / "own.toml"
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    path.write_text(toml.dumps({"model": [{"urls": list(entry.urls), "card": card}]}))
    return path


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


def test_nothing_is_fetched_before_the_licence_is_accepted(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))

    with pytest.raises(LicenceNotAccepted, match=r"MIT.*--yes"):
        pull(entry, tmp_path / "models", accept=lambda card: False, mirrors=[server.url])

    assert server.ranges == []
    assert not (tmp_path / "models").exists()


def test_another_file_of_that_name_is_not_overwritten(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"mine")

    with pytest.raises(FileInTheWay):
        pulled(entry, tmp_path, str(tmp_path / "made"))

    assert (tmp_path / "m.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("held", ["of another", "rubbish ["])
def test_a_card_of_another_file_is_in_the_way_before_anything_is_fetched(
    held: str, mirror: Start, entry: Entry, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    if held == "of another":
        held = card_text(entry.card.model_copy(update={"sha256": "0" * 64}))
    (folder / "m.toml").write_text(held)
    server = mirror(whole(b""))

    with pytest.raises(FileInTheWay, match=r"m\.toml .*move it away"):
        pulled(entry, folder, server.url)

    assert server.ranges == []
    assert [path.name for path in folder.iterdir()] == ["m.toml"]


def test_a_card_of_the_same_file_is_kept_as_the_operator_wrote_it(
    entry: Entry, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "m.toml").write_text(card_text(entry.card.model_copy(update={"notes": "mine"})))

    pulled(entry, folder, str(tmp_path / "made"))

    assert read_card(folder / "m.toml").notes == "mine"


def test_a_folder_in_the_place_of_the_file_is_said(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "models" / "m.onnx").mkdir(parents=True)

    with pytest.raises(FileInTheWay):
        pulled(entry, tmp_path / "models", str(tmp_path / "made"))


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


def test_a_file_that_is_there_is_not_fetched_again(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))
    pulled(entry, tmp_path / "models", server.url)

    pulled(entry, tmp_path / "models", server.url)

    assert len(server.ranges) == 1


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


def test_the_packaged_catalogue_is_whole() -> None:
    entries = read_catalogue()

    assert len({entry.card.name for entry in entries}) == len(entries)
    assert find_entry("yolox-nano", entries).urls
    with pytest.raises(NotInCatalogue, match="it has yolox-nano"):
        find_entry("yolo99", entries)


@pytest.mark.parametrize(
    "text",
    [
        "= =",
        '[[model]]\nurls = ["ftp://x"]',
        "[[model]]\nurls = []",
        "model = 5",
        'model = "x"',
        "model = [1]",
        "[model]\nurls = []",
        "[[model]]\nurls = 5",
        '[[model]]\nurls = "https://x"',
        "[[model]]\nurls = []\ncard = 5",
    ],
)
def test_a_catalogue_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(text)

    with pytest.raises(CardInvalid):
        read_catalogue(path)


@pytest.mark.parametrize("file", ["m.toml", "current.toml", "m.pth", "m", "m.ONNX"])
def test_a_catalogue_of_files_that_no_box_finds_is_refused(
    file: str, entry: Entry, tmp_path: Path
) -> None:
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    path = tmp_path / "catalogue.toml"
    path.write_text(toml.dumps({"model": [{"urls": [], "card": card | {"file": file}}]}))

    with pytest.raises(CardInvalid, match=r"is no \.onnx"):
        read_catalogue(path)


def test_a_catalogue_with_a_name_twice_is_refused(entry: Entry, tmp_path: Path) -> None:
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    path = tmp_path / "catalogue.toml"
    path.write_text(toml.dumps({"model": [{"urls": [], "card": card}] * 2}))

    with pytest.raises(CardInvalid, match="public more than once"):
        read_catalogue(path)


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


def test_the_command_pulls_and_asks_for_the_licence(
    mirror: Start, entry: Entry, content: bytes, tmp_path: Path
) -> None:
    server = mirror(whole(content))
    catalogue = tmp_path / "catalogue.toml"
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    catalogue.write_text(toml.dumps({"model": [{"urls": [server.url + "/m"], "card": card}]}))
    command = ["pull", "public", "--catalogue", str(catalogue), "--models-dir", str(tmp_path / "m")]

    refused = CliRunner().invoke(app, command)
    accepted = CliRunner().invoke(app, [*command, "--yes"])

    assert (refused.exit_code, accepted.exit_code) == (3, 0)
    assert "MIT" in refused.stderr
    assert (tmp_path / "m" / "m.onnx").read_bytes() == content
    assert "public: " in accepted.stdout


def test_the_question_stays_on_the_terminal_until_it_is_answered(
    entry: Entry, content: bytes, tmp_path: Path
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    card = entry.card.model_dump(exclude_none=True, exclude_unset=True)
    catalogue.write_text(toml.dumps({"model": [{"urls": [], "card": card}]}))
    command = [
        *(sys.executable, "-c", "from models.cli import main; main()", "pull", "public"),
        *("--catalogue", str(catalogue), "--models-dir", str(tmp_path / "m")),
        *("--mirror", str(tmp_path / "made")),
    ]
    ours, theirs = pty.openpty()
    asked = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    try:
        before = _said(ours, until="[y/N]: ")
        while_waiting = _said(ours, for_s=0.5)
        os.write(ours, b"y\n")
        assert asked.wait(timeout=30.0) == 0
    finally:
        asked.kill()
        asked.wait()
        os.close(ours)

    assert "MIT" in before
    assert while_waiting == ""
    assert (tmp_path / "m" / "m.onnx").read_bytes() == content


def _said(terminal: int, *, until: str | None = None, for_s: float = 30.0) -> str:
    said, deadline = "", time.monotonic() + for_s
    while (until is None or until not in said) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            said += os.read(terminal, 4096).decode()
    assert until is None or until in said, said
    return said
