"""Opens model files in processes that may crash: one fork per file, limited in memory and time.

    python -m tests.fuzz.model_child

Reads requests from stdin (kind: 1 byte, length: 4 bytes little-endian, the file) and answers each
with a line: `opened`, `refused CODE`, `fault TEXT` (an exception that is no ModelError),
`crash SIGNAL`, `memory` or `time`. The process itself imports everything once and opens nothing.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
import tempfile
import traceback
from pathlib import Path

from edge.config import DetectConfig, EmbedConfig, RuntimeConfig
from edge.detect.detector import open_detector
from edge.embed import golden_row, open_embedder
from edge.models_dir import model_at
from reid.card import Card, Golden, InputSpec, ModelFile, sha256_of
from reid.golden import golden_image
from reid.model_errors import ModelError

EMBEDDER, OSNET, DETECTOR, RECOGNISED = 0, 1, 2, 3
MEMORY_BYTES = 3 << 30  # address space, of which the libraries take most of one
CPU_S, WALL_S = 5, 10
_PLAIN = RuntimeConfig(threads=1, backend="onnxruntime")


def open_one(kind: int, path: Path, content: bytes) -> None:
    """What a box does with a model: hash, open, look at shapes, run on a picture.

    Raises:
        ModelError: it is refused.
    """
    if kind in (EMBEDDER, OSNET):
        dimension, height, width = (512, 128, 64) if kind == OSNET else (8, 32, 16)
        card = Card(
            kind="embedder", name="fuzz", file=path.name, sha256=sha256_of(content),
            bytes=max(1, len(content)), licence="Apache-2.0", commercial_use=True, made_by="fuzz",
            space_id="fuzz/1", variant_id="float32", dimension=dimension,
            input=InputSpec(height=height, width=width),
            golden=Golden(values=(0.0,), tolerance=9.0),
        )  # fmt: skip
        # Without the golden values, which only the sound file has: then it is run all the same.
        embedder = open_embedder(ModelFile(path, card), _PLAIN, EmbedConfig(), verify=False)
        golden_row(embedder, 1)
        return
    file = model_at(path)
    family = "yolox-decoded" if kind == DETECTOR else None
    detector = open_detector(file, _PLAIN, DetectConfig(family=family))
    detector.detect(golden_image(48, 64))


def _limited(kind: int, content: bytes, folder: Path) -> str:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(WALL_S)
    path = folder / "fuzz.onnx"
    path.write_bytes(content)
    try:
        open_one(kind, path, content)
    except ModelError as error:
        return f"refused {error.code}"
    except MemoryError:
        return "memory"
    except Exception as fault:  # noqa: BLE001 - said to the fuzzer, which fails by it
        where = traceback.extract_tb(fault.__traceback__)[-1]
        return f"fault {fault!r} at {Path(where.filename).name}:{where.lineno}"
    return "opened"


def _in_a_fork(kind: int, content: bytes, folder: Path) -> str:
    inner, outer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inner)
        text = _limited(kind, content, folder)
        os.write(outer, text.replace("\n", " ")[:2000].encode())
        os._exit(0)
    os.close(outer)
    answer = b""
    while piece := os.read(inner, 4096):
        answer += piece
    os.close(inner)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return answer.decode(errors="replace") or "crash without an answer"
    name = signal.Signals(os.WTERMSIG(status)).name
    return "time" if name in ("SIGALRM", "SIGXCPU", "SIGKILL") else f"crash {name}"


def main() -> None:
    """Answer until stdin ends."""
    head = struct.Struct("<BI")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the runtime prints to stdout
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while read := sys.stdin.buffer.read(head.size):
            kind, size = head.unpack(read)
            answer = _in_a_fork(kind, sys.stdin.buffer.read(size), Path(folder))
            print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
