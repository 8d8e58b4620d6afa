"""Tests of the models run on one thread: on shared cores two threads wait for each other."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
