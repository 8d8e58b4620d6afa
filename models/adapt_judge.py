"""Did a model get better or worse on crops that it was not trained on? Without labels.

Promise: a model that is worse even by its own clusters of held-back crops, far worse by the
parent's, or that no longer sees people in them, is refused. The parent's clusters were made to suit
the parent, so a better model looks a little worse by them; the new model's own suit the new one.
Both are told. What passes is not proved better: docs/adaptation.md compares them with the truth.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.gds import pair_distances
from models.neighbours import Clustering, clusters, jaccard_graph
from models.site_measures import separation
from reid.site_map import Separation

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
BY_PARENT = "pairs of held-back crops, by the parent's clusters (which favour the parent)"
BY_ITSELF = "pairs of held-back crops, by this model's clusters (which favour this model)"
LEAST_HELD = 5  # clusters
_LEAST_CLUSTERED = 0.5  # of the held-back crops; the parent had all of them in clusters
# By the parent's clusters: models that were better rose up to 1.6 fold, spoilt ones from 2.2.
_MOST_RISE, _SLACK = 2.0, 2.0  # fold, and points of a parent that made hardly an error


class AdaptError(Exception):
    """Nothing was adapted; the text says what was found, and the cure."""


def judge(
    before: Floats, after: Floats, by_parent: Ints, how: Clustering, name: str
) -> dict[str, dict[str, float]]:
    """Figures by protocol: separation of pairs before_ and after_.

    Args:
        before, after: (h, 512) unit vectors of the held-back crops, of the parent and of the model.
        by_parent: (h,) the parent's clusters of them.
        how: they are clustered again; name: of the crops, for messages.
    Raises:
        AdaptError: the model got worse, or nothing can tell.
    """
    k1 = min(how.k1, max(len(after) // LEAST_HELD, 2))  # a person's share of so few
    own = clusters(jaccard_graph(after, k1=k1, k2=how.k2), eps=how.eps, least=how.least)
    count, clustered = int(own.max(initial=-1)) + 1, float((own >= 0).mean())
    if count < 2 or clustered < _LEAST_CLUSTERED:
        raise AdaptError(
            f"{name}: of {len(after)} held-back crops {clustered:.0%} fall into {count} clusters "
            f"of the adapted model; all are in {len(np.unique(by_parent))} of the parent's: it "
            "collapsed, no model was written; keep the parent, or gather more crops of more "
            "people"
        )
    measured = {
        protocol: (by_clusters(before, labels, name), by_clusters(after, labels, name))
        for protocol, labels in ((BY_PARENT, by_parent), (BY_ITSELF, own))
    }
    (parent_was, parent_now), (was, now) = (
        [100 * one.error for one in measured[protocol]] for protocol in (BY_PARENT, BY_ITSELF)
    )
    if now > was or parent_now > _MOST_RISE * parent_was + _SLACK:
        raise AdaptError(
            f"{name}: the adapted model is worse on {len(after)} held-back crops: equal error by "
            f"its own clusters of them {was:.1f} % before, {now:.1f} % after, by the parent's "
            f"{parent_was:.1f} and {parent_now:.1f} %; no model was written: keep the parent, or "
            "gather more crops of more people"
        )
    return {
        protocol: {
            f"{when}_{key}": round(value, 4)
            for when, of in zip(("before", "after"), pair, strict=True)
            for key, value in of.model_dump().items()
        }
        for protocol, pair in measured.items()
    }


def by_clusters(vectors: Floats, labels: Ints, name: str) -> Separation:
    """Of pairs of crops, (h, 512), of one cluster and of two, (h,), -1 for none.

    Raises:
        AdaptError: too few pairs of either kind.
    """
    positive, negative = pair_distances(torch.from_numpy(vectors), torch.from_numpy(labels))
    if len(positive) < 2 or len(negative) < 2:
        raise AdaptError(
            f"{name}: {len(positive)} alike and {len(negative)} other pairs among "
            f"{len(labels)} held-back images; nothing could tell whether the model got better: "
            "gather more crops"
        )
    return separation(positive.numpy(), negative.numpy())
