"""Recipes are valid, and a run's own values win over them."""

from __future__ import annotations

import pytest

from search.config import RunConfig
from search.recipes import load_recipe, recipes, training_fields
from spaces.config import Training


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_a_training(name: str) -> None:
    values = load_recipe(name)
    training = Training.model_validate(values)
    assert {key: getattr(training, key) for key in values} == values
    assert "seed" not in values


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"recipe must be one of \['.*search.*'\], but got 'soup'"):
        load_recipe("soup")


def test_the_run_wins_over_the_recipe() -> None:
    run = RunConfig(name="x", recipe="search", epochs=7, seed=5, training={"lr": 0.5, "warmup_epochs": 3})
    fields = training_fields(run)
    assert (fields["lr"], fields["epochs"], fields["seed"], fields["warmup_epochs"]) == (0.5, 7, 5, 3)
    assert fields["weight_decay"] == load_recipe("search")["weight_decay"]


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("epochs", [1, 3, 1000])
def test_any_number_of_epochs_keeps_the_share_of_warm_up(name: str, epochs: int) -> None:
    recipe = load_recipe(name)
    training = Training.model_validate(training_fields(RunConfig(name="x", recipe=name, epochs=epochs)))
    assert training.warmup_epochs / epochs == pytest.approx(recipe["warmup_epochs"] / recipe["epochs"])
