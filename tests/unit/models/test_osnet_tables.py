"""The tables of short trainings: every row can be built, none is trained twice, means are means."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import osnet_tables
from benchmarks.osnet_tables import TABLES, Variant, recipe_of
from models.osnet import OSNet


@pytest.mark.parametrize("variant", [v for table in TABLES.values() for v in table], ids=str)
def test_every_row_is_a_recipe_whose_network_can_be_built(variant: Variant) -> None:
    recipe = recipe_of(variant, seed=1, epochs=2)

    network = OSNet(recipe.architecture, classes=3)

    assert recipe.epochs == 2
    assert network.classifier is not None
    others = ("rendered:train",) if variant.rendered else ()
    assert recipe.data.sources == (f"{variant.source}:train", *others)


def test_rows_of_a_table_have_names_of_their_own() -> None:
    for table in TABLES.values():
        names = [(variant.source, variant.name) for variant in table]
        assert len(set(names)) == len(names)


def test_a_table_goes_on_where_it_was_stopped_and_tells_means_over_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[tuple[str, str, int]] = []

    def run(variant: Variant, seed: int, packs: Path, epochs: int) -> dict[str, Any]:
        trained.append((variant.source, variant.name, seed))
        scores = {f"{set_}_{key}": 10.0 * seed for set_ in ("cuhk03", "market1501")
                  for key in ("rank1", "map")}  # fmt: skip
        named = {"variant": variant.name, "source": variant.source, "seed": seed}
        return named | {"epochs": epochs, "steps": 100, "paper": ""} | scores

    monkeypatch.setattr(osnet_tables, "run", run)
    call = ["osnet_tables", "transfer", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", call)
    assert osnet_tables.main() == 0
    first = list(trained)
    capsys.readouterr()

    monkeypatch.setattr(sys, "argv", [*call, "--seeds", "2"])
    assert osnet_tables.main() == 0

    assert trained[len(first) :] == [(source, name, 2) for source, name, _ in first]
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(row["n"] == 2 and row["market1501_map"] == 15.0 for row in told["rows"])

    monkeypatch.setattr(sys, "argv", [*call, "--epochs", "1"])
    assert osnet_tables.main() == 0

    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(row["n"] == 1 for row in told["rows"]), "runs of two lengths were averaged"
