"""Recipes: named values of `spaces.config.Training`, one YAML file each, with its source in the first lines."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from search.config import RunConfig


def recipes() -> list[str]:
    """The names of all recipes."""
    return sorted(
        file.name.removesuffix(".yaml") for file in files(__name__).iterdir() if file.name.endswith(".yaml")
    )


def load_recipe(name: str) -> dict[str, Any]:
    """The values of a recipe; ValueError where there is none of that name."""
    if name not in recipes():
        raise ValueError(f"recipe must be one of {recipes()}, but got {name!r}")
    values: dict[str, Any] = yaml.safe_load((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def training_fields(run: RunConfig) -> dict[str, Any]:
    """The training values that a run gives to all its candidates: the recipe, its own over it, epochs and seed.

    A recipe that is run for another number of epochs keeps its share of warm-up, unless the run file says otherwise.
    """
    values = load_recipe(run.recipe)
    scaled = values.get("warmup_epochs", 2.0) * run.epochs / values["epochs"]
    return {**values, "warmup_epochs": scaled, "seed": run.seed, **run.training, "epochs": run.epochs}
