"""A page of ranked results for the user's own eyes: each query and its nearest gallery images.

Promise: one HTML file that needs nothing beside it, pictures inside, ranked by the very distances
that were scored; written whole or not at all. It shows the people of the
data set: it is for the one who may look at that set, and belongs into no documentation.
Fails: OSError where the page cannot be written.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from models.data.readers import JUNK, Dataset, Sample
from models.ranking import Features

HEIGHT = 128
STYLE = (
    "body{font:14px sans-serif;margin:1em}td{padding:2px;text-align:center;vertical-align:top}"
    "img{display:block;border:3px solid #888}"
    ".right img{border-color:#2a2}.wrong img{border:3px dashed #c22}"
)


def write_page(
    path: Path,
    dataset: Dataset,
    blocks: Iterator[Features],
    *,
    how: str,
    queries: int = 40,
    shown: int = 10,
    seed: int = 0,
) -> None:
    """Write the page.

    Args:
        blocks: consecutive rows of the distance matrix, in the set's order of queries and gallery.
        how: what the distances are, for the page's head.
        queries: how many, chosen by `seed`; half of them from those whose first answer is wrong.
        shown: gallery images per query, after the protocol's exclusions.
    """
    ranked: list[list[tuple[int, float]]] = []
    for block in blocks:
        ranked += [
            _answers(dataset, row, distances, shown)
            for row, distances in enumerate(block, start=len(ranked))
        ]
    wrong = [
        row
        for row, found in enumerate(ranked)
        if found and dataset.gallery[found[0][0]].person != dataset.query[row].person
    ]
    random = np.random.default_rng(seed)
    chosen = set(random.permutation(wrong)[: queries // 2].tolist())
    for row in random.permutation(len(ranked)).tolist():
        if len(chosen) >= min(queries, len(ranked)):
            break
        chosen.add(row)
    title = html.escape(f"{dataset.name}, {how}: nearest {shown}")
    lines = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{STYLE}</style><h1>{title}</h1>",
        "<p>Left: the query. Green: the same person by another camera. Red and dashed: another"
        " person. Below: the distance (small is alike) and the camera.</p>",
        f"<p>{len(chosen)} of {len(ranked)} queries, half of them taken where the first answer is"
        " wrong: what stands here says nothing about how often answers are right.</p>",
        "<table>",
    ]
    for row in sorted(chosen):
        lines.append("".join(["<tr>", *_row(dataset, row, ranked[row]), "</tr>"]))
    lines.append("</table>")
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text("\n".join(lines), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _answers(
    dataset: Dataset, row: int, distances: Features, shown: int
) -> list[tuple[int, float]]:
    asked = dataset.query[row]
    found: list[tuple[int, float]] = []
    for index in np.argsort(distances, kind="stable").tolist():
        sample = dataset.gallery[index]
        own = sample.person == asked.person and sample.camera == asked.camera
        if not own and sample.person != JUNK:
            found.append((index, float(distances[index])))
        if len(found) == shown:
            break
    return found


def _row(dataset: Dataset, row: int, found: list[tuple[int, float]]) -> Iterator[str]:
    asked = dataset.query[row]
    yield f"<td>{_picture(dataset, asked)}{asked.person} c{asked.camera}</td>"
    for index, distance in found:
        sample = dataset.gallery[index]
        kind = "right" if sample.person == asked.person else "wrong"
        caption = f"{distance:.2f} c{sample.camera}"
        yield f"<td class={kind} title={kind}>{_picture(dataset, sample)}{caption}</td>"


def _picture(dataset: Dataset, sample: Sample) -> str:
    image = dataset.images.image(sample.name)
    if image is None:
        return f"<i>{html.escape(sample.name)} cannot be read</i>"
    width = max(round(image.shape[1] * HEIGHT / image.shape[0]), 1)
    done, data = cv2.imencode(".jpg", cv2.resize(image, (width, HEIGHT)))
    inside = base64.b64encode(data.tobytes()).decode() if done else ""
    return f'<img alt="" src="data:image/jpeg;base64,{inside}">'
