"""The recipe of a model's pictures, and whether an .om with AIPP can follow it."""

from __future__ import annotations

from pathlib import Path

from lib.config.recipe import Recipe
from lib.export.atc_rules import PROBLEM, Finding, load_graph
from lib.export.onnx_metadata import RECIPE_KEY, metadata_of, parse_recipe


def recipe_of(path: Path, side: int) -> Recipe:
    """Return the recipe of a model in which `check_model` found no problem."""
    return parse_recipe(metadata_of(load_graph(path)).get(RECIPE_KEY), path) or (
        Recipe.for_crop(side)
    )


def check_aipp(recipe: Recipe) -> Finding | None:
    """Return what is wrong with a recipe for aipp.cfg and its input files; None: nothing."""
    differences = recipe.differences(Recipe.for_crop(recipe.crop))
    if not differences:
        return None
    advice = "AIPP and its input files are made for the usual preprocessing: leave out --aipp"
    return Finding("recipe", ", ".join(differences), PROBLEM, advice)
