"""Tests of the models run on one thread: on shared cores two threads wait for each other."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
import torch
from typer.testing import CliRunner

from models import checkpoints
from models.catalogue import Entry
from models.cli import app
from models.osnet import Architecture, OSNet
from reid.card import card_path, read_card, sha256_of, write_card
from tests.unit.edge.tiny_models import embedder_card, mean_embedder
from tests.unit.models.drawn_people import market
from tests.unit.models.mirrors import Handler, Mirror, Start
from tests.unit.models.tiny_run import packed

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of random weights as ONNX with its card; `last.pth` lies beside it.

    One for all tests, since torch's exporter takes seconds: copy it before changing anything.
    """
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(5)
    network = OSNet(Architecture(width=0.25, neck=True), classes=2)
    network.train()
    for _ in range(3):  # norms that have seen data keep the ranges of int8 sensible
        network.heads(torch.randn(8, 3, 64, 32))
    checkpoints.save(
        folder / "last.pth",
        network,
        trained_on=["drawn:train"],
        input={"height": 64, "width": 32},
    )
    target = folder / "small.onnx"
    result = CliRunner().invoke(app, ["export", str(folder / "last.pth"), str(target)])
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("packs"), shots=4)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many other people of a set of the same name."""
    return packed(tmp_path_factory.mktemp("others"), shots=5)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    """A folder with a drawn set and a network of random weights: net.onnx, net.toml, net.pth."""
    folder = tmp_path_factory.mktemp("place")
    market(folder / "set", train=4, test=6, shots=3)
    shutil.copyfile(exported.with_name("last.pth"), folder / "net.pth")
    content = _input_renamed(exported, "pictures")
    (folder / "net.onnx").write_bytes(content)
    changed = {"sha256": sha256_of(content), "bytes": len(content)}
    card = read_card(card_path(exported)).model_copy(
        update={"name": "net", "file": "net.onnx"} | changed
    )
    write_card(card, folder / "net.toml")
    return folder


def _input_renamed(model: Path, name: str) -> bytes:
    """Others' exports call their input otherwise."""
    network = onnx.load(model)
    old = network.graph.input[0].name
    network.graph.input[0].name = name
    for node in network.graph.node:
        for slot, wanted in enumerate(node.input):
            if wanted == old:
                node.input[slot] = name
    content: bytes = network.SerializeToString()
    return content


def evaluated(place: Path, *more: str, model: str = "net.onnx") -> dict[str, float]:
    """Scores of `edge-models evaluate --json` for a model of `place` on its set."""
    arguments = ["evaluate", str(place / model), "--data", str(place / "set")]
    result = CliRunner().invoke(app, [*arguments, "--protocol", "market1501", "--json", *more])
    assert result.exit_code == 0, result.output
    found: dict[str, float] = json.loads(result.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached directly, whatever the environment says."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.fixture
def mirror() -> Iterator[Start]:
    """Starts mirrors that behave as given; they end with the test."""
    running: list[tuple[Mirror, threading.Thread]] = []

    def start(behave: Callable[[Handler], None]) -> Mirror:
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


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """What `made/m.onnx` in the test's folder holds: a tiny embedder."""
    folder = tmp_path / "made"
    folder.mkdir()
    return mean_embedder(folder / "m.onnx", dimension=4096).read_bytes()


@pytest.fixture
def entry(tmp_path: Path, content: bytes) -> Entry:
    """A catalogue's entry of that file, without an address."""
    assert content
    path = tmp_path / "made" / "m.onnx"
    return Entry(embedder_card(path, dimension=4096, name="public", licence="MIT"), ())
