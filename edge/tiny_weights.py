"""Weights too small to matter, set to zero before a model is loaded.

Why: trained networks hold weights decayed to 1e-40. Processors compute with such numbers (and with
products that become such) many times slower; a public OSNet x0.25 ran five to seven times slower
for 751 of its 200,136 weights. The runtime's own switch (flush denormals) acts on whole threads
and changes the arithmetic of everything else in them; zeroed weights act on the model alone.
Promise: float32 values below 1e-20 in magnitude become zero, nothing else changes, same length.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge.onnx_tensors import FLOAT, Tensor

TINY = 1e-20  # float32 keeps full precision to 1e-38; two factors of this stay out of the outputs


def without_tiny_weights(content: bytes, tensors: Iterable[Tensor]) -> bytes:
    """The same model with float32 weights below 1e-20 in magnitude set to zero.

    Args:
        content: the ONNX file.
        tensors: what `stored_tensors` found in it.
    """
    changed: bytearray | None = None
    for tensor in tensors:
        if tensor.kind != FLOAT:
            continue
        for start, stop in tensor.numbers:
            values = np.frombuffer(content, "<f4", (stop - start) // 4, start)
            tiny = (values != 0.0) & (np.abs(values) < TINY)
            if tiny.any():
                if changed is None:
                    changed = bytearray(content)
                np.frombuffer(changed, "<f4", len(values), start)[tiny] = 0.0
    return content if changed is None else bytes(changed)
