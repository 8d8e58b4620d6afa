"""A page of ranked results for the user's own eyes: each query and its nearest gallery images.

Promise: one HTML file that needs nothing beside it, pictures inside. It shows the people of the
data set: it is for the one who may look at that set, and belongs into no documentation.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from models.data.readers import JUNK, Dataset, Sample
from models.ranking import Features, unit

HEIGHT = 128
STYLE = (
    "body{font:14px sans-serif;margin:1em}td{padding:2px;text-align:center;vertical-align:top}"
    "img{display:block;border:3px solid #888}"
    ".right img{border-color:#2a2}.wrong img{border-color:#c22}"
)


def write_page(
    path: Path,
    dataset: Dataset,
    query: Features,
    gallery: Features,
    *,
    queries: int = 40,
    shown: int = 10,
    seed: int = 0,
) -> None:
    """Write the page.

    Args:
        query, gallery: features in the set's order.
        queries: how many, chosen by `seed`; half of them from those whose first answer is wrong.
        shown: gallery images per query, after the protocol's exclusions.
    """
    similar = unit(query) @ unit(gallery).T
    ranked = [_answers(dataset, row, similar[row], shown) for row in range(len(query))]
    wrong = [
        row for row, found in enumerate(ranked)
        if found and dataset.gallery[found[0]].person != dataset.query[row].person
    ]  # fmt: skip
    random = np.random.default_rng(seed)
    chosen = set(random.permutation(wrong)[: queries // 2].tolist())
    for row in random.permutation(len(query)).tolist():
        if len(chosen) >= min(queries, len(query)):
            break
        chosen.add(row)
    lines = [
        f"<!doctype html><meta charset=utf-8><title>{html.escape(dataset.name)}</title>",
        f"<style>{STYLE}</style><h1>{html.escape(dataset.name)}: nearest {shown}</h1>",
        "<p>Left: the query. Green: the same person by another camera. Red: another person.</p>",
        "<table>",
    ]
    for row in sorted(chosen):
        lines.append("".join(["<tr>", *_row(dataset, row, ranked[row], similar[row]), "</tr>"]))
    lines.append("</table>")
    path.write_text("\n".join(lines), encoding="utf-8")


def _answers(dataset: Dataset, row: int, similar: Features, shown: int) -> list[int]:
    asked = dataset.query[row]
    found: list[int] = []
    for index in np.argsort(-similar, kind="stable").tolist():
        sample = dataset.gallery[index]
        own = sample.person == asked.person and sample.camera == asked.camera
        if not own and sample.person != JUNK:
            found.append(index)
        if len(found) == shown:
            break
    return found


def _row(dataset: Dataset, row: int, found: list[int], similar: Features) -> Iterator[str]:
    asked = dataset.query[row]
    yield f"<td>{_picture(dataset, asked)}{asked.person} c{asked.camera}</td>"
    for index in found:
        sample = dataset.gallery[index]
        kind = "right" if sample.person == asked.person else "wrong"
        caption = f"{similar[index]:.2f} c{sample.camera}"
        yield f"<td class={kind}>{_picture(dataset, sample)}{caption}</td>"


def _picture(dataset: Dataset, sample: Sample) -> str:
    image = dataset.images.image(sample.name)
    if image is None:
        return f"<i>{html.escape(sample.name)} cannot be read</i>"
    width = max(round(image.shape[1] * HEIGHT / image.shape[0]), 1)
    done, data = cv2.imencode(".jpg", cv2.resize(image, (width, HEIGHT)))
    inside = base64.b64encode(data.tobytes()).decode() if done else ""
    return f'<img alt="" src="data:image/jpeg;base64,{inside}">'
