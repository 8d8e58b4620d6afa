"""The wire's gate: proto/ against the committed image of v1, by the very command of `make lint`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUF = Path(sys.executable).with_name("buf")


def breaking(proto: Path) -> subprocess.CompletedProcess[str]:
    """`buf breaking` of a folder against the committed image."""
    return subprocess.run(
        [BUF, "breaking", str(proto), "--against", str(ROOT / "proto" / "v1.binpb")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of proto/ with a change in ingest.proto."""
    proto = tmp_path / "proto"
    shutil.copytree(ROOT / "proto", proto)
    file = proto / "reid" / "v1" / "ingest.proto"
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new))
    return proto


def test_the_wire_breaks_no_consumer_of_v1() -> None:
    result = breaking(ROOT / "proto")

    assert result.returncode == 0, result.stdout


def test_make_lint_runs_the_gate() -> None:
    assert "buf breaking proto --against proto/v1.binpb" in (ROOT / "Makefile").read_text()


REPLY_TO = "reply_to_monotonic_nanos"


@pytest.mark.parametrize("kind", ["removed", "type changed", "number changed", "rpc removed"])
def test_a_breaking_change_is_refused(tmp_path: Path, kind: str) -> None:
    lines = (ROOT / "proto" / "reid" / "v1" / "ingest.proto").read_text().splitlines()
    field = next(line for line in lines if f" {REPLY_TO} =" in line)
    rpc = next(line for line in lines if line.strip().startswith("rpc Stream("))
    number = field.rpartition("=")[2].strip().rstrip(";")
    old, new = {
        "removed": (field, ""),
        "type changed": (field, field.replace(field.split()[0], "string")),
        "number changed": (field, field.replace(f"= {number}", "= 900")),
        "rpc removed": (rpc, rpc.replace("rpc Stream(", "rpc Other(")),
    }[kind]

    result = breaking(changed(tmp_path, old, new))

    assert result.returncode != 0
    assert "ingest.proto" in result.stdout


def test_an_added_field_is_allowed(tmp_path: Path) -> None:
    lines = (ROOT / "proto" / "reid" / "v1" / "ingest.proto").read_text().splitlines()
    field = next(line for line in lines if f" {REPLY_TO} =" in line)

    result = breaking(changed(tmp_path, field, f"{field}\n  // New.\n  string added = 900;"))

    assert result.returncode == 0, result.stdout
