"""What the documents say of the code is what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_page_of_settings_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("page", ROOT / "docs" / "make_configuration.py")
    assert spec is not None
    assert spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)

    written = (ROOT / "docs" / "configuration.md").read_text()

    assert written == page.text(), "run: python docs/make_configuration.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    links = [
        link.partition("#")[0]
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if not link.startswith(("http", "#", "mailto:"))
    ]
    named = re.findall(
        r"`((?:docs|deploy|benchmarks|edge|matcher|models|reid|tests|proto)/[\w./-]+)`", text
    )

    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name.rstrip("/")).exists()]

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_make_targets_and_benchmarks_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    modules = re.findall(r"python -m (benchmarks\.\w+)", text)

    missing = [t for t in re.findall(r"`make ([a-z-]+)", text) if t not in targets]
    missing += [m for m in modules if not (ROOT / (m.replace(".", "/") + ".py")).is_file()]

    assert missing == []
