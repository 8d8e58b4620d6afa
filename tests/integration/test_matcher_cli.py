"""edge-match as people run it: commands, messages, exit codes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from matcher import page
from matcher.export import ExportError
from reid import SOFTWARE
from reid.v1.query_pb2 import SightingFilter
from tests.integration.matcher_rig import Box, Serving, record
from tests.integration.test_matcher_security import process


def edge_match(*arguments: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_")}
    return subprocess.run(
        [sys.executable, "-m", "matcher.cli", *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout_s, env={**environ, "COLUMNS": "120"},
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data folder with two people in two cameras; the writer id."""
    folder = tmp_path_factory.mktemp("street")
    writer = secrets.token_hex(16)
    with Serving(folder) as serving, Box(serving.address, writer_id=writer) as box:
        box.welcome()
        box.batch(
            record(writer, 1, person=1, camera="door", last_s=5),
            record(writer, 2, person=2, camera="door", first_s=30, last_s=35),
            record(writer, 3, person=1, camera="yard", first_s=9, last_s=12, final=True),
        )
        box.acked(3)
        serving.caught_up()
    return folder, writer


def test_who_prints_a_table_of_people_and_cameras(street: tuple[Path, str]) -> None:
    done = edge_match("who", "--data-dir", street[0])

    assert done.returncode == 0, done.stderr
    assert "2 people in 2 cameras, 1 of them in more than one" in done.stdout
    assert "door" in done.stdout
    assert "yard" in done.stdout


def test_who_as_json_can_be_narrowed_to_a_camera(street: tuple[Path, str]) -> None:
    done = edge_match("who", "--data-dir", street[0], "--json", "--camera", "yard")

    (person,) = json.loads(done.stdout)["people"]
    assert person["cameras"] == ["door", "yard"]
    assert [one["state"] for one in person["tracklets"]] == ["live", "ended"]


def test_report_writes_one_page_that_needs_nothing_else(
    street: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"

    done = edge_match("report", out, "--data-dir", street[0])

    assert done.returncode == 0, done.stderr
    html = out.read_text()
    assert html.count("<rect") >= 3
    for outside in ("http:", "https:", "<script", "@import", "url("):
        assert outside not in html


def test_a_running_server_is_asked_corrected_and_exported(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with process(tmp_path / "data") as (_, address, _):
        with Box(address, writer_id=writer) as box:
            box.welcome()
            box.batch(record(writer, 1, person=1), record(writer, 2, person=2, first_s=9, last_s=9))
            box.acked(2)
        from matcher.client import MatcherClient

        with MatcherClient(address) as client:
            while len(people := list(client.identities(SightingFilter()))) < 2:
                pass
        ids = [one.identity_id for one in people]

        merged = edge_match("merge", ids[0], ids[1], "--server", address)
        split = edge_match("split", ids[0], f"{writer}/1", "--server", address)
        forgotten = edge_match("forget", ids[0], "--server", address)
        exported = edge_match("export", tmp_path / "out.jsonl", "--server", address)
        boxes = edge_match("edges", "--server", address, "--json")
        kept = edge_match("retention", "--ledger", "7d", "--server", address)
        shown = edge_match("retention", "--server", address)
        pairs = edge_match("calibrate", "site", "--server", address)
        copied = edge_match("backup", tmp_path / "copy.db", "--data-dir", tmp_path / "data")
        unknown = edge_match("forget", "nobody", "--server", address)

    assert [merged.returncode, split.returncode, forgotten.returncode] == [0, 0, 0]
    assert "1 sightings deleted" in forgotten.stdout
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    assert exported.stdout.endswith("1 sightings\n")
    assert json.loads(boxes.stdout)[0]["edge_id"] == "box"
    assert kept.stdout == shown.stdout == "sightings 7 d, identities 1 d\n"
    assert "threshold in force: 0.80" in pairs.stdout
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    assert copied.returncode == 0
    assert (unknown.returncode, unknown.stderr) == (5, "edge-match: no identity 'nobody'\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["who", "--server", "127.0.0.1:1"], 5, "nothing listens there"),
        (["who", "--server", "10.255.255.1:1"], 2, "--insecure"),
        (["who", "--server", "localhost"], 2, "not HOST:PORT"),
        (["who", "--server", "a..b:7443", "--insecure"], 5, "check it for spelling"),
        (["who", "--server", "127.0.0.1:1", "--since", "yesterday"], 2, "ISO time"),
        (["who", "--server", "127.0.0.1:1", "--since", "nand"], 2, "no age"),
        (["who", "--server", "127.0.0.1:1", "--since", "1e30d"], 2, "no age"),
        (["who", "--server", "127.0.0.1:1", "--until", "0001-01-01"], 2, "between 1970"),
        (["who", "--data-dir", "/nonexistent"], 5, "identities.db"),
        (["who", "--server", "x:1", "--data-dir", "y"], 2, "not both"),
        (["export", "out.csv"], 2, ".parquet or .jsonl"),
        (["backup", "x.db", "--data-dir", "/nonexistent"], 6, "does not exist"),
        (["serve", "--listen", "0.0.0.0:0"], 2, "edge-match certs"),
        (["certs", "server", "--host", "mätcher", "--dir", "/nonexistent"], 2, "xn--"),
        (["certs", "server", "--host", "a b", "--dir", "/nonexistent"], 2, "no host's name"),
        (["certs", "box", "b", "--site", "s", "--days", "99999999"], 2, "36500"),
        (["serve", "--listen", "foo"], 2, "not HOST:PORT"),
        (["serve", "--tls-ca", "x"], 2, "given together"),
        (["serve", "--listen", "127.0.0.1:0", "--ready-file", "/absent/f"], 2, "does not exist"),
        (["--config", "/nonexistent.toml"], 2, "--config"),
        (["certs", "box", "b", "--site", "s", "--dir", "/nonexistent"], 2, "certs init"),
        (["nonsense"], 2, "nonsense"),
        (["serve", "--no-such-flag"], 2, "no-such-flag"),
    ],
)
def test_what_goes_wrong_is_said_with_its_exit_code(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    if arguments[0] in ("serve", "--config"):
        arguments = [*arguments, "--data-dir", str(tmp_path), "--metrics", "off"]

    done = edge_match(*arguments)

    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_ledger_ends_with_its_exit_code_and_the_cure(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database at all" * 100)

    done = edge_match(
        "serve", "--listen", "127.0.0.1:0", "--metrics", "off", "--data-dir", tmp_path
    )

    assert done.returncode == 6
    assert "backup" in done.stderr


def test_the_version_is_shown() -> None:
    done = edge_match("--version")

    assert (done.returncode, done.stdout.strip()) == (0, SOFTWARE)


def test_an_export_that_ends_early_leaves_nothing_behind(tmp_path: Path) -> None:
    done = edge_match("export", tmp_path / "out.parquet", "--server", "127.0.0.1:1")

    assert done.returncode == 5
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"absent/page.html: cannot be written \(No such file"):
        page.write(tmp_path / "absent" / "page.html", "<html>")


def test_the_configuration_can_be_shown(tmp_path: Path) -> None:
    done = edge_match("serve", "--print-config", "--data-dir", tmp_path)

    assert json.loads(done.stdout)["data_dir"] == str(tmp_path)
    assert json.loads(done.stdout)["retention"]["ledger_s"] == 30 * 86400


def test_health_metrics_and_readiness_have_a_port_of_their_own(tmp_path: Path) -> None:
    import httpx

    with Serving(tmp_path, metrics="127.0.0.1:0") as serving, Box(serving.address) as box:
        box.welcome()
        box.batch(record(box.writer_id, 1))
        box.acked(1)
        base = f"http://127.0.0.1:{serving.server.web_port}"

        health = httpx.get(f"{base}/healthz")
        ready = httpx.get(f"{base}/readyz")
        metrics = httpx.get(f"{base}/metrics").text

    assert (health.status_code, ready.status_code) == (200, 200)
    assert ready.json()["streams"] == 1
    assert 'reid_matcher_sightings_total{result="stored"} 1.0' in metrics
    assert "reid_matcher_streams 1.0" in metrics
