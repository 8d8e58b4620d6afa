"""Coverage-guided fuzzing of whatever comes from outside: disk, wire, settings, model files.

Targets here are single functions; whole streams and opened models have modules of their own
(tests.fuzz.streams, tests.fuzz.models).

    make fuzz                       # or: python -m tests.fuzz.run TARGET -runs=N

Needs atheris, which is in none of our environments by itself. A target fails by any exception but
the one that its module promises; libFuzzer then writes the input to a file and exits non-zero. It
prints how many inputs were tried.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

atheris: Any = importlib.import_module("atheris")

# The two modules of ours are how far a target without Python code of its own can be guided.
with atheris.instrument_imports(
    include=["edge", "matcher", "reid", "tests.fuzz.models", "tests.fuzz.streams"]
):
    from edge.onnx_tensors import NotProtobuf, stored_tensors
    from edge.settings import SettingsError, load
    from edge.spool_marks import read_marks
    from edge.spool_record import make_record, read_record
    from edge.spool_recovery import find_records, read_tables
    from edge.spool_seal import Sealer
    from matcher import settings as matcher_settings
    from matcher.validate import BatchCheck
    from reid.card import card_text, parse_card, read_card
    from reid.model_errors import ModelError
    from reid.v1.ingest_pb2 import Batch
    from tests.fuzz import streams
    from tests.fuzz.models import Child, base_models, changed_model

CARD = Path(__file__).parents[2] / "models" / "weights" / "osnet_x0_25.toml"
MEMORY = Path("/dev/shm")  # inputs are files: on a disk in memory, where there is one
FOLDER = Path(os.environ.get("FUZZ_FOLDER", ""))  # made and removed by `main`
NOW = 1_790_000_000_000_000_000


def record(data: bytes) -> None:
    """A row of the spool is refused, or comes back as it was written."""
    try:
        head = read_record(data)
    except ValueError:
        return
    again = make_record(head.writer_id, head.seq, head.payload, head.content_hash)
    assert read_record(again) == head


def pages(data: bytes) -> None:
    """A damaged database and its WAL are read to the end."""
    path = FOLDER / "spool.sqlite"
    cut = len(data) // 2
    path.write_bytes(b"SQLite format 3\0\x02\x00" + data[:cut])
    path.with_name("spool.sqlite-wal").write_bytes(b"\x37\x7f\x06\x82" + data[cut:])
    list(find_records(path, Sealer((bytes(32),))))
    read_tables(path)


def marks(data: bytes) -> None:
    """Any file of marks can be read."""
    path = FOLDER / "spool.marks"
    path.write_bytes(data)
    read_marks(path)


def batch(data: bytes) -> None:
    """Every record of a batch is stored or rejected by itself."""
    source = atheris.FuzzedDataProvider(data)
    message = Batch()
    for _ in range(source.ConsumeIntInRange(0, 3)):
        one = message.records.add()
        one.key.writer_id = source.PickValueInList(["ab" * 16, "AB" * 16, ""])
        one.key.seq = source.ConsumeIntInRange(0, (1 << 64) - 1)
        one.content_hash = source.ConsumeBytes(32)
        seen = one.sighting
        seen.camera, seen.tracklet_id = source.ConsumeUnicodeNoSurrogates(140), "ab" * 16 + "/1"
        seen.revision, seen.frame_width, seen.frame_height = 1, 640, source.ConsumeIntInRange(0, 9)
        seen.first_seen.uncertainty_ms = source.ConsumeFloat()
        embedding = seen.shots.add(quality=source.ConsumeFloat()).embeddings.add()
        embedding.space_id, embedding.encoding = "space", source.ConsumeIntInRange(0, 4)
        embedding.values, embedding.scale = source.ConsumeBytes(16), source.ConsumeFloat()
    check = BatchCheck(
        site="site", edge_id="box", spaces={"space": 4}, boot_id="boot", estimate=lambda _: None
    )
    checked = check.check(message, now_ns=NOW)
    assert len(checked.rows) + len(checked.rejects) == len(message.records)


def settings(data: bytes) -> None:
    """A settings file is taken, or refused with a place in it."""
    path = FOLDER / "edge.toml"
    path.write_bytes(data)
    try:
        load(file=path, environ={}, flags={})
    except SettingsError:
        return


MATCHER_SETTINGS = """
listen = "127.0.0.1:7443"
data_dir = "ledger"
metrics = "127.0.0.1:9465"
log = "text"
shutdown_s = 10.0
lock_wait_s = 1.0
maps = "maps"
[tls]
ca = "ca.pem"
insecure = false
[limits]
window_sightings = 64
sightings_per_s = 2000.0
cameras = 32
[retention]
ledger_s = 86400.0
[association]
thresholds = {}
default_threshold = 0.8
""".strip().splitlines()


def matcher(data: bytes) -> None:
    """The matcher's settings, from file and environment, are taken or refused with a place.

    A third of the inputs are a file as it comes; the others change values of a sound one, and of
    the environment.
    """
    source = atheris.FuzzedDataProvider(data)
    path = FOLDER / "edge-match.toml"
    environment = {}
    if source.ConsumeIntInRange(0, 2) == 0:
        path.write_bytes(source.ConsumeBytes(len(data)))
    else:
        lines = list(MATCHER_SETTINGS)
        for _ in range(source.ConsumeIntInRange(0, 3)):
            at = source.ConsumeIntInRange(0, len(lines) - 1)
            name, _, _ = lines[at].partition(" = ")
            lines[at] = f"{name} = {_value(source)}"
        path.write_text("\n".join(lines), encoding="utf-8")
        for _ in range(source.ConsumeIntInRange(0, 2)):
            name = source.PickValueInList(
                ["LISTEN", "DATA_DIR", "LIMITS", "LIMITS__CAMERAS", "LIMITS__CAMERAS__X", "TLS__CA",
                 "ASSOCIATION__THRESHOLDS", "RETENTION__LEDGER_S", "__", "X__", "LISTEN__X"]
            )  # fmt: skip
            environment[f"EDGE_MATCH_{name}"] = _value(source)
    try:
        matcher_settings.load(file=path, environment=environment, flags={})
    except matcher_settings.SettingsError:
        return


@functools.cache
def _site() -> streams.Site:
    # What the service says of each bad message is not looked at here, and costs more than the rest.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return streams.Site(FOLDER / "site")


def stream(data: bytes) -> None:
    """A whole stream is served or refused, and hurts nobody after it."""
    source = atheris.FuzzedDataProvider(data)
    if source.ConsumeIntInRange(0, 3) == 0:
        _site().serve(streams.parsed_stream(source.ConsumeBytes(len(data))))
    else:
        _site().serve(streams.made_stream(source))


@functools.cache
def _child() -> tuple[Child, list[tuple[int, bytes]]]:
    return Child(Path("build/fuzz-models")), base_models(FOLDER)


def session(data: bytes) -> None:
    """A model file is opened and run by the box's own code, or refused by a ModelError."""
    child, bases = _child()
    child.open(*changed_model(atheris.FuzzedDataProvider(data), bases))


def model(data: bytes) -> None:
    """A model file's tensors are listed, or it is said not to be one."""
    try:
        list(stored_tensors(data))
    except NotProtobuf:
        return


def _value(source: Any) -> str:
    """Something that may stand behind the equals sign of a TOML file."""
    match source.ConsumeIntInRange(0, 5):
        case 0:
            return str(source.ConsumeInt(9))
        case 1:
            return repr(source.ConsumeFloat())
        case 2:
            return json.dumps(source.ConsumeUnicodeNoSurrogates(24), ensure_ascii=False)
        case 3:
            return f"[{source.ConsumeInt(4)}, {source.ConsumeInt(4)}]"
        case 4:
            return str(source.PickValueInList(["true", '""', "[]", "{}", "2026-01-31", "-0.0"]))
        case _:
            return str(source.ConsumeUnicodeNoSurrogates(24))


def card(data: bytes) -> None:
    """A model's card is refused, or means the same after it was written again.

    Half of the inputs are a file as it comes; half are the shipped card with some values changed.
    """
    source = atheris.FuzzedDataProvider(data)
    path = FOLDER / "card.toml"
    if source.ConsumeBool():
        path.write_bytes(source.ConsumeBytes(len(data)))
    else:
        lines = CARD.read_text().splitlines()
        for _ in range(source.ConsumeIntInRange(1, 3)):
            at = source.ConsumeIntInRange(0, len(lines) - 1)
            name, _, _ = lines[at].partition(" = ")
            lines[at] = f"{name} = {_value(source)}"
        path.write_text("\n".join(lines), encoding="utf-8")
    try:
        found = read_card(path)
    except ModelError:
        return
    again = parse_card(card_text(found), path)
    assert card_text(again) == card_text(found)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "record": record,
    "pages": pages,
    "marks": marks,
    "batch": batch,
    "stream": stream,
    "settings": settings,
    "matcher": matcher,
    "model": model,
    "session": session,
    "card": card,
}


# Their inputs are read as choices: the short ones with which a fuzzer begins choose nothing.
STRUCTURED = ("batch", "stream", "matcher", "session", "card")


def _seeds() -> Path:
    """A folder of random inputs, the same at every run."""
    folder = FOLDER / "seeds"
    folder.mkdir()
    chance = random.Random(1)
    for number in range(64):
        (folder / f"{number:02d}").write_bytes(chance.randbytes(chance.randrange(64, 2048)))
    return folder


def main() -> int:
    """The first argument names the target, the others are libFuzzer's."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"which target? one of {', '.join(TARGETS)}")
    if "FUZZ_FOLDER" not in os.environ:
        # libFuzzer ends its process without a word, so another one clears up behind it.
        base = MEMORY if MEMORY.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=base) as folder:
            command = [sys.executable, "-m", "tests.fuzz.run", *sys.argv[1:]]
            environment = dict(os.environ, FUZZ_FOLDER=folder)
            return subprocess.run(command, check=False, env=environment).returncode
    options = sys.argv[2:]
    if sys.argv[1] in STRUCTURED and all(option.startswith("-") for option in options):
        options += ["-len_control=0", str(_seeds())]
    atheris.Setup([sys.argv[0], *options], TARGETS[sys.argv[1]])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
