"""Batches of P people with K images each, the order that a batch-hard triplet loss needs.

Promise: `epoch(n)` depends on the labels, the seed and n alone, so a run can stop at any step and
go on as if it had not. Every batch has P different people; a person with fewer than K images gives
some of them twice. Within one pass an image is used once before any is used again; what is left
when fewer than P people remain waits for the next pass.
`BySetSampler` keeps the people of different sets apart: strangers of one set are told apart by how
they look, those of two sets by their cameras already, which teaches nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.data.errors import DataError


class PKSampler:
    """Index lists of training batches.

    Args:
        labels: (n,) person of each image.
        people, images: P and K.
    """

    def __init__(self, labels: NDArray[np.int64], *, people: int, images: int, seed: int) -> None:
        self._by_person = [np.flatnonzero(labels == person) for person in np.unique(labels)]
        if len(self._by_person) < people:
            raise DataError(
                f"the training set has {len(self._by_person)} people; a batch wants {people} "
                "different ones: lower optimise.people in the recipe"
            )
        self._people, self._images, self._seed = people, images, seed
        self.steps = max(len(labels) // (people * images), 1)

    def epoch(self, number: int) -> NDArray[np.int64]:
        """(steps, people * images) indices; images of a person stand together."""
        random = np.random.default_rng((self._seed, number))
        batches: list[NDArray[np.int64]] = []
        while len(batches) < self.steps:
            batches.extend(self._one_pass(random))
        return np.stack(batches[: self.steps])

    def _one_pass(self, random: np.random.Generator) -> list[NDArray[np.int64]]:
        waiting = [self._groups(indices, random) for indices in self._by_person]
        left = np.array([len(groups) for groups in waiting])
        batches = []
        while np.count_nonzero(left) >= self._people:
            # by what is left, so that people with many images are not what remains alone
            chosen = random.choice(len(left), self._people, replace=False, p=left / left.sum())
            batches.append(np.concatenate([waiting[person].pop() for person in chosen]))
            left[chosen] -= 1
        return batches

    def _groups(
        self, indices: NDArray[np.int64], random: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        short = -len(indices) % self._images
        order = random.permutation(indices)
        if short:
            again = random.choice(indices, short, replace=short > len(indices))
            order = np.concatenate([order, again])
        return list(order.reshape(-1, self._images))


class BySetSampler:
    """Batches of one set each, of every set as many as it has images for, in random order.

    Args:
        labels: (n,) person of each image.
        sets: (n,) set of each image; every set needs P people.
        people, images: P and K.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        sets: NDArray[np.int64],
        *,
        people: int,
        images: int,
        seed: int,
    ) -> None:
        rows = [np.flatnonzero(sets == one) for one in np.unique(sets)]
        self._parts = [
            (own, PKSampler(labels[own], people=people, images=images, seed=seed)) for own in rows
        ]
        self._seed = seed
        self.steps = sum(sampler.steps for _, sampler in self._parts)

    def epoch(self, number: int) -> NDArray[np.int64]:
        """(steps, people * images) indices; images of a person stand together."""
        batches = np.concatenate([own[sampler.epoch(number)] for own, sampler in self._parts])
        return np.random.default_rng((self._seed, number, 1)).permutation(batches)
