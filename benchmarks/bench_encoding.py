"""What the wire's encodings cost in similarity, on embeddings of real crops.

    python -m benchmarks.bench_encoding --shared ../shared

OSNet x0.25 embeds people of vtest.avi (boxes of its ground truth); each vector is written and read
back in every encoding; all pairs' cosine similarities are compared with float32's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from reid.codec import EncodingName, decode, encode

ENCODINGS: tuple[EncodingName, ...] = ("float32", "float16", "int8")
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def embed(shared: Path, crops: int) -> npt.NDArray[np.float32]:
    """(n, d) float32 of unit length."""
    folder = shared / "data" / "pets2009_s2l1"
    boxes: dict[int, list[list[float]]] = {}
    for line in (folder / "gt.txt").read_text().splitlines():
        frame, _, x, y, w, h = (float(part) for part in line.split(",")[:6])
        boxes.setdefault(int(frame), []).append([x, y, w, h])
    session = onnxruntime.InferenceSession(
        shared / "models" / "osnet_x0_25_msmt17_combineall.onnx",
        providers=["CPUExecutionProvider"],
    )
    name = session.get_inputs()[0].name
    film = cv2.VideoCapture(str(folder / "vtest.avi"))
    found: list[npt.NDArray[np.float32]] = []
    frame = 0
    while len(found) < crops:
        there, image = film.read()
        if not there:
            break
        frame += 1
        if frame % 10:
            continue
        for x, y, w, h in boxes.get(frame, []):
            crop = image[max(0, int(y)) : int(y + h), max(0, int(x)) : int(x + w)]
            if min(crop.shape[:2]) < 16:
                continue
            rgb = cv2.resize(crop, (128, 256))[:, :, ::-1].astype(np.float32) / 255
            batch = ((rgb - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None]
            vector = np.asarray(session.run(None, {name: batch})[0])[0]
            found.append(vector / np.linalg.norm(vector))
    return np.array(found[:crops], np.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of experiment data")
    parser.add_argument("--crops", type=int, default=400)
    options = parser.parse_args()
    vectors = embed(options.shared, options.crops)
    assert len(vectors) > 50, "too few crops"
    pairs = np.triu_indices(len(vectors), 1)
    exact = (vectors @ vectors.T)[pairs]
    print(f"{len(vectors)} crops, {len(exact)} pairs, cosine {exact.min():.3f}..{exact.max():.3f}")
    print(f"{'':<10}{'bytes':>7}{'mean |d|':>12}{'max |d|':>12}")
    result = {}
    for encoding in ENCODINGS:
        messages = [encode(v, space_id="s", variant_id="v", encoding=encoding) for v in vectors]
        read = np.array([decode(message) for message in messages])
        loss = np.abs((read @ read.T)[pairs] - exact)
        size = len(messages[0].values)
        print(f"{encoding:<10}{size:>7}{loss.mean():>12.2e}{loss.max():>12.2e}")
        result[encoding] = {"bytes": size, "mean": float(loss.mean()), "max": float(loss.max())}
    print(json.dumps({"crops": len(vectors), "loss": result}))


if __name__ == "__main__":
    main()
