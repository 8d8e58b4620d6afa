"""Galleries, and what a likeness is worth."""

from __future__ import annotations

import numpy as np
import pytest

from edge.track.appearance import FIRST_OTHER, FIRST_SAME, GALLERY, Gallery, LikenessScale
from tests.unit.edge.tracks import unit


def test_likeness_is_the_best_cosine_with_anything_in_the_gallery() -> None:
    gallery = Gallery()
    gallery.add(unit([1, 0]), 0.0)
    gallery.add(unit([0, 1]), 1.0)

    likeness = gallery.likeness(np.stack([unit([1, 0]), unit([1, 1])]))

    np.testing.assert_allclose(likeness, [1.0, np.sqrt(0.5)], atol=1e-6)


def test_a_gallery_keeps_the_latest_and_forgets_the_oldest() -> None:
    gallery = Gallery()
    gallery.add(unit([1, 0]), 0.0)

    for i in range(GALLERY):
        gallery.add(unit([0, 1]), float(i))

    assert len(gallery) == GALLERY
    assert gallery.likeness(unit([1, 0])[None])[0] == pytest.approx(0.0)


def test_a_refused_embedding_is_left_out_and_an_empty_gallery_knows_nothing() -> None:
    gallery = Gallery()

    gallery.add(np.full(2, np.nan, np.float32), 0.0)

    assert len(gallery) == 0
    assert np.isnan(gallery.likeness(unit([1, 0])[None])[0])


def test_evidence_is_half_for_typical_likeness_and_nothing_for_the_unknown() -> None:
    scale = LikenessScale()

    evidence = scale.evidence(np.array([FIRST_SAME, FIRST_OTHER, np.nan, -1.0], np.float32))

    np.testing.assert_allclose(evidence, [0.5, -0.5, 0.0, -1.0], atol=1e-6)


def test_the_scale_learns_an_embedder_that_finds_everybody_alike() -> None:
    scale = LikenessScale()

    for _ in range(500):
        scale.learn(same=True, likeness=np.array([0.97], np.float32))
        scale.learn(same=False, likeness=np.array([0.77, np.nan], np.float32))

    evidence = scale.evidence(np.array([0.97, 0.77], np.float32))
    assert evidence[0] == pytest.approx(0.5, abs=0.1)
    assert evidence[1] == pytest.approx(-0.5, abs=0.1)


def test_vectors_of_another_length_start_a_gallery_afresh() -> None:
    gallery = Gallery()
    gallery.add(unit([1, 0]), 0.0)

    unknown = gallery.likeness(unit([1, 0, 0])[None])
    gallery.add(unit([1, 0, 0]), 1.0)

    assert np.isnan(unknown[0])
    assert len(gallery) == 1
    assert gallery.likeness(unit([1, 0, 0])[None])[0] == pytest.approx(1.0)
