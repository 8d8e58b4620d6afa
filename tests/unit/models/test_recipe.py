"""Are recipes read whole, and wrong ones refused by key and value?"""

from __future__ import annotations

from pathlib import Path

import pytest

from models.recipe import RecipeError, read_recipe

FOLDER = Path(__file__).parents[3] / "models" / "recipes"
RECIPES = sorted(FOLDER.glob("osnet*.toml"))
RUNS = sorted((FOLDER / "runs").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_house_is_readable(path: Path) -> None:
    recipe = read_recipe(path)

    assert recipe.name == path.stem
    assert recipe.kind == "osnet"
    assert not recipe.init or Path(recipe.init).is_file()


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_runs_from_random_weights_each_begin_where_the_one_before_ended(path: Path) -> None:
    recipe = read_recipe(path)
    name, _, number = path.stem.rpartition("_")

    assert recipe.name == path.stem
    assert (FOLDER / f"{name}.toml").is_file()
    before = f"{name}_{int(number) - 1}"
    if number == "1":
        assert not recipe.init
    else:
        assert recipe.init.endswith(f"/recipes/runs/../../../out/{before}/last.pth")
        assert path.with_name(f"{before}.toml") in RUNS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('stages = [{epochs=1}]\n[data]\npacks=["a"]\nquality = 3', "unknown key 'quality'"),
        ('stages = [{epochs="many"}]\n[data]\npacks=["a"]', "expected int, found 'many'"),
        ('kind = "resnet"\nstages = []\n[data]\npacks=["a"]', "'resnet' is none of 'osnet'"),
        ('stages = []\n[data]\npacks=["a"]', "at least one epoch"),
        ('stages = [{epochs=1, height=0}]\n[data]\npacks=["a"]', "height is 0; expected 16 to"),
        ('stages = [{epochs=1}]\n[data]\npacks=["a"]\n[augment]\nflip=5', "flip is 5.0; expected"),
        ('stages = [{epochs=1}]\n[data]\npacks=["a"]\n[optimise]\npeople=1', "people is 1"),
        ('stages = [{epochs=1}]\n[data]\npacks=["a"]\n[optimise]\nema=1', "ema is 1.0"),
        (
            'stages=[{epochs=2}]\n[data]\npacks=["a"]\n[losses]\ntriplet=0\nclasses_from_epoch=1',
            "no loss is on in the first epoch",
        ),
        (
            'stages=[{epochs=2}]\n[data]\npacks=["a"]\n[losses]\ndistil_logits=1',
            "without a teacher",
        ),
        (
            'stages=[{epochs=2}]\n[data]\npacks=["a"]\n[optimise]\nimages=1',
            "need two images a person",
        ),
        (
            'stages=[{epochs=2}]\n[data]\npacks=["a"]\nevaluate_query=["a:query"]',
            "evaluate_query and evaluate_gallery go together",
        ),
        (
            'stages=[{epochs=2, height=16, width=16}]\n[data]\npacks=["a"]\n'
            '[architecture]\nnormalisation="ain"',
            "16x16 leaves AIN's last layers one cell",
        ),
        ("seed = 1", "data is missing"),
        ("seed = ", "not TOML"),
    ],
)
def test_a_wrong_recipe_names_key_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    head = "" if "kind" in text else 'kind = "osnet"\n'
    path.write_text(f'name = "x"\n{head}{text}')

    with pytest.raises(RecipeError, match=message):
        read_recipe(path)
