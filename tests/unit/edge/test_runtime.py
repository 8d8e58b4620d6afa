"""Do both runtimes load, refuse and compute as promised, and with how many threads?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.config import RuntimeConfig
from edge.onnx_tensors import NotProtobuf, stored_tensors
from edge.runtime import TensorInfo, _cgroup1_cpus, _cgroup2_cpus, open_session, quota_threads
from edge.tiny_weights import without_tiny_weights
from reid.model_errors import ModelMisbehaved, ModelUnreadable
from tests.unit.edge.tiny_models import ONE_THREAD, mean_embedder

RUNTIMES = ["onnxruntime", "openvino"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_shapes_are_read_with_free_sizes_as_none(runtime: str, tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")

    session = open_session(path.read_bytes(), name=path, config=ONE_THREAD, runtime=runtime)

    assert session.inputs == (TensorInfo("images", (None, 3, 32, 16), "float32"),)
    assert session.outputs == (TensorInfo("output", (None, 8), "float32"),)
    assert (session.runtime, session.threads) == (runtime, 1)


@pytest.mark.parametrize("name", [b"GlobalAveragePool", b"images", b"output"])
def test_a_name_that_is_no_utf8_is_refused_as_any_damage(tmp_path: Path, name: bytes) -> None:
    """onnxruntime's Python then fails with another exception, at its own error or at the name."""
    content = mean_embedder(tmp_path / "m.onnx").read_bytes()
    assert name in content

    with pytest.raises(ModelUnreadable, match="is no ONNX model"):
        open_session(
            content.replace(name, name[:2] + b"\x99" + name[3:]), name="m", config=ONE_THREAD
        )


def test_both_runtimes_compute_the_same(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    pictures = np.random.default_rng(1).random((3, 3, 32, 16), dtype=np.float32)
    sessions = [
        open_session(path.read_bytes(), name=path, config=ONE_THREAD, runtime=runtime)
        for runtime in RUNTIMES
    ]

    plain, other = (session.run({"images": pictures})[0].copy() for session in sessions)

    assert plain.shape == (3, 8)
    np.testing.assert_allclose(plain, other, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" + b"\xff" * 40])
def test_bytes_that_are_no_model_are_unreadable(runtime: str, content: bytes) -> None:
    with pytest.raises(ModelUnreadable, match=r"model odd\.onnx: is no ONNX model"):
        open_session(content, name="odd.onnx", config=ONE_THREAD, runtime=runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_input_of_another_shape_fails_by_name(runtime: str, tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    session = open_session(path.read_bytes(), name=path, config=ONE_THREAD, runtime=runtime)

    with pytest.raises(ModelMisbehaved, match=r"m\.onnx: could not be run"):
        session.run({"images": np.zeros((1, 3, 8), np.float32)})


def test_onnxruntime_has_no_other_precision(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")

    with pytest.raises(ModelUnreadable, match="onnxruntime has no bf16"):
        open_session(path.read_bytes(), name=path, config=ONE_THREAD, precision="bf16")


def test_openvino_missing_is_said_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    monkeypatch.setattr("edge.runtime.have_openvino", lambda: False)

    with pytest.raises(ModelUnreadable, match=r"pip install 'edge-reid\[openvino\]'"):
        open_session(path.read_bytes(), name=path, config=ONE_THREAD, runtime="openvino")


def test_threads_follow_the_quota_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")

    assert _cgroup2_cpus(tmp_path) == 1.5
    assert _cgroup1_cpus(tmp_path) is None
    assert _cgroup2_cpus(tmp_path / "absent") is None


def test_threads_are_never_more_than_four_and_never_none() -> None:
    assert 1 <= quota_threads() <= 4


def test_a_session_keeps_the_threads_it_was_told(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")

    session = open_session(path.read_bytes(), name=path, config=RuntimeConfig(threads=2))

    assert session.threads == 2


_CLOSED_IN_A_THREAD = """
import signal, sys, threading
from pathlib import Path
from edge.config import RuntimeConfig
from edge.runtime import open_session

told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
content = Path(sys.argv[1]).read_bytes()
held = [open_session(content, name="m", config=RuntimeConfig(threads=1), runtime=sys.argv[2])]
closing = threading.Thread(target=held.clear)
closing.start()
closing.join()
signal.raise_signal(signal.SIGTERM)
assert told, "the handler ran"
"""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_signals_arrive_after_a_model_was_closed_in_another_thread(
    runtime: str, tmp_path: Path
) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    command = [sys.executable, "-c", _CLOSED_IN_A_THREAD, str(path), runtime]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


def cleaned(content: bytes) -> bytes:
    return without_tiny_weights(content, stored_tensors(content))


def test_weights_too_small_to_matter_become_zero_and_nothing_else_changes(tmp_path: Path) -> None:
    content = mean_embedder(tmp_path / "m.onnx", tiny_weight=True).read_bytes()

    after_content = cleaned(content)

    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (onnx.load_from_string(content), onnx.load_from_string(after_content))
    )
    assert before["weights"][0, 0] != 0.0
    assert after["weights"][0, 0] == 0.0
    before["weights"] = before["weights"].copy()
    before["weights"][0, 0] = 0.0
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert len(after_content) == len(content)


def test_a_model_without_such_weights_comes_back_as_it_is(tmp_path: Path) -> None:
    content = mean_embedder(tmp_path / "m.onnx").read_bytes()

    assert cleaned(content) is content


def test_tensors_of_constants_subgraphs_and_functions_are_found() -> None:
    one = numpy_helper.from_array(np.array([1.5], np.float32), "one")
    node = helper.make_node("Constant", [], ["out"], value=one)
    body = helper.make_graph([node], "body", [], [])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    graph = helper.make_graph([branch, node], "main", [], [], [one])
    function = helper.make_function("d", "f", [], ["out"], [node], [])
    model = helper.make_model(graph, functions=[function])

    found = list(stored_tensors(model.SerializeToString()))

    assert len(found) == 5  # two branches, the constant, the initializer, the function's constant
    assert {tensor.kind for tensor in found} == {TensorProto.FLOAT}


@pytest.mark.parametrize("content", [b"\xff" * 30, b"\x3a\x7f", b"hello world"])
def test_bytes_that_are_no_protobuf_are_told(content: bytes) -> None:
    with pytest.raises(NotProtobuf):
        list(stored_tensors(content))


def test_every_cut_of_a_model_is_refused_by_name(tmp_path: Path) -> None:
    content = mean_embedder(tmp_path / "m.onnx", tiny_weight=True).read_bytes()
    refused = 0

    for cut in range(len(content)):
        try:
            open_session(content[:cut], name="cut.onnx", config=ONE_THREAD)
        except ModelUnreadable:
            refused += 1

    # what follows the graph (the opset) may be missing at the very end; all else is refused
    assert refused >= len(content) - 12


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    model = onnx.load(mean_embedder(tmp_path / "m.onnx", dimension=512))
    onnx.save(
        model,
        tmp_path / "split.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )

    with pytest.raises(ModelUnreadable, match="keeps weights in other files"):
        open_session((tmp_path / "split.onnx").read_bytes(), name="split.onnx", config=ONE_THREAD)


def test_the_box_looks_without_torch_or_the_training_side() -> None:
    code = (
        "import sys, edge.detect, edge.embed, edge.model_keeper\n"
        "print([name for name in ('torch', 'models', 'onnx', 'openvino') if name in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert result.stdout.strip() == "[]"
