"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples at every run; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

ROOT = Path(__file__).resolve().parent.parent


def skip_or_fail(reason: str) -> None:
    """Skip, or fail where the machine promised to have everything (REID_REQUIRE_ALL=1)."""
    if os.environ.get("REID_REQUIRE_ALL") == "1":
        pytest.fail(f"REID_REQUIRE_ALL=1 and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of experiment data and reference models, beside the repository or REID_SHARED."""
    folder = Path(os.environ.get("REID_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        skip_or_fail(f"no experiment data at {folder}; set REID_SHARED")
    return folder
