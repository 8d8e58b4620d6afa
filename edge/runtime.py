"""ONNX models behind one small protocol: open, look at shapes, run.

Promise: what was hashed is what is loaded (a session is opened from bytes); the number of threads
is always set, from the processor quota where the configuration leaves it open, since runtimes
count the machine's cores and not ours; idle threads do not spin.
Fails: ModelUnreadable where the bytes are no model that the runtime loads, ModelMisbehaved where a
run fails. OpenVINO missing although asked for is ModelUnreadable with the package to install.
Threads: a session is run by one thread at a time; opening is allowed from any thread.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _ort

from edge.config import RuntimeConfig
from edge.onnx_tensors import NotProtobuf, stored_tensors
from edge.tiny_weights import without_tiny_weights
from reid.model_errors import ModelMisbehaved, ModelUnreadable

Array = npt.NDArray[Any]
RuntimeName = Literal["onnxruntime", "openvino"]
Precision = Literal["f32", "bf16"]

MAX_DEFAULT_THREADS = 4  # beyond, these small networks gain nothing and take cores from decoding
_one_core = threading.Lock()

# onnxruntime's errors share no base but Exception; these are the ones loading and running raise.
# UnicodeDecodeError: the error, or a name in the model, is no UTF-8, as a damaged file's may be.
_ORT_ERRORS = (
    UnicodeDecodeError,
    _ort.Fail,
    _ort.InvalidArgument,
    _ort.InvalidGraph,
    _ort.InvalidProtobuf,
    _ort.NoModel,
    _ort.NoSuchFile,
    _ort.NotFound,
    _ort.NotImplemented,
    _ort.RuntimeException,
    _ort.EPFail,
)
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output.

    Attributes:
        name: as in the model.
        shape: sizes; None where the size is free.
        dtype: numpy's name, e.g. float32.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        sizes = "×".join("N" if size is None else str(size) for size in self.shape)
        return f"{self.name} {sizes} {self.dtype}"


class Session(Protocol):
    """A loaded model.

    Attributes:
        runtime: onnxruntime or openvino.
        precision: f32, or bf16 where the card admits it.
        threads: threads of one run.
        inputs, outputs: what goes in and out, in the model's order.
        metadata: the model's own key-value pairs (exporters leave class names there).
    """

    @property
    def runtime(self) -> RuntimeName: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def threads(self) -> int: ...
    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...
    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Run once.

        Args:
            feeds: an array for every input; C-contiguous ones are read without a copy.

        Returns:
            The outputs in the model's order. They may be overwritten by the next run.

        Raises:
            ModelMisbehaved: the runtime refused the input or failed.
        """
        ...


def quota_threads() -> int:
    """How many threads this process may keep busy: affinity and cgroup quota, at most 4."""
    allowed = float(len(os.sched_getaffinity(0)))
    for quota in (_cgroup2_cpus(Path("/sys/fs/cgroup")), _cgroup1_cpus(Path("/sys/fs/cgroup/cpu"))):
        if quota is not None:
            allowed = min(allowed, quota)
    return max(1, min(MAX_DEFAULT_THREADS, int(allowed)))


def _cgroup2_cpus(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # no such controller here: no quota


def _cgroup1_cpus(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None


def have_openvino() -> bool:
    """Whether the extra `openvino` is installed."""
    return importlib.util.find_spec("openvino") is not None


def have_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 here; else it takes float for it and does not say."""
    if not have_openvino():
        return False
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def openvino_core() -> Any:
    """OpenVINO's one core in this process, kept to its end.

    Its plugin gives the thread that opens it a stack for signals, and takes the memory back with
    the last core and model, whichever thread closes them: the next signal would crash the process.
    """
    with _one_core:
        return _core()


@functools.cache
def _core() -> Any:
    import openvino  # an extra: absent on a bare box, and half a second to import

    return openvino.Core()


def open_session(
    content: bytes,
    *,
    name: Path | str,
    config: RuntimeConfig,
    runtime: RuntimeName = "onnxruntime",
    precision: Precision = "f32",
) -> Session:
    """Load a model.

    Args:
        content: the ONNX file, whole (weights inside; no external data).
        name: what messages call it.
        config: threads and spinning; its `backend` is the caller's matter (edge.backends).
        runtime, precision: with what to run.

    Raises:
        ModelUnreadable: not ONNX, cut short, or the runtime is missing or cannot load it.
    """
    threads = config.threads or quota_threads()
    content = _prepared(content, name)
    if runtime == "openvino":
        return _OpenVinoSession(content, name=name, threads=threads, precision=precision)
    if precision != "f32":
        raise ModelUnreadable(name, f"onnxruntime has no {precision} here", "take openvino for it")
    return _OrtSession(content, name=name, threads=threads, spin=config.spin)


def inspect(content: bytes, *, name: Path | str) -> Session:
    """Load a model quickly, for a look at its shapes or a single run.

    Raises:
        ModelUnreadable: as open_session.
    """
    content = _prepared(content, name)
    return _OrtSession(content, name=name, threads=1, spin=False, optimise=False)


def _prepared(content: bytes, name: Path | str) -> bytes:
    """Refuse weights in other files, which no checksum covers; zero those that only cost time."""
    try:
        tensors = list(stored_tensors(content))
    except (NotProtobuf, RecursionError):
        return content  # the runtime says what is wrong with it
    if any(tensor.external for tensor in tensors):
        raise ModelUnreadable(
            name,
            "keeps weights in other files, which its checksum does not cover",
            "export it as one file (onnx.save with save_as_external_data=False)",
        )
    return without_tiny_weights(content, tensors)


class _OrtSession:
    """ONNX Runtime on the processor."""

    runtime: RuntimeName = "onnxruntime"
    precision: Precision = "f32"

    def __init__(
        self, content: bytes, *, name: Path | str, threads: int, spin: bool, optimise: bool = True
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4  # its errors arrive as exceptions; ours say what to do
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._name = name
        self.threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            self.inputs = tuple(_info(item) for item in self._session.get_inputs())
            self.outputs = tuple(_info(item) for item in self._session.get_outputs())
            self.metadata: Mapping[str, str] = dict(
                self._session.get_modelmeta().custom_metadata_map
            )
        except _ORT_ERRORS as error:
            raise ModelUnreadable(
                name,
                f"is no ONNX model that onnxruntime {onnxruntime.__version__} loads "
                f"({_first_line(error)})",
                "check that the file is whole and a single ONNX file: edge-models check FILE",
            ) from error
        self._output_names = [item.name for item in self.outputs]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        try:
            outputs: list[Array] = self._session.run(self._output_names, feeds)
        except _ORT_ERRORS as error:
            raise _run_failed(self._name, error) from error
        return outputs


class _OpenVinoSession:
    """OpenVINO on the processor, at float precision unless told otherwise.

    OpenVINO takes bfloat16 by itself where the processor has it; the precision is always set.
    """

    runtime: RuntimeName = "openvino"

    def __init__(
        self, content: bytes, *, name: Path | str, threads: int, precision: Precision
    ) -> None:
        if not have_openvino():
            raise ModelUnreadable(
                name, "OpenVINO is not installed", "pip install 'edge-reid[openvino]'"
            )
        self._name = name
        self.threads = threads
        self.precision = precision
        core = openvino_core()
        try:
            model = core.read_model(content, b"")
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": precision,
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": 1,
                    "PERFORMANCE_HINT": "LATENCY",
                },
            )
        except RuntimeError as error:
            raise ModelUnreadable(
                name,
                f"is no ONNX model that OpenVINO loads ({_first_line(error)})",
                'set runtime.backend = "onnxruntime", or check the file: edge-models check FILE',
            ) from error
        self._request = compiled.create_infer_request()
        self.inputs = tuple(_ov_info(port) for port in compiled.inputs)
        self.outputs = tuple(_ov_info(port) for port in compiled.outputs)
        self.metadata: Mapping[str, str] = {}

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        try:
            self._request.infer(feeds, share_inputs=True, share_outputs=True)
            return [
                self._request.get_output_tensor(number).data for number in range(len(self.outputs))
            ]
        except (RuntimeError, ValueError, TypeError) as error:
            raise _run_failed(self._name, error) from error


def _run_failed(name: Path | str, error: Exception) -> ModelMisbehaved:
    return ModelMisbehaved(
        name, f"could not be run ({_first_line(error)})", "check it: edge-models check FILE"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def _info(item: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in item.shape)
    return TensorInfo(item.name, shape, _TYPES.get(item.type, item.type))


def _ov_info(port: Any) -> TensorInfo:
    shape = tuple(
        int(size.get_length()) if size.is_static else None for size in port.get_partial_shape()
    )
    return TensorInfo(port.get_any_name(), shape, str(np.dtype(port.get_element_type().to_dtype())))
